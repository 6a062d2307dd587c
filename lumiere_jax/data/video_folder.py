"""`video_folder`: any folder of captioned videos as a source of training clips."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lumiere_jax.data.folder import CaptionedFile, CaptionedFolder
from lumiere_jax.data.limits import Limits, changes
from lumiere_jax.data.pixels import Frames, as_size
from lumiere_jax.data.source import (
    HoldsFrames,
    check_clip,
    choose_caption,
    choose_start,
    fingerprint,
)
from lumiere_jax.data.video_io import read_video
from lumiere_jax.data.video_timing import VideoInfo, VideoReadError, probe_video
from lumiere_jax.runtime.errors import UserError


class VideoFolder(HoldsFrames):
    """Clips of the videos under a folder, resampled, resized and centrally cropped.

    Every video is probed once, at construction. Those that are broken, too short or have no caption
    are left out; `report` names each with its reason. A file listed more than once among the
    captions gets one of its captions at random, by the seed of the example.

    When all videos at the asked size and rate fit into `cache_bytes`, each is decoded only once
    and kept; otherwise every clip is decoded from its file.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        num_frames: int,
        resolution: int | Sequence[int],
        fps: float,
        split: str = "train",
        captions: str | os.PathLike | None = None,
        clip: str = "random",
        cache_bytes: int = 2**29,
        min_size: int = 0,
        min_rate: float = 0.9,
        max_repeats: float = 0.25,
    ):
        """Finds, probes and filters the videos; arguments are the fields of `DataConfig`.

        For splits and captions see `CaptionedFolder`. A `UserError` if no video can be used.
        """
        check_clip("video_folder", split, clip)
        self.num_frames, self.fps, self.clip = num_frames, fps, clip
        self._size = as_size(resolution)
        self._limits = Limits(min_size=min_size, min_rate=min_rate, max_repeats=max_repeats)
        self._folder = CaptionedFolder(folder, split, captions, "video", self._examine)
        self._folder.check_not_empty(f"{num_frames} frames at {fps:g} fps")
        self._videos, self.report = self._folder.files, self._folder.report
        self.report.note = self._limits.describe(self._size, fps)
        total = sum(video.facts.num_frames(fps) for video in self._videos)
        fits = 3 * self._size[0] * self._size[1] * total <= cache_bytes
        self._cache: dict[int, Frames] | None = {} if fits else None

    def __len__(self) -> int:
        return len(self._videos)

    def frames(self, index: int, seed: int = 0) -> tuple[Frames, str]:
        """A clip and its caption, by (index, seed); a `UserError` if the file is damaged now."""
        video = self._videos[index]
        generator = np.random.default_rng([seed, index])
        spare = video.facts.num_frames(self.fps) - self.num_frames
        start = choose_start(generator, spare, self.clip)
        caption = choose_caption(generator, video.captions)
        try:
            return self._read(index, start), caption
        except VideoReadError as error:
            raise UserError(
                f"{error}; it was fine when the folder was read: restore or remove it, and start "
                "again"
            ) from error

    @property
    def is_held_out(self) -> bool:
        """Whether the split "test" keeps its files from training."""
        return self._folder.is_held_out

    @property
    def fingerprint(self) -> str:
        """Names the clips: settings, and each file's name, size and captions."""
        clip = [self.num_frames, self._size, float(self.fps), self.clip]
        return fingerprint("video_folder", clip=clip, videos=self._folder.names())

    def file(self, index: int) -> CaptionedFile[VideoInfo]:
        """What is known of video `index`."""
        return self._videos[index]

    def path(self, index: int) -> Path:
        """The file of video `index`."""
        return self._videos[index].path

    def _read(self, index: int, start: int) -> Frames:
        """A clip, from the cache if there is one."""
        info, count = self._videos[index].facts, self.num_frames
        read = functools.partial(
            read_video, self.path(index), fps=self.fps, size=self._size,
            num_threads=1,  # clips are read side by side
        )  # fmt: skip
        if self._cache is None:
            return read(start=start, num_frames=count, info=info)
        if index not in self._cache:
            self._cache[index] = read(info=info)
        return self._cache[index][start : start + count]

    def _examine(self, path: Path) -> VideoInfo | str:
        """What a file is, or the reason why it cannot be used."""
        try:
            info = probe_video(path)
            available = info.num_frames(self.fps)
            if available < self.num_frames:
                return f"too short: {available} of {self.num_frames} frames at {self.fps:g} fps"
            small = self._limits.too_small(info.size, self._size)
            return small or self._limits.too_slow(info, self.fps) or self._look(path, info)
        except VideoReadError as error:
            return f"broken: {error.reason}"

    def _look(self, path: Path, info: VideoInfo) -> VideoInfo | str:
        """What a file is, unless the clip in its middle repeats its frames."""
        if self._limits.max_repeats == 1:
            return info
        start = (info.num_frames(self.fps) - self.num_frames) // 2
        frames = read_video(
            path, fps=self.fps, start=start, num_frames=self.num_frames, size=self._size, info=info
        )
        return self._limits.repeating(changes(frames)) or info
