"""Videos as raters see them: in a format that browsers play, under names that tell no method."""

import functools
import hashlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lumiere_jax.data import damaged, same_clip
from lumiere_jax.data.file_kinds import VIDEO_SUFFIXES, usual
from lumiere_jax.data.finding import composed, find_files
from lumiere_jax.data.pixels import to_float
from lumiere_jax.data.video_io import coding, read_video, write_mp4
from lumiere_jax.data.video_timing import probe_video
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import written

# What Chromium, Firefox and Safari all play.
_PLAYED = {".mp4": ("h264",), ".m4v": ("h264",), ".webm": ("vp8", "vp9")}

Writer = Callable[[Path], None]


def find_videos(folder: Path) -> dict[str, Path]:
    """The videos of a folder and those below it, by relative path without the ending.

    Where one name has several endings, `same_clip` says which is taken. A `UserError` if there is
    no video.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; give one that holds videos")
    files = [path for path in find_files(folder, VIDEO_SUFFIXES) if path.is_file()]
    if not files:
        raise UserError(f"{folder} has no video ({usual(VIDEO_SUFFIXES)})")
    clips = same_clip.once(path.relative_to(folder) for path in files)
    if left_out := same_clip.left_out(clips):
        print(f"in {folder} {same_clip.told(left_out)}", file=sys.stderr)
    return {composed(path.with_suffix("").as_posix()): folder / path for path in clips}


def shown_as(path: Path, seed: int, method: str) -> tuple[str, Writer]:
    """The file name of a video in the study, and what writes it there.

    The name is a digest of the content, so that another video is another study. A `UserError` if
    the file cannot be read as a video.
    """
    with damaged.told(path):
        info, (codec, pixel_format) = probe_video(path), coding(path)
    with path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    name = _digest(seed, method, content)
    is_played = codec in _PLAYED.get(path.suffix.lower(), ())
    if is_played and pixel_format in ("yuv420p", "yuvj420p"):
        ending = ".webm" if path.suffix.lower() == ".webm" else ".mp4"
        return name + ending, functools.partial(_copy, path)
    return name + ".mp4", functools.partial(_convert, path, info.fps)


def noise_like(intact: str, seed: int) -> tuple[str, Writer]:
    """A still picture of noise as long and as large as a video that is already written.

    Beside it the intact video wins by quality, by motion and by text.
    """
    return _digest(seed, "noise", intact) + ".mp4", functools.partial(_write_noise, intact)


def _digest(*parts: object) -> str:
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:16]


def _copy(source: Path, target: Path) -> None:
    with written(target) as temporary:
        shutil.copyfile(source, temporary)


def _convert(source: Path, fps: float, target: Path) -> None:
    with damaged.told(source):
        video = read_video(source, fps=fps)
    write_mp4(target, to_float(video), fps)


def _write_noise(intact: str, target: Path) -> None:
    source = target.with_name(intact)
    with damaged.told(source):
        info = probe_video(source)
        frame = read_video(source, fps=info.fps, num_frames=1)[0]
    noise = np.random.default_rng(0).uniform(-1, 1, frame.shape).astype(np.float32)
    num_frames = info.num_frames(info.fps)
    write_mp4(target, np.broadcast_to(noise, (num_frames, *noise.shape)), info.fps)
