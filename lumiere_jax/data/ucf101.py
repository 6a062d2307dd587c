"""`ucf101`: the action recognition data set as a source of captioned clips.

From a plain copy of the official data, or from what TFDS made of it. TFDS keeps frames, as JPEG,
and neither timestamps nor file names. So that both ways give the same clips, the frames of every
video count as taken at 25 a second, the rate that the data set's report (1212.0402, section 2)
states, also in those files that say 29.97. Only the order of the videos is each way's own.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lumiere_jax.data.finding import stored
from lumiere_jax.data.folder import FolderReport
from lumiere_jax.data.pixels import Frames, as_size, resize_and_crop
from lumiere_jax.data.source import HoldsFrames, check_choice, check_clip, choose_start, fingerprint
from lumiere_jax.data.ucf101_classes import classes
from lumiere_jax.data.ucf101_videos import UcfVideo, find_files, find_records
from lumiere_jax.data.video_timing import frames_in
from lumiere_jax.runtime.errors import UserError

RATE = 25.0
"""Frames a second that every video counts as."""

SIZE = (240, 320)
"""Height and width of every video (1212.0402, section 2)."""


class Ucf101(HoldsFrames):
    """Clips of UCF101 with the prompt of their class as caption.

    `report` names the videos that cannot be used, as they are not there or shorter than a clip.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        num_frames: int,
        resolution: int | Sequence[int],
        fps: float,
        split: str = "train",
        fold: int = 1,
        backend: str = "auto",
        clip: str = "random",
    ):
        """Finds the videos; arguments are the fields of `DataConfig` with their names.

        `folder` holds `UCF-101` and `ucfTrainTestlist`, or is the `data_dir` of TFDS. The aspect of
        the videos is kept, and what does not fit is cropped. A `UserError` names what is missing.
        """
        check_clip("ucf101", split, clip)
        backends = ("auto", "files", "tfds")
        check_choice("ucf101", fold=(fold, (1, 2, 3)), backend=(backend, backends))
        root = stored(Path(folder).expanduser())
        if not root.is_dir():
            raise UserError(f"ucf101: there is no folder {root}; give the one that holds UCF-101")
        is_tfds = backend == "tfds" or (backend == "auto" and (root / "ucf101").is_dir())
        find = find_records if is_tfds else find_files
        found, left_out, treated = find(root, split, fold)
        self.num_frames, self.fps, self.split, self.clip = num_frames, fps, split, clip
        self._size, self._found, self._used = as_size(resolution), found, list[UcfVideo]()
        for video in found:
            if (available := self._available(video)) >= num_frames:
                self._used.append(video)
            else:
                reason = f"too short: {available} of {num_frames} frames at {fps:g} fps"
                left_out[video.name] = reason
        self.report = FolderReport(
            f"ucf101 in {root}", used=len(self._used), skipped=left_out, treated=treated,
            note=f"{len({video.label for video in self._used})} of {len(classes())} classes",
        )  # fmt: skip
        if not self._used:
            raise UserError(
                f"ucf101: none of {len(left_out)} videos in {root} can be used "
                f"({self.report.summary()}); clips have {num_frames} frames at {fps:g} fps"
            )

    def __len__(self) -> int:
        return len(self._used)

    def name(self, index: int) -> str:
        """The file of a video, or, from TFDS, which record it is."""
        return self._used[index].name

    def label(self, index: int) -> int:
        """The class of a video, 0 to 100."""
        return self._used[index].label

    def frames(self, index: int, seed: int = 0) -> tuple[Frames, str]:
        """A clip and its prompt; a pure function of (index, seed)."""
        video = self._used[index]
        spare = self._available(video) - self.num_frames
        start = choose_start(np.random.default_rng([seed, index]), spare, self.clip)
        times = (start + np.arange(self.num_frames)) / self.fps
        wanted = np.minimum(np.ceil(times * RATE - 0.5).astype(int), video.num_frames - 1)
        first = int(wanted[0])
        read = video.read(first, int(wanted[-1]) - first + 1)
        resized = {n: resize_and_crop(read[n - first], self._size) for n in set(wanted.tolist())}
        return np.stack([resized[n] for n in wanted]), classes()[video.label].prompt

    @property
    def fingerprint(self) -> str:
        """Names the clips: settings, and each video's name, class and frames."""
        videos = [(video.name, video.label, video.num_frames) for video in self._found]
        clip = [self.num_frames, self._size, float(self.fps), self.clip, self.split]
        return fingerprint("ucf101", clip=clip, videos=videos)

    def _available(self, video: UcfVideo) -> int:
        """Frames that a video has at the asked rate."""
        return frames_in(video.num_frames / RATE, self.fps)
