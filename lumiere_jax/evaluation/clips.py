"""Which frames of a video are scored, and at which rate, aspect and size."""

import dataclasses
import hashlib
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from lumiere_jax.data import damaged, same_clip
from lumiere_jax.data.file_kinds import VIDEO_SUFFIXES, usual
from lumiere_jax.data.finding import composed, find_files, not_found, stored
from lumiere_jax.data.folder import examine_all
from lumiere_jax.data.pixels import Frames, resize_and_crop
from lumiere_jax.data.text_file import NotText, read_text
from lumiere_jax.data.video_io import read_video
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

    @property
    def fingerprint(self) -> str:
        """SHA-256 of names, sizes and times of the files."""
        digest = hashlib.sha256()
        for name in self.names:
            stat = (self.folder / name).stat()
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
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
    """Finds the videos of a folder and those below it, and makes sure that each can give a clip.

    A clip in several formats counts once, see `same_clip`, which is told in one line.

    Args:
      label: see `VideoSet`.
      folder: that holds them.
      rule: that their clips follow.
      listed: a text file that names those to take, one path below `folder` a line, as the lists
        of UCF101's splits do (what follows a space is a label).
      most: takes at most this many, at random by `seed`; None takes all.
      seed: see `most`.
      skip_unusable: leaves out files that are damaged or too short, and names them; if False they
        are a `UserError`, because they change the number of videos.
      poll: called now and then; may raise.
    """
    root = stored(Path(folder).expanduser())
    if not root.is_dir():
        raise UserError(f"{label} videos: there is no folder {root}.")
    names = [path.relative_to(root).as_posix() for path in find_files(root, VIDEO_SUFFIXES)]
    if listed is not None:
        names = _listed(names, Path(listed), root)
    clips = same_clip.once(PurePosixPath(name) for name in names)
    names, left_out = list(map(str, clips)), same_clip.left_out(clips)
    if left_out:
        say(f"{label} videos: in {root} {same_clip.told(left_out)}")
    if most is not None and most < len(names):
        # The first ones of a sorted list would be the first classes.
        names = sorted(random.Random(seed).sample(names, most))
    if not names:
        raise UserError(f"{label} videos: {root} holds none ({usual(VIDEO_SUFFIXES)}).")
    probed = examine_all(lambda name: _probe(root / name, rule), names)
    rates: dict[str, float] = {}
    unusable: dict[str, str] = {}
    for count, (name, result) in enumerate(zip(names, probed, strict=True)):
        if isinstance(result, str):
            unusable[name] = result
        else:
            rates[name] = round(result, 2)
        if count % 100 == 0:
            poll()
    if unusable and not (skip_unusable and rates):
        shown = "; ".join(f"{name}: {reason}" for name, reason in list(unusable.items())[:3])
        raise UserError(
            f"{label} videos: {len(unusable)} of {len(names)} in {root} cannot be used ({shown}"
            f"{'; …' if len(unusable) > 3 else ''}). Repair or remove them, ask for fewer frames, "
            "or leave them out with --skip_unusable."
        )
    fps = min(rates.values()), max(rates.values())
    left_out |= unusable
    return VideoSet(label=label, folder=root, names=tuple(rates), left_out=left_out, fps=fps)


def _probe(path: Path, rule: ClipRule) -> float | str:
    """The file's own rate, or the reason why it cannot be used."""
    try:
        with damaged.told(path):
            return rule.probe(path).fps
    except VideoReadError as error:
        return error.reason


def _listed(names: Sequence[str], path: Path, root: Path) -> list[str]:
    try:
        text = read_text(path.expanduser(), _LONGEST_LIST)
    except NotText as error:
        raise UserError(f"list of videos {path} cannot be read: {error}.") from error
    # A list of UCF101 also means its videos in another format.
    known = {composed(Path(name).with_suffix("")): name for name in reversed(names)}
    known |= {composed(name): name for name in names}
    lines = [composed(line.strip()) for line in text.splitlines() if line.strip()]
    wanted = {line if line in known else line.split()[0] for line in lines}
    found = {name: known.get(name) or known.get(str(Path(name).with_suffix(""))) for name in wanted}
    if missing := sorted(name for name in wanted if not found[name]):
        near = not_found(root / missing[0], [root / name for name in names])
        raise UserError(
            f"list of videos {path}: {len(missing)} of {len(wanted)} are not in {root}, as "
            f"{missing[0]!r} ({near}); give the folder that the paths of the list start from."
        )
    return sorted(filter(None, found.values()))
