"""The text-to-image U-Net's twin: `diffusers`' `UNet2DConditionModel` of the DeepFloyd IF kind."""

import re
from collections.abc import Mapping

import diffusers
import jax.numpy as jnp
import numpy as np
import torch

from lumiere_jax.models.unet import UNet

# Fields of `UNet` for the three sizes of DeepFloyd IF's stage I (DeepFloyd/IF-I-*-v1.0).
IF_WIDTHS = {
    "XL": (704, 1408, 2112, 2816),
    "L": (320, 640, 960, 1280),
    "M": (192, 384, 576, 768),
}
IF_TEXT_DIM = 4096


def if_stage_one(size: str) -> UNet:
    widths = IF_WIDTHS[size]
    return UNet(
        widths=widths,
        attention_levels=(False, True, True, True),
        out_channels=6,
        text_features=widths[-1],
        activation="gelu",
        text_norm="group",
    )


def torch_unet(unet: UNet, text_dim: int, device: str = "cpu") -> torch.nn.Module:
    """The torch network with the same sizes as `unet`; on "meta" it has shapes and no values."""

    def blocks(plain: str, attention: str) -> list[str]:
        return [attention if yes else plain for yes in unet.attention_levels]

    with torch.device(device):
        return diffusers.UNet2DConditionModel(
            sample_size=32,
            in_channels=unet.in_channels,
            out_channels=unet.out_channels,
            block_out_channels=unet.widths,
            layers_per_block=unet.layers_per_level,
            down_block_types=blocks("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=blocks("ResnetUpsampleBlock2D", "SimpleCrossAttnUpBlock2D")[::-1],
            attention_head_dim=unet.head_dim,
            cross_attention_dim=unet.text_features,
            cross_attention_norm=f"{unet.text_norm}_norm",
            encoder_hid_dim=text_dim,
            encoder_hid_dim_type="text_proj",
            addition_embed_type="text",
            addition_embed_type_num_heads=unet.pooling_heads,
            act_fn=unet.activation,
            time_embedding_act_fn=unet.activation,
            norm_num_groups=unet.groups,
            resnet_time_scale_shift="scale_shift",
            resnet_skip_time_act=True,
        )


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Draws every parameter anew: torch starts norms at one and zero, which would hide faults."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            if parameter.ndim > 1 and name.endswith("weight"):
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
            else:
                mean = float(name.endswith("weight"))
                parameter.copy_(mean + 0.3 * noise)


_TOP_LEVEL = {
    "conv_in": "conv_in",
    "time_embedding.linear_1": "time_mlp/dense_0",
    "time_embedding.linear_2": "time_mlp/dense_1",
    "encoder_hid_proj": "text_projection",
    "add_embedding.norm1": "text_pooling/norm_in",
    "add_embedding.norm2": "text_pooling/norm_out",
    "add_embedding.proj": "text_pooling/out",
    "add_embedding.pool.q_proj": "text_pooling/query",
    "add_embedding.pool.k_proj": "text_pooling/key",
    "add_embedding.pool.v_proj": "text_pooling/value",
    "add_embedding.pool": "text_pooling",
    "conv_norm_out": "norm_out",
    "conv_out": "conv_out",
}
_IN_BLOCK = {
    "norm1": "norm_0",
    "conv1": "conv_0",
    "time_emb_proj": "modulation",
    "norm2": "norm_1",
    "conv2": "conv_1",
    "conv_shortcut": "shortcut",
    "group_norm": "norm",
    "norm_cross": "text_norm",
    "to_q": "query",
    "to_k": "key",
    "to_v": "value",
    "add_k_proj": "text_key",
    "add_v_proj": "text_value",
    "to_out.0": "out",
}
_KIND = {
    "resnets": "_{i}_block",
    "attentions": "_{i}_attention",
    "downsamplers": "_resample_block",
    "upsamplers": "_resample_block",
}


def _module_path(module: str, levels: int) -> str:
    if module in _TOP_LEVEL:
        return _TOP_LEVEL[module]
    match = re.fullmatch(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?([a-z]+)\.(\d+)\.(.+)", module)
    side, index, kind, i, inner = match.groups()
    level = {"down": index, "mid": None, "up": index and str(levels - 1 - int(index))}[side]
    head = side if level is None else f"{side}_{level}"
    return head + _KIND[kind].format(i=i) + "/" + _IN_BLOCK[inner]


def convert(state: Mapping[str, torch.Tensor], levels: int) -> dict[str, torch.Tensor]:
    """Renames and transposes each torch tensor; an unknown name or a double use raises."""
    result = {}
    for name, tensor in state.items():
        module, leaf = name.rsplit(".", 1)
        if leaf == "weight":
            leaf = "scale" if tensor.ndim == 1 else "kernel"
        if tensor.ndim == 4:
            tensor = tensor.permute(2, 3, 1, 0)
        elif leaf == "kernel":
            tensor = tensor.T
        leaf = "position" if leaf == "positional_embedding" else leaf
        path = f"{_module_path(module, levels)}/{leaf}"
        assert path not in result, f"two torch tensors for {path}"
        result[path] = tensor
    return result


def flax_params(model: torch.nn.Module, levels: int) -> dict:
    """The torch network's parameters as a tree of float32 arrays."""
    tree: dict = {}
    for path, tensor in convert(model.state_dict(), levels).items():
        *parents, leaf = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = jnp.asarray(np.ascontiguousarray(tensor.detach().numpy()))
    return tree
