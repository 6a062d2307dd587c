"""Is every frame of a folder's videos read, in FFmpeg's order? Compared with the FFmpeg program.

    .venv/bin/python benchmarks/video_reading.py --folder=UCF-101

Needs the program `ffmpeg`. Every video is decoded by it without any change of rate, and read here
at its own rate; frames are compared as yuv420p. Decoders of different versions may differ by a
level, so a frame counts as the same up to `--levels`.
"""

import subprocess
import time
from pathlib import Path

import numpy as np
from absl import flags

from lumiere_jax.data.file_kinds import VIDEO_SUFFIXES, has_suffix
from lumiere_jax.data.finding import all_files
from lumiere_jax.data.video_timing import VideoReadError, probe_video, shown_frames
from lumiere_jax.runtime import errors
from lumiere_jax.runtime.progress import Progress

_FOLDER = flags.DEFINE_string("folder", None, "Folder of videos.", required=True)
_LEVELS = flags.DEFINE_integer("levels", 1, "Difference of a pixel that is no difference.", 0)


def by_program(path: Path) -> np.ndarray:
    """Every frame that FFmpeg decodes, as rows of yuv420p bytes."""
    command = ["ffmpeg", "-v", "error", "-noautorotate", "-i", str(path), "-map", "0:v:0"]
    command += ["-fps_mode", "passthrough", "-pix_fmt", "yuv420p", "-f", "rawvideo", "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True).stdout, np.uint8)


def by_us(path: Path) -> np.ndarray:
    """Every frame that is shown at the file's own rate, once each."""
    info = probe_video(path)
    times = [n / info.fps for n in range(info.num_frames(info.fps))]
    frames, last = [], None
    for frame, _ in shown_frames(path, info, times, num_threads=0):
        if frame is not last:
            frames.append(frame.reformat(format="yuv420p").to_ndarray().ravel())
        last = frame
    return np.concatenate(frames)


def main(argv: list[str]) -> None:
    """Compares, and prints a line for each file that differs."""
    del argv
    paths = [p for p in all_files(Path(_FOLDER.value)) if has_suffix(p, VIDEO_SUFFIXES)]
    progress, begin = Progress("comparing", len(paths), "videos"), time.monotonic()
    same = exact = 0
    for count, path in enumerate(paths, start=1):
        try:
            ours, theirs = by_us(path), by_program(path)
        except VideoReadError as error:
            print(error)
            continue
        if ours.shape != theirs.shape:
            print(f"{path}: {len(ours):,} bytes of frames here, {len(theirs):,} by FFmpeg")
        else:
            worst = int((np.maximum(ours, theirs) - np.minimum(ours, theirs)).max(initial=0))
            same, exact = same + (worst <= _LEVELS.value), exact + (worst == 0)
            if worst > _LEVELS.value:
                print(f"{path}: a pixel differs by {worst} levels")
        progress.update(count)
    print(
        f"{same} of {len(paths)} videos have the same frames in the same order, {exact} of them to "
        f"the bit; {time.monotonic() - begin:.0f} s"
    )


if __name__ == "__main__":
    errors.run(main)
