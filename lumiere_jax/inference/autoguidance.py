"""Autoguidance: a weaker network of the same kind guides, in place of the one without the prompt.

Where both err in the same way, the weaker one errs more, so the difference of the two leads away
from errors, and not from the variety of what a prompt allows (Karras et al., arXiv 2406.02507).
"""

from pathlib import Path

from jax.sharding import Mesh

from lumiere_jax.cascade.config import ConfigDict, StageConfig
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.models.parameters import Params


def load(
    workdir: str | Path, config: ConfigDict | StageConfig, mesh: Mesh | None = None
) -> tuple[Params, int | None]:
    """Parameters that guide the base stage of a config, and their step of training, if known.

    Args:
      workdir: of a shorter run, or a stage of a bundle, such as one of another average of weights
        (`export --ema_width`).
      config: of the base.
      mesh: see `checkpoint.load`.

    Raises:
      UserError: if there is no checkpoint, or one of another stage or network.
    """
    saved, params, step = checkpoint.load(workdir, mesh)
    fields = ("stage", "model.", *checkpoint.INHERITED_FIELDS)
    checkpoint.check_same_fields(
        saved.to_dict(), config, fields, workdir, "a guide that was trained like the base stage"
    )
    return params, step
