"""Which frames of a video are scored, and at which rate, aspect and size."""

import collections
import dataclasses
import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NoReturn

import numpy as np

from lumiere_jax.data import damaged, same_clip
from lumiere_jax.data.file_kinds import VIDEO_SUFFIXES, usual
from lumiere_jax.data.finding import find_files, stored
from lumiere_jax.data.folder import examine_all, grouped
from lumiere_jax.data.pixels import Frames, resize_and_crop
from lumiere_jax.data.text_file import NotText, read_text
from lumiere_jax.data.video_io import read_video
from lumiere_jax.data.video_list import MISSING, find_listed
from lumiere_jax.data.video_timing import VideoInfo, VideoReadError, probe_video
from lumiere_jax.runtime.distributed import say
from lumiere_jax.runtime.errors import UserError

_LONGEST_LIST = 2**28  # characters
POSITIONS = ("center", "first", "random")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipRule:
    """One clip of every video."""

    num_frames: int = 16  # frames of the clip
    fps: float | None = None  # rate to which videos are resampled first; None leaves their own
    stride: int = 1  # takes every n-th frame at that rate
    position: str = "center"  # "center", "first", or "random" by `seed` and the file's name
    seed: int = 0  # see `position`
    aspect: str = ""  # "4:3" cuts the middle of that aspect ratio out; "" keeps all
    size: tuple[int, int] | None = None  # (height, width) to cover and crop to; None: as it is

    def __post_init__(self) -> None:
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
        return self.fps or info.fps

    def probe(self, path: Path) -> VideoInfo:
        """What a video is; a `VideoReadError` if it cannot be read, or is too short."""
        info = probe_video(path)
        available = info.num_frames(self.rate(info))
        if available < self.span:
            raise VideoReadError(path, f"too short: {available} of {self.span} frames")
        return info

    def start(self, name: str, available: int) -> int:
        """First frame of the clip of a video with that name and number of frames."""
        spare = available - self.span
        if self.position == "random":
            return random.Random(f"{self.seed} {name}").randint(0, spare)
        return spare // 2 if self.position == "center" else 0

    def read(self, path: Path, name: str) -> Frames:
        """The clip of a video, whose name decides where a random clip is; errors as of `probe`."""
        info = self.probe(path)
        rate = self.rate(info)
        start = self.start(name, info.num_frames(rate))
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

    def _cut(self, video: Frames) -> Frames:
        aspect = self._aspect()
        if aspect is None:
            return video
        height, width = video.shape[1:3]
        new = min(height, round(width / aspect)), min(width, round(height * aspect))
        top, left = (height - new[0]) // 2, (width - new[1]) // 2
        return video[:, top : top + new[0], left : left + new[1]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoSet:
    """Videos that are scored together."""

    label: str  # "real" or "generated", for messages
    folder: Path  # that they are in
    names: tuple[str, ...]  # their paths below the folder, sorted
    left_out: dict[str, str]  # reason by name, of those that cannot be used, or are there twice
    fps: tuple[float, float]  # lowest and highest rate of the files themselves
    treated: tuple[str, ...] = ()  # "3 × what else than decoding is done to frames of files"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of names, sizes and times of the files."""
        digest = hashlib.sha256()
        for name in self.names:
            stat = (self.folder / name).stat()
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
        return digest.hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """Which videos of a folder are to be scored, before any of them is opened."""

    label: str  # as of `VideoSet`
    folder: Path  # as of `VideoSet`
    names: tuple[str, ...]  # as of `VideoSet`
    left_out: dict[str, str]  # as of `VideoSet`

    def examined(
        self,
        rule: ClipRule,
        skip_unusable: bool = False,
        poll: Callable[[], None] = lambda: None,
    ) -> VideoSet:
        """Makes sure that each can give a clip.

        Args:
          rule: that clips follow.
          skip_unusable: leaves out files that are damaged or too short, and names them; if False
            they are a `UserError`, because they change the number of videos.
          poll: called now and then; may raise.
        """
        probed = examine_all(lambda name: _probe(self.folder / name, rule), self.names)
        infos: dict[str, VideoInfo] = {}
        unusable: dict[str, str] = {}
        for count, (name, result) in enumerate(zip(self.names, probed, strict=True)):
            if isinstance(result, str):
                unusable[name] = result
            else:
                infos[name] = result
            if count % 100 == 0:
                poll()
        if unusable and not (skip_unusable and infos):
            _refuse(self.label, self.folder, unusable, len(self.names))
        rates = [round(info.fps, 2) for info in infos.values()]
        treated = collections.Counter(what for info in infos.values() for what in info.treated)
        return VideoSet(
            label=self.label,
            folder=self.folder,
            names=tuple(infos),
            left_out=grouped(self.left_out | unusable),
            fps=(min(rates), max(rates)),
            treated=tuple(f"{count} × {what}" for what, count in sorted(treated.items())),
        )


def choose(
    label: str,
    folder: str | os.PathLike,
    *,
    listed: str | os.PathLike | None = None,
    most: int | None = None,
    seed: int = 0,
    skip_unusable: bool = False,
) -> Choice:
    """Chooses videos of a folder and those below it; a `UserError` if there are none.

    A clip in several formats counts once, see `same_clip`, which is told in one line.

    Args:
      label: see `VideoSet`.
      folder: that holds them.
      listed: a text file that names those to take, see `find_listed`.
      most: takes at most this many, at random by `seed`; None takes all.
      seed: see `most`.
      skip_unusable: leaves out what is listed and not there; if False that is a `UserError`.
    """
    root = stored(Path(folder).expanduser())
    if not root.is_dir():
        raise UserError(f"{label} videos: there is no folder {root}.")
    paths, missing = find_files(root, VIDEO_SUFFIXES), dict[str, str]()
    if not paths:
        raise UserError(f"{label} videos: {root} holds none ({usual(VIDEO_SUFFIXES)}).")
    if listed is not None:
        found = _listed(Path(listed), root, paths)
        missing = {name: MISSING for name, path in found.items() if path is None}
        if missing and not skip_unusable:
            _refuse(label, root, missing, len(found))
        paths = [path for path in found.values() if path is not None]
    clips = same_clip.once(PurePosixPath(path.relative_to(root).as_posix()) for path in paths)
    names, copies = list(map(str, clips)), same_clip.left_out(clips)
    if copies:
        say(f"{label} videos: in {root} {same_clip.told(copies)}")
    if most is not None and most < len(names):
        # The first ones of a sorted list would be the first classes.
        names = sorted(random.Random(seed).sample(names, most))
    return Choice(label=label, folder=root, names=tuple(names), left_out=copies | missing)


def _refuse(label: str, root: Path, unusable: dict[str, str], count: int) -> NoReturn:
    shown = "; ".join(f"{name}: {reason}" for name, reason in list(unusable.items())[:3])
    raise UserError(
        f"{label} videos: {len(unusable)} of {count} in {root} cannot be used ({shown}"
        f"{'; …' if len(unusable) > 3 else ''}). Repair or remove them, ask for fewer frames, "
        "or leave them out with --skip_unusable."
    )


def _probe(path: Path, rule: ClipRule) -> VideoInfo | str:
    """What a file is, or the reason why it cannot be used."""
    try:
        with damaged.told(path):
            return rule.probe(path)
    except VideoReadError as error:
        return error.reason


def _listed(path: Path, root: Path, paths: list[Path]) -> dict[str, Path | None]:
    try:
        return find_listed(read_text(path.expanduser(), _LONGEST_LIST), root, paths)
    except NotText as error:
        raise UserError(f"list of videos {path} cannot be read: {error}.") from error
    except UserError as error:
        raise UserError(f"list of videos {path}: {error}.") from error
