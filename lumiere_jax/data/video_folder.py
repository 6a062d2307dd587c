"""`video_folder`: any folder of captioned videos as a source of training clips."""

import collections
import dataclasses
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from lumiere_jax.data.captions import (
    FILE_NAMES,
    find_captions_file,
    read_caption_beside,
    read_captions_file,
    real_path,
)
from lumiere_jax.data.fingerprint import fingerprint
from lumiere_jax.data.video_io import VideoInfo, VideoReadError, probe_video, read_video, to_float
from lumiere_jax.runtime.errors import UserError

SUFFIXES = (".mp4", ".webm", ".mov", ".avi", ".gif", ".mkv", ".m4v")
SPLITS = ("train", "test")
_PROGRESS_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class _Video:
    """A video that can be used: where, what was probed, and its captions (one or more)."""

    path: Path
    info: VideoInfo
    num_frames: int  # at the asked rate
    captions: tuple[str, ...]
    num_bytes: int


class FolderReport(dict[str, Any]):
    """What a folder held: a dict, and printed in words.

    Keys: `folder` (str), `used` (int), `skipped` (dict: file -> reason it was left out).
    """

    def __str__(self) -> str:
        skipped = self["skipped"]
        lines = [f"{self['folder']}: {self['used']} videos used, {len(skipped)} skipped"]
        return "\n".join(lines + [f"  {name}: {reason}" for name, reason in skipped.items()])

    def summary(self) -> str:
        """One line: how many were skipped for which kind of reason."""
        kinds = collections.Counter(reason.split(":")[0] for reason in self["skipped"].values())
        return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()) or "none found"


class VideoFolder:
    """Clips of the videos under a folder, resampled, resized and centrally cropped.

    Every video is probed once, at construction. Those that are broken, too short or have no caption
    are left out; `report` names each with its reason. A file listed more than once among the
    captions gets one of its captions at random, by the seed of the example.

    When all videos at the asked size and rate fit into `cache_bytes`, each is decoded only once
    and kept; otherwise every clip is decoded from its file.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        *,
        num_frames: int,
        resolution: int | tuple[int, int],
        fps: float,
        split: str = "train",
        captions: str | os.PathLike | None = None,
        clip: str = "random",
        cache_bytes: int = 2**29,
    ):
        """Finds, probes and filters the videos.

        Args:
          root: folder with videos in it or in folders below: MP4, WebM, MOV, AVI, GIF, MKV. If it
            has a folder `train` or `test`, a split is the folder of its name; else every split is
            the whole folder.
          num_frames: frames of a clip.
          resolution: side of the square clip in pixels, or (height, width).
          fps: frames per second of a clip.
          split: "train" or "test".
          captions: CSV or JSONL file, see `captions.read_captions_file`. By default the first of
            captions.csv, metadata.csv, captions.jsonl, metadata.jsonl in the folder; videos that it
            does not list may have a `.txt` file beside them.
          clip: "random" (by the seed of the example) or "center", where in the video.
          cache_bytes: memory that decoded videos may take.

        Raises:
          UserError: no folder, no usable video in it, or a malformed captions file.
        """
        if clip not in ("random", "center"):
            raise UserError(f"clip is {clip!r}; use random or center")
        self.num_frames, self.fps, self.clip = num_frames, fps, clip
        self.resolution = resolution
        self._size = (resolution, resolution) if isinstance(resolution, int) else tuple(resolution)
        root = Path(root).expanduser()
        folder = self._folder = split_folder(root, split)
        listed, listed_in = load_captions([folder, root], captions)
        self.report = FolderReport(folder=str(folder), used=0, skipped={})
        self._videos = list(self._usable_videos(folder, listed))
        self._note_missing(folder, listed, listed_in)
        self.report["used"] = len(self._videos)
        if not self._videos:
            raise UserError(
                f"no usable video in {folder} ({self.report.summary()}); it needs videos "
                f"({' '.join(SUFFIXES)}) of at least {num_frames} frames at {fps:g} fps, with "
                f"captions in one of {', '.join(FILE_NAMES)} or in .txt files beside them"
            )
        frame_bytes = 3 * self._size[0] * self._size[1]
        total_bytes = frame_bytes * sum(video.num_frames for video in self._videos)
        self._cache: dict[int, np.ndarray] | None = {} if total_bytes <= cache_bytes else None

    def __len__(self) -> int:
        return len(self._videos)

    def example(self, index: int, seed: int = 0) -> tuple[np.ndarray, str]:
        """A clip of video `index` and its caption; a pure function of (index, seed).

        Returns:
          float32 [num_frames, height, width, 3] in [-1, 1], and the caption.

        Raises:
          UserError: the file cannot be read any more.
        """
        frames, caption = self.frames(index, seed)
        return to_float(frames), caption

    def frames(self, index: int, seed: int = 0) -> tuple[np.ndarray, str]:
        """What `example` gives, as bytes: uint8 [num_frames, height, width, 3]."""
        video = self._videos[index]
        generator = np.random.default_rng([seed, index])
        spare = video.num_frames - self.num_frames
        start = int(generator.integers(spare + 1)) if self.clip == "random" else spare // 2
        caption = video.captions[int(generator.integers(len(video.captions)))]
        return self._read(index, start), caption

    @property
    def fingerprint(self) -> str:
        """Names the clips: settings, and each file's name, size and captions."""
        return fingerprint(
            "video_folder",
            clip=[self.num_frames, self._size, float(self.fps), self.clip],
            videos=[
                [str(video.path.relative_to(self._folder)), video.num_bytes, video.captions]
                for video in self._videos
            ],
        )

    def path(self, index: int) -> Path:
        """The file of video `index`."""
        return self._videos[index].path

    def _read(self, index: int, start: int) -> np.ndarray:
        """uint8 frames of a clip, from the cache if there is one."""
        video = self._videos[index]
        options = {"fps": self.fps, "size": self._size, "info": video.info}
        try:
            if self._cache is None:
                return read_video(video.path, start=start, num_frames=self.num_frames, **options)
            if index not in self._cache:
                self._cache[index] = read_video(video.path, **options)
        except VideoReadError as error:
            raise UserError(
                f"{error}; it was fine when the folder was read: restore or remove it, and start "
                "again"
            ) from error
        return self._cache[index][start : start + self.num_frames]

    def _usable_videos(self, folder: Path, listed: dict[Path, list[str]]) -> Iterator[_Video]:
        """Probes all videos of a folder; the ones of no use go into the report."""
        paths = find_videos(folder)
        with ThreadPoolExecutor(max_workers=4) as pool:
            probed = with_progress(pool.map(_probe, paths), len(paths))
            for path, info in zip(paths, probed, strict=True):
                captions = listed.get(real_path(path)) or read_caption_beside(path)
                if isinstance(info, str):
                    reason = f"broken: {info}"
                elif (available := info.num_frames(self.fps)) < self.num_frames:
                    reason = (
                        f"too short: {available} of {self.num_frames} frames at {self.fps:g} fps"
                    )
                elif not captions:
                    reason = "without a caption"
                else:
                    yield _Video(path, info, available, tuple(captions), path.stat().st_size)
                    continue
                self.report["skipped"][str(path.relative_to(folder))] = reason

    def _note_missing(
        self, folder: Path, listed: dict[Path, list[str]], listed_in: Path | None
    ) -> None:
        """Reports captions that belong to no video of the folder."""
        for path in listed:
            inside = path.is_relative_to(real_path(folder))
            if not path.exists():
                self.report["skipped"][str(path)] = f"missing: listed in {listed_in.name}"
            elif inside and path.suffix.lower() not in SUFFIXES:
                self.report["skipped"][str(path)] = f"not a video: listed in {listed_in.name}"


