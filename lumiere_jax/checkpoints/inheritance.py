"""What an inflated stage takes over from the checkpoint of the stage that it is inflated from."""

import dataclasses

from lumiere_jax.cascade.config import STAGES, ConfigDict, StageConfig
from lumiere_jax.cascade.stage import create_network
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.runtime.distributed import say
from lumiere_jax.runtime.errors import UserError

PREFIX = "from="
# How to compute, or what inflation itself decides.
_OWN_FIELDS = ("parent", "name", "dtype", "remat", "inflated", "in_channels", "out_channels")


def source_of(variant: str | None) -> str:
    """The workdir that the variant "from=WORKDIR" of a config names, "" for other variants.

    A variant that names none is a `UserError`.
    """
    if variant is None or not variant.startswith(PREFIX):
        return ""
    if variant == PREFIX:
        raise UserError("give the workdir of a checkpoint: --config=FILE:from=WORKDIR.")
    return variant.removeprefix(PREFIX)


def inherit(config: ConfigDict, workdir: str) -> None:
    """Sets the fields of an inflated stage to those of the stage before: sizes, schedule and text.

    `workdir` has a checkpoint of that, trained here or imported; a `UserError` if not. Where it was
    trained here, clips and optimizer are its own, too, and the number of frames if it had several.
    """
    saved, expected = checkpoint.load_config(workdir), STAGES[config.stage]
    if saved.stage != expected:
        raise UserError(
            f"{workdir} is a checkpoint of stage {saved.stage!r}; stage {config.stage!r} is "
            f"inflated from stage {expected!r}."
        )
    kept = ("in_channels",) if config.stage == "ssr" else ("in_channels", "name")
    own = {name: value for name, value in config.model.items() if name in kept}
    config.model.update(saved.model)
    config.model.update(own)
    config.text = saved.text
    config.diffusion.update(saved.diffusion)
    config.sampling.update(saved.sampling)
    config.data.resolution = saved.data.resolution
    if not saved.imported_from and config.stage != "style":  # whose data are pictures
        num_frames = config.data.num_frames
        config.data.update(saved.data)
        config.data.fingerprint = ""
        _leave_out_pictures(config)
        if saved.data.num_frames == 1:
            config.data.num_frames = num_frames
        config.optimizer.update(saved.optimizer)
    config.train.frozen_dtype = saved.model.dtype
    if config.stage == "ssr":
        config.ssr.update(saved.ssr)
        config.model.inflated = True
    config.init_from = workdir


def _leave_out_pictures(config: ConfigDict) -> None:
    """Of a mixture that an image network learnt from, the parts that hold single images."""
    if config.data.name != "mixture":
        return
    parts = tuple(part for part in config.data.mixture if part.get("name") != "image_folder")
    left = len(config.data.mixture) - len(parts)
    config.data.mixture = parts
    if not parts:  # whose error says what to give
        config.data.update(name="video_folder", folder="")
    if left:
        say(f"of the image network's mixture, {left} image_folder are left out: clips are wanted")


def check_same_network(saved: ConfigDict, config: StageConfig, place: str) -> None:
    """Makes sure that the image network of two stages computes the same with the same parameters.

    `saved` is the config of the stage before, whose checkpoint is in `place`; a `UserError` names
    the first field that differs.
    """
    before, after = create_network(saved.model), create_network(config.model)
    for field in dataclasses.fields(before):
        if field.name in _OWN_FIELDS or not hasattr(after, field.name):
            continue
        was, is_now = getattr(before, field.name), getattr(after, field.name)
        if was != is_now:
            raise UserError(
                f"{place} has model.{field.name}={was!r}, but this run asks for {is_now!r}; give "
                "both stages the same model fields."
            )
