"""UCF101 as it is handed out: `UCF-101/CLASS/v_CLASS_gXX_cYY.avi` and `ucfTrainTestlist/`."""

import dataclasses
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from lumiere_jax.data.ucf101_classes import classes
from lumiere_jax.data.video_folder import with_progress
from lumiere_jax.data.video_io import VideoInfo, VideoReadError, probe_video, read_video
from lumiere_jax.runtime.errors import UserError

LISTS = "ucfTrainTestlist"
LISTS_ARCHIVE = "UCF101TrainTestSplits-RecognitionTask.zip"
VIDEO_ARCHIVES = ("UCF101.rar", "UCF101_videos.zip")


@dataclasses.dataclass
class VideoFiles:
    """See `ucf101.Videos`; names are those of the files."""

    names: list[str]
    labels: list[int]
    counts: list[int]
    left_out: dict[str, str]
    paths: list[Path]
    infos: list[VideoInfo]

    def read(self, index: int, first: int, count: int) -> np.ndarray:
        """See `ucf101.Videos`."""
        info = self.infos[index]
        try:
            return read_video(
                self.paths[index], fps=1 / info.frame_period, start=first, num_frames=count,
                info=info,
            )  # fmt: skip
        except VideoReadError as error:
            raise UserError(f"{error}; it was fine when the folder was read: restore it") from error


def find_folder(root: Path, split: str, fold: int) -> VideoFiles:
    """The videos of a split, in the order of their files' names.

    Args:
      root: holds the videos, in folders or not, and the lists, unpacked or not.
      split: "train" or "test".
      fold: 1, 2 or 3.

    Raises:
      UserError: naming what is missing, and how to get it.
    """
    labels = {action.name.casefold(): label for label, action in enumerate(classes())}
    found = {path.name.casefold(): path for path in root.rglob("*.avi")}
    if not found:
        _explain_missing_videos(root)
    videos = VideoFiles([], [], [], {}, [], [])
    listed = sorted(_listed(root, f"{split}list{fold:02d}.txt"), key=str.casefold)
    with ThreadPoolExecutor(max_workers=4) as pool:
        paths = [found.get(Path(name).name.casefold()) for name in listed]
        probed = with_progress(pool.map(_probe, paths), len(paths))
        for name, path, info in zip(listed, paths, probed, strict=True):
            label = labels.get(Path(name).parent.name.casefold())
            if label is None:
                raise UserError(f"ucf101: {name!r} in {LISTS} is of no class that UCF101 has")
            if isinstance(info, str):
                videos.left_out[Path(name).name] = info
                continue
            videos.names.append(path.name)
            videos.labels.append(label)
            videos.counts.append(info.num_frames(1 / info.frame_period))
            videos.paths.append(path)
            videos.infos.append(info)
    return videos


def _listed(root: Path, name: str) -> list[str]:
    """Lines "CLASS/FILE.avi" of a list, which train lists end with the class's number."""
    place = root / LISTS / name
    archive = root / LISTS_ARCHIVE
    try:
        if place.is_file():
            text = place.read_text(encoding="utf-8")
        elif archive.is_file():
            with zipfile.ZipFile(archive) as file:
                text = file.read(f"{LISTS}/{name}").decode()
        else:
            raise UserError(
                f"ucf101: {root} has no {LISTS}/{name}; put {LISTS_ARCHIVE} of the data set's page "
                "there, or unpack it there"
            )
    except (OSError, zipfile.BadZipFile, KeyError, UnicodeDecodeError) as error:
        raise UserError(f"ucf101: the list {name} in {root} cannot be read ({error})") from error
    lines = [line.split()[0] for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"ucf101: the list {place} is empty; unpack {LISTS_ARCHIVE} again")
    return lines


def _probe(path: Path | None) -> VideoInfo | str:
    if path is None:
        return "missing: listed, but there is no such file"
    try:
        return probe_video(path)
    except VideoReadError as error:
        return f"broken: {error.reason}"


def _explain_missing_videos(root: Path) -> None:
    packed = [name for name in VIDEO_ARCHIVES if (root / name).is_file()]
    if packed:
        tool = "unrar x" if packed[0].endswith(".rar") else "unzip"
        raise UserError(
            f"ucf101: {root} holds {packed[0]}, which is not unpacked: run `cd {root} && {tool} "
            f"{packed[0]}`"
        )
    raise UserError(
        f"ucf101: {root} holds no .avi file; give the folder that holds UCF-101, or the data_dir "
        "of TFDS, in which there is a folder ucf101"
    )
