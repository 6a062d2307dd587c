"""Which numbers of frames a base stage makes."""

from lumiere_jax.cascade.config import IMAGE_STAGES, StageConfig
from lumiere_jax.runtime.errors import UserError


def frame_multiple(config: StageConfig) -> int:
    """A clip with fewer frames than those of training has a multiple of this number."""
    if config.stage in IMAGE_STAGES or not config.model.get("temporal_resampling", True):
        return 1
    return 2 ** (len(config.model.widths) - 1)


def check_frames(config: StageConfig, num_frames: int) -> None:
    """Raises a `UserError` if a stage makes no videos of this length."""
    trained, multiple = config.data.num_frames, frame_multiple(config)
    if num_frames < 1:
        raise UserError(f"num_frames={num_frames} must be at least 1.")
    if config.stage in IMAGE_STAGES and num_frames != 1:
        raise UserError(
            f"stage {config.stage!r} makes single images; num_frames={num_frames} must be 1."
        )
    if num_frames < trained and num_frames % multiple:
        raise UserError(
            f"num_frames={num_frames} must be a multiple of {multiple}, since it is below the "
            f"{trained} frames of a clip in training."
        )