def split_folder(root: Path, split: str) -> Path:
    """The folder of a split: `root/split` where there are such folders, else `root`."""
    if split not in SPLITS:
        raise UserError(f"split is {split!r}; use one of {', '.join(SPLITS)}")
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; give the folder that holds the videos")
    if (root / split).is_dir():
        return root / split
    others = [name for name in SPLITS if (root / name).is_dir()]
    if others:
        raise UserError(f"{root} has a folder {others[0]} but none named {split}; make one")
    return root


def load_captions(
    folders: list[Path], given: str | os.PathLike | None
) -> tuple[dict[Path, list[str]], Path | None]:
    """The captions of the file given or found, and that file."""
    path = Path(given).expanduser() if given else find_captions_file(folders)
    return (read_captions_file(path), path) if path else ({}, None)


def find_videos(folder: Path) -> list[Path]:
    """All files below with the ending of a video, sorted, so that an index means one video.

    Hidden ones, as of a write that is not complete, are left out; links that lead nowhere are not,
    so that they are reported. Links to folders are not followed.
    """
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return sorted(path for path in found if not path.is_dir() and not path.name.startswith("."))


def _probe(path: Path) -> VideoInfo | str:
    """What a file is, or the reason why it cannot be used."""
    try:
        return probe_video(path)
    except VideoReadError as error:
        return error.reason


def with_progress(results: Iterator, total: int) -> Iterator:
    """Passes results on, and says on stderr every few seconds how many there were."""
    told = time.monotonic()
    for count, result in enumerate(results, start=1):
        if time.monotonic() - told > _PROGRESS_SECONDS:
            told = time.monotonic()
            print(f"looking at videos: {count} of {total}", file=sys.stderr, flush=True)
        yield result
