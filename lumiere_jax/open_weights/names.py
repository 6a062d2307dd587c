"""The parameters of the text-to-image U-Net by the names that `diffusers` gives them.

Both name the same arrays: torch keeps a convolution's kernel as [out, in, height, width] and a
dense layer's as [out, in], Flax as [height, width, in, out] and [in, out].
"""

import re

import numpy as np

from lumiere_jax.runtime.errors import UserError

_TOP_LEVEL = {
    "conv_in": "conv_in",
    "time_embedding.linear_1": "time_mlp/dense_0",
    "time_embedding.linear_2": "time_mlp/dense_1",
    "class_embedding.linear_1": "augmentation_mlp/dense_0",
    "class_embedding.linear_2": "augmentation_mlp/dense_1",
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
    "norm1": "norm_0", "conv1": "conv_0", "time_emb_proj": "modulation", "norm2": "norm_1",
    "conv2": "conv_1", "conv_shortcut": "shortcut", "group_norm": "norm", "norm_cross": "text_norm",
    "to_q": "query", "to_k": "key", "to_v": "value", "add_k_proj": "text_key",
    "add_v_proj": "text_value", "to_out.0": "out",
}  # fmt: skip
_KINDS = {
    "resnets": "_{i}_block",
    "attentions": "_{i}_attention",
    "downsamplers": "_resample_block",
    "upsamplers": "_resample_block",
}
_TORCH_TOP_LEVEL = {ours: theirs for theirs, ours in _TOP_LEVEL.items()}
_TORCH_IN_BLOCK = {ours: theirs for theirs, ours in _IN_BLOCK.items()}
_TORCH_LEAVES = {"position": "positional_embedding", "scale": "weight", "kernel": "weight"}


def our_path(name: str, ndim: int, levels: int) -> str:
    """The path of a parameter of `UNet`, with slashes, by its name in `diffusers`.

    Args:
      name: such as "down_blocks.1.resnets.0.conv1.weight".
      ndim: number of axes of the array.
      levels: of the U-Net.

    Raises:
      UserError: if the network has no such parameter.
    """
    module, _, leaf = name.rpartition(".")
    weight = "scale" if ndim == 1 else "kernel"
    leaves = {"weight": weight, "bias": "bias", "positional_embedding": "position"}
    path = _our_module(module, levels)
    if path is None or leaf not in leaves:
        raise UserError(
            f"the tensor {name!r} is of no layer of DeepFloyd IF's U-Net; give a directory of "
            "its stage I or II in the layout of diffusers."
        )
    return f"{path}/{leaves[leaf]}"


def torch_name(path: str, levels: int) -> str:
    """The name in `diffusers` of a parameter of `UNet`: the inverse of `our_path`, errors too."""
    module, _, leaf = path.rpartition("/")
    leaf = _TORCH_LEAVES.get(leaf, leaf)
    if module in _TORCH_TOP_LEVEL:
        return f"{_TORCH_TOP_LEVEL[module]}.{leaf}"
    match = re.fullmatch(
        r"(?:(down|up)_(\d+)|mid)_(?:(\d+)_(block|attention)|resample_block)/(\w+)", module
    )
    if not match or match[5] not in _TORCH_IN_BLOCK:
        raise UserError(f"the parameter {path!r} has no place in a network of diffusers.")
    side, level, index, kind, inner = match.groups()
    head = f"{side}_blocks.{_level(side, level, levels)}" if side else "mid_block"
    groups = {"block": "resnets", "attention": "attentions"}
    group = f"{groups[kind]}.{index}" if index else f"{side}samplers.0"
    return f"{head}.{group}.{_TORCH_IN_BLOCK[inner]}.{leaf}"


def to_ours(name: str, array: np.ndarray) -> np.ndarray:
    """An array of `diffusers` with the axes of ours."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T if array.ndim == 2 and name.endswith(".weight") else array


def to_torch(path: str, array: np.ndarray) -> np.ndarray:
    """An array of ours with the axes of `diffusers`."""
    if array.ndim == 4:
        return array.transpose(3, 2, 0, 1)
    return array.T if array.ndim == 2 and path.endswith("/kernel") else array


def torch_shape(path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in `diffusers` of an array of ours."""
    return to_torch(path, np.broadcast_to(np.float32(0), shape)).shape


def _our_module(module: str, levels: int) -> str | None:
    """The path of a layer, or None if there is no such layer."""
    if module in _TOP_LEVEL:
        return _TOP_LEVEL[module]
    match = re.fullmatch(r"(?:(down|up)_blocks\.(\d+)|mid_block)\.([a-z]+)\.(\d+)\.(.+)", module)
    if not match or match[3] not in _KINDS or match[5] not in _IN_BLOCK:
        return None
    side, index, kind, i, inner = match.groups()
    head = f"{side}_{_level(side, index, levels)}" if side else "mid"
    return head + _KINDS[kind].format(i=i) + "/" + _IN_BLOCK[inner]


def _level(side: str, level: str, levels: int) -> int:
    """A level as the other project counts it, which begins the way up at the bottom."""
    return int(level) if side == "down" else levels - 1 - int(level)
