"""Videos that a protocol asks for, generated once each, by one job or by several after another."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lumiere_jax.data.video_io import write_lossless, write_mp4
from lumiere_jax.inference.pipeline import LumierePipeline
from lumiere_jax.runtime.distributed import is_primary, wait_for_all
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import write_text
from lumiere_jax.runtime.progress import Progress

FORMATS = {"mkv": write_lossless, "mp4": write_mp4}
"""Suffixes of files: FFV1, which loses nothing, and H.264, which browsers play."""

_SETTINGS = "generation.json"


@dataclasses.dataclass(frozen=True)
class Request:
    """One video to generate.

    Attributes:
      name: of its file below the folder, without a suffix; a function of class, index and seed.
      prompt: what it shows.
      seed: of its noise.
    """

    name: str
    prompt: str
    seed: int


def generate(
    pipeline: LumierePipeline,
    requests: Sequence[Request],
    folder: Path,
    settings: dict[str, Any],
    *,
    batch_size: int,
    suffix: str = "mkv",
    options: dict[str, Any],
    poll: Callable[[], None] = lambda: None,
) -> None:
    """Generates what is not in the folder yet.

    Batches are always the same ones: a video does not depend on which others are there already.
    With several processes all compute every batch, and each writes some of its videos.

    Args:
      pipeline: makes the videos.
      requests: which.
      folder: for the videos; files that are complete stay.
      settings: what the videos depend on; kept in the folder, and must be the same again.
      batch_size: videos at once.
      suffix: a name of `FORMATS`.
      options: what `pipeline` is called with.
      poll: called after every batch, equally often on every process; may raise.

    Raises:
      UserError: if the folder holds videos of other settings, or cannot be written.
    """
    _agree_on_settings(folder, settings)
    batches = [requests[i : i + batch_size] for i in range(0, len(requests), batch_size)]
    missing = [any(not _path(folder, r, suffix).is_file() for r in batch) for batch in batches]
    if jax.process_count() > 1:  # all must work on the same batches
        missing = multihost_utils.broadcast_one_to_all(np.array(missing)).tolist()
    done = sum(len(b) for b, is_missing in zip(batches, missing, strict=True) if not is_missing)
    progress = Progress("generated", len(requests), "videos", start=done, quiet=not is_primary())
    if done:
        progress.update(done, force=True)
    for batch, is_missing in zip(batches, missing, strict=True):
        if not is_missing:
            continue
        filled = list(batch) + [batch[-1]] * (min(batch_size, len(requests)) - len(batch))
        videos = pipeline(
            [request.prompt for request in filled],
            seeds=[request.seed for request in filled],
            batch_size=batch_size,
            **options,
        )
        for index, (request, video) in enumerate(zip(batch, videos, strict=False)):
            path = _path(folder, request, suffix)
            if index % jax.process_count() == jax.process_index() and not path.is_file():
                path.parent.mkdir(parents=True, exist_ok=True)
                FORMATS[suffix](path, video, pipeline.fps)
        done += len(batch)
        progress.update(done, force=True)
        poll()
    wait_for_all(f"videos {folder.name}")


def _path(folder: Path, request: Request, suffix: str) -> Path:
    return folder / f"{request.name}.{suffix}"


def _agree_on_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Writes the settings beside the videos, or compares them with those that are there."""
    path = folder / _SETTINGS
    text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    wait_for_all(f"settings {folder.name}")
    try:
        if path.is_file():
            before = json.loads(path.read_text(encoding="utf-8"))
            changed = sorted(k for k in before | settings if before.get(k) != settings.get(k))
            if changed:
                shown = "; ".join(f"{k}: {before.get(k)}, now {settings.get(k)}" for k in changed)
                raise UserError(
                    f"{folder} holds videos that were made otherwise ({shown}); give another "
                    "--output, or remove the folder."
                )
        elif is_primary():
            folder.mkdir(parents=True, exist_ok=True)
            write_text(path, text)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} cannot be used for videos ({error}).") from error
    wait_for_all(f"settings of {folder.name} are known")
