"""`ucf101`: the action recognition data set as a source of captioned clips.

From a plain copy of the official data, or from what TFDS made of it. TFDS keeps frames, as JPEG,
and neither timestamps nor file names. So that both ways give the same clips, the frames of every
video count as taken at 25 a second, the rate that the data set's report (1212.0402, section 2)
states, also in those files that say 29.97. Only the order of the videos is each way's own.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from lumiere_jax.data.fingerprint import fingerprint
from lumiere_jax.data.ucf101_classes import classes
from lumiere_jax.data.ucf101_files import find_folder
from lumiere_jax.data.ucf101_tfds import find_records
from lumiere_jax.data.video_folder import SPLITS
from lumiere_jax.data.video_io import resize_and_crop, to_float
from lumiere_jax.runtime.errors import UserError

RATE = 25.0
"""Frames a second that every video counts as."""

BACKENDS = ("auto", "files", "tfds")


class Videos(Protocol):
    """The videos of one split, wherever they are.

    Attributes:
      names: of each, unique and stable.
      labels: class of each, 0 to 100, as TFDS counts.
      counts: frames of each.
      left_out: reason by name, of those that cannot be used.
    """

    names: Sequence[str]
    labels: Sequence[int]
    counts: Sequence[int]
    left_out: dict[str, str]

    def read(self, index: int, first: int, count: int) -> np.ndarray:
        """Frames `first` to `first + count - 1` of a video, uint8 [count, height, width, 3]."""


class Ucf101:
    """Clips of UCF101 with the prompt of their class as caption.

    Videos that are shorter than a clip are left out.

    Attributes:
      left_out: reason by name, of videos that cannot be used.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        num_frames: int,
        resolution: int | tuple[int, int],
        fps: float,
        split: str = "train",
        fold: int = 1,
        backend: str = "auto",
        clip: str = "random",
    ):
        """Finds the videos.

        Args:
          folder: that holds `UCF-101` and `ucfTrainTestlist`, or the `data_dir` of TFDS.
          num_frames: frames of a clip.
          resolution: side of the square clip in pixels, or (height, width); the aspect of the
            videos is kept, and what is over is cropped.
          fps: frames per second of a clip.
          split: "train" or "test".
          fold: which of the three official divisions into train and test.
          backend: "files", "tfds", or "auto": whichever the folder holds.
          clip: "random" (by the seed of the example) or "center", where in the video.

        Raises:
          UserError: naming a setting that is out of range, or what the folder lacks.
        """
        _check(split, fold, backend, clip)
        root = Path(folder).expanduser()
        if not root.is_dir():
            raise UserError(f"ucf101: there is no folder {root}; give the one that holds UCF-101")
        is_tfds = backend == "tfds" or (backend == "auto" and (root / "ucf101").is_dir())
        videos: Videos = (find_records if is_tfds else find_folder)(root, split, fold)
        self.num_frames, self.fps, self.split, self.clip = num_frames, fps, split, clip
        self._size = (resolution, resolution) if isinstance(resolution, int) else tuple(resolution)
        self._videos, self.left_out, self._used = videos, dict(videos.left_out), []
        for index, count in enumerate(videos.counts):
            if (available := self._available(count)) >= num_frames:
                self._used.append(index)
            else:
                reason = f"too short: {available} of {num_frames} frames at {fps:g} fps"
                self.left_out[videos.names[index]] = reason
        if not self._used:
            raise UserError(
                f"ucf101: none of {len(self.left_out)} videos in {root} can be used (as "
                f"{next(iter(self.left_out.items()), 'none found')}); clips have {num_frames} "
                f"frames at {fps:g} fps"
            )

    def __len__(self) -> int:
        return len(self._used)

    def name(self, index: int) -> str:
        """The file of a video, or, from TFDS, which record it is."""
        return self._videos.names[self._used[index]]

    def label(self, index: int) -> int:
        """The class of a video, 0 to 100."""
        return self._videos.labels[self._used[index]]

    def example(self, index: int, seed: int = 0) -> tuple[np.ndarray, str]:
        """A clip, float32 [time, height, width, 3] in [-1, 1], and its prompt; see `Source`."""
        frames, caption = self.frames(index, seed)
        return to_float(frames), caption

    def frames(self, index: int, seed: int = 0) -> tuple[np.ndarray, str]:
        """What `example` gives, as bytes."""
        count = self._videos.counts[self._used[index]]
        spare = self._available(count) - self.num_frames
        generator = np.random.default_rng([seed, index])
        start = int(generator.integers(spare + 1)) if self.clip == "random" else spare // 2
        times = (start + np.arange(self.num_frames)) / self.fps
        wanted = np.minimum(np.ceil(times * RATE - 0.5).astype(int), count - 1)
        first = int(wanted[0])
        video = self._videos.read(self._used[index], first, int(wanted[-1]) - first + 1)
        resized = {n: resize_and_crop(video[n - first], self._size) for n in set(wanted.tolist())}
        return np.stack([resized[n] for n in wanted]), classes()[self.label(index)].prompt

    @property
    def fingerprint(self) -> str:
        """Names the clips: settings, and each video's name, class and frames."""
        videos = zip(self._videos.names, self._videos.labels, self._videos.counts, strict=True)
        clip = [self.num_frames, self._size, float(self.fps), self.clip, self.split]
        return fingerprint("ucf101", clip=clip, videos=list(videos))

    def _available(self, count: int) -> int:
        """Frames that a video of so many has at the asked rate."""
        return int(count / RATE * self.fps + 0.1)


def _check(split: str, fold: int, backend: str, clip: str) -> None:
    for name, value, known in [
        ("split", split, SPLITS),
        ("fold", fold, (1, 2, 3)),
        ("backend", backend, BACKENDS),
        ("clip", clip, ("random", "center")),
    ]:
        if value not in known:
            raise UserError(f"ucf101: {name} is {value!r}; use one of {known}")
