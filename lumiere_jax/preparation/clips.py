"""From a video to the clips that are worth keeping, and the reasons why the rest is not."""

import contextlib
import dataclasses
import math
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from etils import epath

from lumiere_jax.data.finding import stored
from lumiere_jax.data.pixels import Frames
from lumiere_jax.data.prepared_format import Settings
from lumiere_jax.data.video_io import read_frames
from lumiere_jax.data.video_timing import VideoReadError, frames_in, probe_video
from lumiere_jax.preparation.filters import find_cuts, reject
from lumiere_jax.preparation.manifest import Video

_WAITS = (1.0, 10.0)  # seconds, after the first and the second failure to fetch a video


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip to be stored, which begins `start` seconds into its video."""

    frames: Frames
    start: float
    treated: tuple[str, ...] = ()  # what was done to its video, as "HDR (HLG), tone-mapped to SDR"


@dataclasses.dataclass(frozen=True)
class Rejection:
    """Why a part of a video, or with `start` None all of it, was left out."""

    reason: str  # before a colon its kind: "too dark", "shot cut" ...
    start: float | None = None
    end: float | None = None


def find_clips(video: Video, root: str, settings: Settings) -> Iterator[Clip | Rejection]:
    """Cuts a video into clips that follow each other, without overlap.

    None holds a shot cut: after one, the next clip begins right at the cut, so that of each shot as
    many clips are kept as it has room for. Whatever a decoder says of a damaged file becomes a
    rejection of the rest of it; the function itself raises nothing. Paths start from `root`.
    """
    begun = None
    try:
        if not video.captions:
            yield Rejection("without a caption")
            return
        with _local_file(root, video.path) as path:
            if path is None:
                yield Rejection("missing: there is no such file")
                return
            for found in _clips_of_file(path, video, settings):
                begun = found.start
                yield found
    except VideoReadError as error:
        yield Rejection(f"broken: {error.reason}", begun)
    except Exception as error:  # FFmpeg and Pillow may raise anything for bytes that are damaged
        yield Rejection(f"broken: {type(error).__name__}: {error}", begun)


def _clips_of_file(path: Path, video: Video, settings: Settings) -> Iterator[Clip | Rejection]:
    """The clips of a file that is there."""
    length, fps = settings.num_frames, settings.fps
    info = probe_video(path)
    limits = settings.limits
    if reason := limits.too_small(info.size, settings.resolution) or limits.too_slow(info, fps):
        yield Rejection(reason)
        return
    first = math.ceil((video.start or 0.0) * fps - 0.1)  # a tenth of a frame is forgiven
    last = info.num_frames(fps)
    if video.end is not None:
        last = min(last, frames_in(video.end, fps))
    if last - first < length:
        available = max(last - first, 0)
        yield Rejection(f"too short: {available} of {length} frames at {fps:g} fps")
        return
    frames = read_frames(
        path,
        fps=fps,
        start=first,
        num_frames=last - first,
        size=settings.resolution,
        info=info,
        num_threads=1,  # there is a process for every core
    )
    num_clips = 0
    for found in _windows(find_cuts(frames, settings.thresholds.cut), first, settings):
        if isinstance(found, Clip):
            num_clips += 1
            found = dataclasses.replace(found, treated=info.treated)
        yield found
        if num_clips and num_clips == settings.max_clips_per_video:
            return


def _windows(
    frames: Iterator[tuple[np.ndarray, float, bool]], first: int, settings: Settings
) -> Iterator[Clip | Rejection]:
    """Windows that follow each other within a shot.

    `frames` are as `find_cuts` gives them; `first` is the number of the first in the video.
    """
    window: list[np.ndarray] = []
    changes: list[float] = []
    for number, (frame, changed, begins_shot) in enumerate(frames, start=first):
        if begins_shot and window:
            time = number / settings.fps
            cut = f"shot cut: at {time:.2f} s, after {len(window)} frames"
            yield Rejection(cut, (number - len(window)) / settings.fps, time)
            window, changes = [], []
        window.append(frame)
        changes.append(changed)
        if len(window) == settings.num_frames:
            clip = np.stack(window)
            end = (number + 1) / settings.fps
            start = (number + 1 - settings.num_frames) / settings.fps
            reason = reject(clip, changes[1:], settings.thresholds)
            reason = reason or settings.limits.repeating(changes[1:])
            yield Rejection(reason, start, end) if reason else Clip(clip, start)
            window, changes = [], []


@contextlib.contextmanager
def _local_file(root: str, path: str) -> Iterator[Path | None]:
    """The video as a file of this machine, for as long as it is used; None if there is none."""
    whole = epath.Path(path if "://" in path else os.path.join(root, path))
    if "://" not in str(whole):
        whole = epath.Path(stored(Path(whole)))
    if not whole.exists():
        yield None
    elif "://" not in str(whole):
        yield Path(whole)
    else:
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder) / whole.name
            _fetch(whole, local)
            yield local


def _fetch(remote: epath.Path, local: Path) -> None:
    """Copies a file from a bucket; a network may fail now and then."""
    for wait in (*_WAITS, None):
        try:
            remote.copy(local, overwrite=True)
            return
        except Exception:  # each kind of bucket has its own
            if wait is None:
                raise
            time.sleep(wait)
