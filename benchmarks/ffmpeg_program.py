"""What the program `ffmpeg` decodes and encodes, which knows nothing of the package."""

import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
from jaxtyping import UInt8


def by_ffmpeg(path: Path, pixel_format: str) -> UInt8[np.ndarray, "frame byte"]:
    """All frames of a video by the program, as it decodes them, each as one row of bytes."""
    command = ["ffmpeg", "-v", "error", "-noautorotate", "-i", str(path), "-map", "0:v:0"]
    command += ["-fps_mode", "passthrough", "-pix_fmt", pixel_format, "-f", "rawvideo", "-"]
    content = subprocess.run(command, capture_output=True).stdout
    height, width = size(path)
    chroma = 2 * ((width + 1) // 2) * ((height + 1) // 2)
    length = width * height * 3 if pixel_format == "rgb24" else width * height + chroma
    return np.frombuffer(content, np.uint8).reshape(-1, length)


def size(path: Path) -> tuple[int, int]:
    """(height, width) of a video's frames, as they are stored."""
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-of", "csv=p=0"]
    command += ["-show_entries", "stream=width,height", str(path)]
    said = subprocess.run(command, capture_output=True, text=True).stdout
    width, height = map(int, said.split("\n")[0].strip(",").split(","))
    return height, width


def encode(
    path: Path, video: UInt8[np.ndarray, "frame height width 3"], fps: float, bit_rate: str
) -> None:
    """Writes H.264 at an average bit rate, such as "100k" bits a second."""
    rate = str(Fraction(fps).limit_denominator(1001))
    command = ["ffmpeg", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-r", rate]
    command += ["-s", f"{video.shape[2]}x{video.shape[1]}", "-i", "-", "-c:v", "libx264"]
    command += ["-b:v", bit_rate, "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(command, input=video.tobytes(), check=True)
