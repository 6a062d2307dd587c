"""Averages of a run's parameters over windows that are chosen after training.

Karras et al. (arXiv 2312.02696, section 3) average with weights that grow as a power of the step,
and save two such averages, of different widths, now and then. Their combination, by least squares,
is the average of almost any other width. A width is the standard deviation of the weights over the
steps, as a share of all steps: at 0.1 nine tenths of the weight are on the last quarter of a run.
"""

from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import Float

from lumiere_jax.cascade.state import POWER_WIDTHS, power_exponent
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.models.parameters import Params
from lumiere_jax.runtime.errors import UserError

_WORST = 0.03  # distance of the weights from those asked for, relative


def load(workdir: str | Path, width: float) -> tuple[Params, int]:
    """The average of the trained parameters of a run that kept snapshots, and its last step.

    Args:
      workdir: of the run, see `train.ema_snapshots` of its config.
      width: as a share of the steps until the last snapshot.

    Raises:
      UserError: without snapshots, or if they are too few for such a width.
    """
    run, step = checkpoint.run_of(workdir)
    if step is not None:
        raise UserError(
            f"--ema_width averages until the end of a run: give {run}, or leave the flag out for "
            f"step {step}."
        )
    folder = run / checkpoint.SNAPSHOTS
    steps = sorted(ocp.utils.checkpoint_steps(folder)) if folder.is_dir() else []
    if not steps:
        raise UserError(
            f"{workdir} has no snapshots of averages, so --ema_width cannot be chosen: train with "
            "--config.train.ema_snapshots=20, or leave the flag out."
        )
    if not 0.0 < width < 0.28:
        raise UserError(f"--ema_width={width} must be above 0 and below 0.28, as 0.1.")
    found, error = coefficients(np.array(steps, float), width)
    if error > _WORST:
        raise UserError(
            f"--ema_width={width}: {len(steps)} snapshots in {folder} come no nearer to it than "
            f"{error:.0%}; choose one nearer to {' or '.join(map(str, POWER_WIDTHS.values()))}."
        )
    total: Params = {}
    for step, row in zip(steps, found, strict=True):
        for name, factor in zip(POWER_WIDTHS, row, strict=True):
            arrays = checkpoint.read_item(folder / str(step) / name)
            total = _plus(total, np.float32(factor), arrays)
    return total, steps[-1]


def _plus(total: Params, factor: np.float32, arrays: Params) -> Params:
    """A sum with a multiple of a tree; an empty one is zero."""
    part = jax.tree.map(lambda leaf: factor * np.asarray(leaf), arrays)
    return jax.tree.map(np.add, total, part) if total else part


def coefficients(
    steps: Float[np.ndarray, " snapshots"], width: float
) -> tuple[Float[np.ndarray, "snapshots widths"], float]:
    """What each snapshot counts in the average of a width at the last step, and the error.

    The error is the distance of the weights of parameters from those that were asked for, relative
    to these, in the mean square over steps.
    """
    own = [power_exponent(width) for width in POWER_WIDTHS.values()]
    ends, exponents = np.repeat(steps, len(own)), np.tile(own, len(steps))
    last, wanted = steps[-1], power_exponent(width)
    products = last * _product(ends[:, None], exponents[:, None], ends, exponents)
    aims = last * _product(ends, exponents, last, wanted)
    found = np.linalg.lstsq(products, aims, rcond=1e-12)[0]
    square = last * _product(last, wanted, last, wanted)
    left = found @ products @ found - 2.0 * found @ aims + square
    return found.reshape(len(steps), -1), float(np.sqrt(max(left, 0.0) / square))


def _product(
    end: float | np.ndarray,
    exponent: float | np.ndarray,
    other_end: float | np.ndarray,
    other_exponent: float | np.ndarray,
) -> np.ndarray:
    """Integral of the product of two averages' weights, (n + 1) t^n / end^(n + 1) until its end."""
    n, m, both = exponent, other_exponent, np.minimum(end, other_end)
    scale = (n + 1.0) * (m + 1.0) / (n + m + 1.0)
    return scale * (both / end) ** (n + 1.0) * (both / other_end) ** (m + 1.0) / both
