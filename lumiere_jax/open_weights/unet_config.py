"""`unet/config.json` of DeepFloyd IF as fields of our U-Net, and back."""

import dataclasses
from pathlib import Path
from typing import Any

from lumiere_jax.models.unet import UNet
from lumiere_jax.open_weights.json_fields import Fields
from lumiere_jax.runtime.errors import UserError

CLASS = "UNet2DConditionModel"

# What `UNet2DConditionModel` takes for a field that the file does not have.
_DEFAULTS: dict[str, Any] = {
    "sample_size": None, "in_channels": 4, "out_channels": 4, "center_input_sample": False,
    "flip_sin_to_cos": True, "freq_shift": 0,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3, "only_cross_attention": False,
    "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2, "downsample_padding": 1,
    "mid_block_scale_factor": 1, "dropout": 0.0, "act_fn": "silu", "norm_num_groups": 32,
    "norm_eps": 1e-5, "cross_attention_dim": 1280, "transformer_layers_per_block": 1,
    "reverse_transformer_layers_per_block": None, "encoder_hid_dim": None,
    "encoder_hid_dim_type": None, "attention_head_dim": 8, "num_attention_heads": None,
    "dual_cross_attention": False, "use_linear_projection": False, "class_embed_type": None,
    "addition_embed_type": None, "addition_time_embed_dim": None, "num_class_embeds": None,
    "upcast_attention": False, "resnet_time_scale_shift": "default", "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0, "time_embedding_type": "positional", "time_embedding_dim": None,
    "time_embedding_act_fn": None, "timestep_post_act": None, "time_cond_proj_dim": None,
    "conv_in_kernel": 3, "conv_out_kernel": 3, "projection_class_embeddings_input_dim": None,
    "attention_type": "default", "class_embeddings_concat": False,
    "mid_block_only_cross_attention": None, "cross_attention_norm": None,
    "addition_embed_type_num_heads": 64,
}  # fmt: skip
# Fields that no field of our U-Net stands for: what it does is the one value here.
_FIXED: dict[str, Any] = _DEFAULTS | {
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "addition_embed_type": "text",
    "resnet_time_scale_shift": "scale_shift",
    "resnet_skip_time_act": True,
}
_DOWN = {False: "ResnetDownsampleBlock2D", True: "SimpleCrossAttnDownBlock2D"}
_UP = {False: "ResnetUpsampleBlock2D", True: "SimpleCrossAttnUpBlock2D"}


@dataclasses.dataclass(frozen=True)
class UNetConfig:
    """What a `unet/config.json` says."""

    fields: dict[str, Any]  # of `UNet`, or of `SuperResolutionUNet`
    text_dim: int  # channels of the text embeddings
    sample_size: int  # width and height, in pixels


def read(path: Path) -> UNetConfig:
    """Reads a `unet/config.json`; a `UserError` if a field or a value of it is not supported."""
    given = Fields(path, _DEFAULTS)
    widths = given.take("block_out_channels")
    sample_size, text_dim = given.number("sample_size"), given.number("encoder_hid_dim")
    given.choose("encoder_hid_dim_type", "text_proj", None)  # None means it where there is a size
    activation = given.choose("act_fn", "gelu", "silu")
    given.choose("time_embedding_act_fn", activation)
    text_only = given.choose("only_cross_attention", False, True)
    given.choose("mid_block_only_cross_attention", None, text_only)
    divisor = float(given.take("resnet_out_scale_factor"))
    given.choose("mid_block_scale_factor", divisor)
    layers = given.take("layers_per_block")
    fields = {
        "widths": tuple(widths),
        "layers_per_level": tuple(layers) if isinstance(layers, list) else layers,
        "attention_levels": _attention_levels(given),
        "in_channels": given.number("in_channels"),
        "out_channels": given.number("out_channels"),
        "embedding_features": given.take("time_embedding_dim") or 4 * widths[0],
        "head_dim": given.number("attention_head_dim"),
        "text_features": given.number("cross_attention_dim"),
        "pooling_heads": given.number("addition_embed_type_num_heads"),
        "groups": given.number("norm_num_groups"),
        "activation": activation,
        "text_norm": {"group_norm": "group", "layer_norm": "layer"}[
            given.choose("cross_attention_norm", "group_norm", "layer_norm")
        ],
        "self_attention": not text_only,
        "residual_divisor": divisor,
        "augmentation": given.choose("class_embed_type", None, "timestep") is not None,
    }
    given.finish(_FIXED)
    return UNetConfig(fields, text_dim, sample_size)


def _attention_levels(given: Fields) -> tuple[bool, ...]:
    down, up = given.take("down_block_types"), given.take("up_block_types")
    levels = []
    for block in down:
        if block not in _DOWN.values():
            given.refuse("down_block_types", down, " and ".join(_DOWN.values()))
        levels.append(block == _DOWN[True])
    expected = [_UP[yes] for yes in reversed(levels)]
    if up != expected:
        given.refuse("up_block_types", up, f"{expected}, the way down in reverse")
    return tuple(levels)


def describe(network: UNet, text_dim: int, sample_size: int) -> dict[str, Any]:
    """The `unet/config.json` of a network that is not inflated, for text and images of these sizes.

    A way to normalize text that `diffusers` does not know is a `UserError`.
    """
    norms = {"group": "group_norm", "layer": "layer_norm"}
    if network.text_norm not in norms:
        raise UserError(f"text_norm {network.text_norm!r} has no counterpart in diffusers.")
    layers = network.layers_per_level
    return {"_class_name": CLASS} | _FIXED | {
        "sample_size": sample_size,
        "in_channels": network.in_channels,
        "out_channels": network.out_channels,
        "down_block_types": [_DOWN[yes] for yes in network.attention_levels],
        "up_block_types": [_UP[yes] for yes in reversed(network.attention_levels)],
        "only_cross_attention": not network.self_attention,
        "block_out_channels": list(network.widths),
        "layers_per_block": layers if isinstance(layers, int) else list(layers),
        "mid_block_scale_factor": network.residual_divisor,
        "resnet_out_scale_factor": network.residual_divisor,
        "act_fn": network.activation,
        "time_embedding_act_fn": network.activation,
        "norm_num_groups": network.groups,
        "cross_attention_dim": network.text_features,
        "cross_attention_norm": norms[network.text_norm],
        "encoder_hid_dim": text_dim,
        "encoder_hid_dim_type": "text_proj",
        "attention_head_dim": network.head_dim,
        "class_embed_type": "timestep" if network.augmentation else None,
        "time_embedding_dim": network.embedding_features or None,
        "addition_embed_type_num_heads": network.pooling_heads,
    }  # fmt: skip
