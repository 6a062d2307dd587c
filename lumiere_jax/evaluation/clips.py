"""Which frames of a video are scored, and at which rate, aspect and size."""

import dataclasses
import hashlib
import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from lumiere_jax.data.video_folder import find_videos
from lumiere_jax.data.video_io import (
    VideoInfo,
    VideoReadError,
    probe_video,
    read_video,
    resize_and_crop,
)
from lumiere_jax.runtime.errors import UserError

POSITIONS = ("center", "first", "random")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipRule:
    """One clip of every video.

    Attributes:
      num_frames: frames of the clip.
      fps: rate to which videos are resampled first; None leaves their own.
      stride: takes every so manieth frame of that rate.
      position: where the clip is: "center", "first", or "random" by `seed` and the file's name.
      seed: see `position`.
      aspect: "4:3" cuts the middle of that aspect ratio out; "" keeps all.
      size: (height, width) to scale to cover, and crop centrally; None keeps the pixels.
    """

    num_frames: int = 16
    fps: float | None = None
    stride: int = 1
    position: str = "center"
    seed: int = 0
    aspect: str = ""
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        """Checks the fields.

        Raises:
          UserError: naming the one that cannot be used.
        """
        if self.num_frames < 1 or self.stride < 1:
            raise UserError(
                f"--num_frames={self.num_frames} --stride={self.stride}: both must be 1 or more."
            )
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise UserError(f"--fps={self.fps} must be above 0, or 'native'.")
        if self.position not in POSITIONS:
            raise UserError(f"--clip={self.position} is unknown; use one of {POSITIONS}.")
        if self.size is not None and min(self.size) < 1:
            raise UserError(f"--size={self.size} must be HEIGHTxWIDTH, as 240x320.")
        self._aspect()

    @property
    def span(self) -> int:
        """Frames from the clip's first to its last one, at the rate before the stride."""
        return (self.num_frames - 1) * self.stride + 1

    def rate(self, info: VideoInfo) -> float:
        """Frames per second at which a video is read."""
        return self.fps or 1 / info.frame_period

    def available(self, info: VideoInfo) -> int:
        """Frames that a video has at that rate."""
        return info.num_frames(self.rate(info))

    def start(self, name: str, available: int) -> int:
        """First frame of the clip of a video with that name and so many frames."""
        spare = available - self.span
        if self.position == "random":
            return random.Random(f"{self.seed} {name}").randint(0, spare)
        return spare // 2 if self.position == "center" else 0

    def read(self, path: Path, name: str) -> np.ndarray:
        """The clip of a video.

        Args:
          path: of the file.
          name: of the video, which decides where a random clip is.

        Returns:
          uint8 `[num_frames, height, width, 3]`.

        Raises:
          VideoReadError: if it cannot be read, or is too short.
        """
        info = probe_video(path)
        available = self.available(info)
        if available < self.span:
            raise VideoReadError(path, f"too short: {available} of {self.span} frames")
        start = self.start(name, available)
        rate = self.rate(info)
        video = read_video(path, fps=rate, start=start, num_frames=self.span, info=info)
        video = self._cut(video[:: self.stride])
        if self.size is not None:
            video = np.stack([resize_and_crop(frame, self.size) for frame in video])
        return video

    def _aspect(self) -> float | None:
        if not self.aspect:
            return None
        try:
            width, height = (float(part) for part in self.aspect.split(":"))
            if min(width, height) > 0:
                return width / height
        except ValueError:
            pass
        raise UserError(f"--aspect={self.aspect} must be WIDTH:HEIGHT, as 4:3.")

    def _cut(self, video: np.ndarray) -> np.ndarray:
        aspect = self._aspect()
        if aspect is None:
            return video
        height, width = video.shape[1:3]
        new = min(height, round(width / aspect)), min(width, round(height * aspect))
        top, left = (height - new[0]) // 2, (width - new[1]) // 2
        return video[:, top : top + new[0], left : left + new[1]]


