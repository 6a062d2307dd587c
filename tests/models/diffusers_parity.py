"""The text-to-image U-Net's twin: `diffusers`' `UNet2DConditionModel` of the DeepFloyd IF kind."""

from collections.abc import Mapping

import diffusers
import jax.numpy as jnp
import numpy as np
import torch

from lumiere_jax.models.unet import UNet
from lumiere_jax.open_weights import names

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


def randomize(model: torch.nn.Module, seed: int) -> None:
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


def convert(state: Mapping[str, torch.Tensor], levels: int) -> dict[str, np.ndarray]:
    """Our arrays by path; an unknown name or a double use raises. Tensors may be on "meta"."""
    result = {}
    for name, tensor in state.items():
        path = names.our_path(name, tensor.ndim, levels)
        assert names.torch_name(path, levels) == name
        assert path not in result, f"two torch tensors for {path}"
        is_meta = tensor.device.type == "meta"
        array = np.broadcast_to(0.0, tensor.shape) if is_meta else tensor.detach().numpy()
        result[path] = names.to_ours(name, array)
        assert names.to_torch(path, result[path]).shape == tensor.shape
    return result


def flax_params(model: torch.nn.Module, levels: int) -> dict:
    """The torch network's parameters as a tree of float32 arrays."""
    tree: dict = {}
    for path, array in convert(model.state_dict(), levels).items():
        *parents, leaf = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = jnp.asarray(np.ascontiguousarray(array))
    return tree
