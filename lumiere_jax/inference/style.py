"""Stylized generation: the image weights of a base model, moved towards those of a style.

The temporal weights stay as they are (Lumiere, arXiv 2401.12945, section 4: a linear interpolation
between the original text-to-image weights and those that were fine-tuned on a style).
"""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh
from jaxtyping import Array, Shaped

from lumiere_jax.cascade.config import ConfigDict, StageConfig
from lumiere_jax.cascade.stage import INPUT_LAYER
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.models.lora import LORA, merge_lora
from lumiere_jax.models.parameters import Params
from lumiere_jax.models.stunet import is_temporal
from lumiere_jax.runtime.errors import UserError

STAGE = "style"
_INPUT = (INPUT_LAYER, "kernel")
AnyArray = Array | np.ndarray


def interpolate(
    config: ConfigDict | StageConfig,
    params: Params,
    workdir: str | Path,
    alpha: float,
    mesh: Mesh | None = None,
) -> Params:
    """Parameters of a base stage with the image weights `alpha · style + (1 - alpha) · original`.

    The style is that of a training run in `workdir`; `alpha` is in [0, 1], and 0 gives every weight
    back bit for bit. A conditional base has trained its whole input layer for what it is shown: it
    keeps that, with `alpha` times the change of a low-rank style. Of a style that trained all
    weights, it is not known what they were before. `mesh` is where the parameters are, if not on
    one device.

    Raises:
      UserError: if the checkpoint is of another stage or network, or alpha out of range.
    """
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha={alpha} must be between 0 (no style) and 1 (all of it).")
    saved, found, _ = checkpoint.load(workdir, mesh)
    if saved.stage != STAGE:
        raise UserError(
            f"--style_checkpoint={workdir} is a checkpoint of stage {saved.stage!r}; give one of "
            f"stage {STAGE!r}."
        )
    fields = checkpoint.INHERITED_FIELDS
    checkpoint.check_same_fields(saved.to_dict(), config, fields, workdir, "another style")
    styled, base = flatten_dict(merge_lora(found)), flatten_dict(params)
    image = {path for path in base if not is_temporal(path)}
    differing = image.symmetric_difference(styled) or {
        path for path in image if styled[path].shape != base[path].shape and path != _INPUT
    }
    if differing:
        raise UserError(
            f"--style_checkpoint={workdir} is of another image network than the base stage: "
            f"{'/'.join(min(differing))!r} differs; train the style from the same stage 't2i'."
        )
    if base[_INPUT].shape != styled[_INPUT].shape:  # that of a conditional base
        image = {path for path in image if path[0] != INPUT_LAYER}
        if alpha and LORA in found:
            none = jnp.zeros(styled[_INPUT].shape)
            change = merge_lora(unflatten_dict(styled | {_INPUT: none}) | {LORA: found[LORA]})
            base[_INPUT] = _with_change(base[_INPUT], alpha * change[INPUT_LAYER]["kernel"])
    for path in image:
        base[path] = _blend(base[path], styled[path], alpha)
    return unflatten_dict(base)


def _with_change(
    kernel: Shaped[AnyArray, "..."], change: Shaped[AnyArray, "..."]
) -> Shaped[AnyArray, "..."]:
    """A kernel with a change, in float32, of its first input channels; rounded once."""
    shared = change.shape[2]
    changed = (kernel[:, :, :shared].astype(jnp.float32) + change).astype(kernel.dtype)
    return jnp.concatenate([changed, kernel[:, :, shared:]], axis=2)


def _blend(
    original: Shaped[AnyArray, "..."], style: Shaped[AnyArray, "..."], alpha: float
) -> Shaped[AnyArray, "..."]:
    """A weight, rounded once: a style's change is often as small as a rounding of bfloat16."""
    if 0 < alpha < 1:
        exact = alpha * style.astype(jnp.float32) + (1 - alpha) * original.astype(jnp.float32)
        return exact.astype(original.dtype)
    return style.astype(original.dtype) if alpha else original
