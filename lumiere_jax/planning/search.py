"""Looks for the fastest way to train that fits: remat policies and batch sizes."""

import math
from collections.abc import Callable, Sequence

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.models.layers import REMAT_POLICIES
from lumiere_jax.planning.plan import Plan
from lumiere_jax.planning.topology import Target
from lumiere_jax.runtime.sharding import batch_parts, create_mesh


def search(
    config: ConfigDict,
    target: Target,
    plan: Callable[[ConfigDict], Plan],
    batches: Sequence[int] = (1, 2, 4, 8),
) -> list[Plan]:
    """Plans for every remat policy and batch size, the fastest first, then those that do not fit.

    Args:
      config: what all of them share.
      target: the devices.
      plan: makes a plan from a config.
      batches: clips a device, rising; once one does not fit, larger ones are not tried.
    """
    mesh = create_mesh(config.mesh, target.devices)
    parts = batch_parts(mesh)
    plans = []
    for remat in REMAT_POLICIES:
        for batch in sorted(batches):
            tried = config.copy_and_resolve_references()
            with tried.unlocked():
                tried.model.remat = remat
                tried.train.batch_size = batch * parts
            plans.append(plan(tried))
            if not plans[-1].fits:
                break
    return sorted(plans, key=rank)


def rank(plan: Plan) -> tuple[bool, float, float]:
    """What plans are sorted by: whether they fit, speed, and memory where no speed is known."""
    return not plan.fits, -(plan.clips_a_second or 0.0), plan.needed or math.inf