@dataclasses.dataclass(frozen=True)
class Video:
    """A video of a set: its name within it, and its file."""

    name: str
    path: Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoSet:
    """Videos that are scored together.

    Attributes:
      label: "real" or "generated", for messages.
      folder: that they are in.
      videos: sorted by name.
      left_out: reason by name, of those that cannot be used.
      fps: lowest and highest rate of the files themselves.
    """

    label: str
    folder: Path
    videos: tuple[Video, ...]
    left_out: dict[str, str]
    fps: tuple[float, float]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of names, sizes and times of the files."""
        digest = hashlib.sha256()
        for video in self.videos:
            stat = video.path.stat()
            digest.update(f"{video.name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
        return digest.hexdigest()


def find(
    label: str,
    folder: str | os.PathLike,
    rule: ClipRule,
    *,
    listed: str | os.PathLike | None = None,
    most: int | None = None,
    seed: int = 0,
    skip_unusable: bool = False,
    poll: Callable[[], None] = lambda: None,
) -> VideoSet:
    """Finds the videos of a folder, and makes sure that each can give a clip.

    Args:
      label: see `VideoSet`.
      folder: that holds them, or holds folders of them.
      rule: that their clips follow.
      listed: a text file that names those to take, one path below `folder` a line, as the lists
        of UCF101's splits do (what follows a space is a label).
      most: takes so many at random; None takes all.
      seed: of that choice.
      skip_unusable: leaves out files that are damaged or too short, and names them; if False they
        are an error, because they change the number of videos.
      poll: called now and then; may raise.

    Raises:
      UserError: if there are none, or some cannot be used.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise UserError(f"{label} videos: there is no folder {root}.")
    names = [path.relative_to(root).as_posix() for path in find_videos(root)]
    if listed is not None:
        names = _listed(names, Path(listed), root)
    if most is not None and most < len(names):
        # The first ones of a sorted list would be the first classes.
        names = sorted(random.Random(seed).sample(names, most))
    if not names:
        raise UserError(f"{label} videos: {root} holds none (MP4, WebM, MOV, AVI, GIF, MKV).")
    left_out, usable, rates = {}, [], []
    with ThreadPoolExecutor(max_workers=4) as pool:
        probed = pool.map(lambda name: _probe(root / name, rule), names)
        for count, (name, result) in enumerate(zip(names, probed, strict=True)):
            if isinstance(result, str):
                left_out[name] = result
            else:
                usable.append(Video(name, root / name))
                rates.append(round(result, 2))
            if count % 100 == 0:
                poll()
    if left_out and not (skip_unusable and usable):
        shown = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:3])
        raise UserError(
            f"{label} videos: {len(left_out)} of {len(names)} in {root} cannot be used ({shown}"
            f"{'; …' if len(left_out) > 3 else ''}). Mend or remove them, ask for fewer frames, or "
            "leave them out with --skip_unusable."
        )
    return VideoSet(
        label=label,
        folder=root,
        videos=tuple(usable),
        left_out=left_out,
        fps=(min(rates), max(rates)),
    )


def _probe(path: Path, rule: ClipRule) -> float | str:
    """The file's own rate, or the reason why it cannot be used."""
    try:
        info = probe_video(path)
    except VideoReadError as error:
        return error.reason
    available = rule.available(info)
    if available < rule.span:
        return f"too short: {available} of {rule.span} frames"
    return 1 / info.frame_period


def _listed(names: Sequence[str], path: Path, root: Path) -> list[str]:
    try:
        lines = path.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"list of videos {path} cannot be read: {error}.") from error
    known = set(names)
    wanted = {_name(line, known) for line in lines if line.strip()}
    missing = sorted(wanted - known)
    if missing:
        raise UserError(
            f"list of videos {path}: {len(missing)} of {len(wanted)} are not in {root}, as "
            f"{missing[0]!r}; give the folder that the paths of the list start from."
        )
    return sorted(wanted)


def _name(line: str, known: set[str]) -> str:
    line = line.strip()
    return line if line in known else line.split()[0]
