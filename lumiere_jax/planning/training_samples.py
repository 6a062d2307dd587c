"""What the samples of a training run need on the devices that are there."""

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.planning.plan import make_plan
from lumiere_jax.planning.topology import GIB, present


def describe(config: ConfigDict) -> str:
    """A line about the memory of a chip while samples are made, compiled for these devices."""
    if not config.train.sample_every:
        return "samples during training: none (train.sample_every is 0)"
    plan = make_plan(config, present(), mode="training_samples")
    needed = "?" if plan.needed is None else f"{plan.needed / GIB:.2f}"
    limit = f" of {plan.hbm / GIB:.1f}" if plan.hbm else ""
    help_text = f", it does NOT fit. What helps: {'; '.join(plan.advice)}" * (not plan.fits)
    return (
        f"samples during training: {needed}{limit} GiB per chip, the state included, for one clip "
        f"on each of {plan.batch} parts of the mesh{help_text}"
    )
