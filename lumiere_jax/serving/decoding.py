"""Decodes what strangers send, in a process of its own with limits of memory and time.

    python -m lumiere_jax.serving.decoding FOLDER

is that process: FOLDER holds the files and `order.json`, and gets `answer.json` and the arrays. It
knows neither JAX nor the weights, and whatever a file does to a decoder ends with it.
"""

import dataclasses
import errno
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from lumiere_jax.data.pixels import to_uint8
from lumiere_jax.inference.regions import in_words
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.serving import uploads
from lumiere_jax.serving.settings import Limits
from lumiere_jax.serving.uploads import UploadError

MEMORY = 3 * 2**30
"""Bytes of addresses that decoding may take; what it holds at once is less than half of that."""
SECONDS = 60
"""That decoding may take; a client that sends more work than that is refused."""
_NO_SPACE = 28  # exit code
_FRAME = "frame.png"
TINT = (255, 45, 149)
"""Colour of regions, red, green and blue: seen on most pictures."""


@dataclasses.dataclass(frozen=True)
class Decoded:
    """What files hold."""

    arrays: dict[str, np.ndarray]  # as `inputs.read` gives them; empty where only checked
    region: str  # how much of the frame a mask covers, in words; "" without one
    box: tuple[int, int, int, int] | None  # left, top, right and bottom of what the mask covers
    frame: bytes  # the first frame as a PNG, the region tinted; empty where nobody asked


def decode(
    files: Mapping[str, bytes],
    *,
    fps: float,
    side: int | None,
    least_frames: int,
    limits: Limits,
    scratch: Path,
    keeps: bool,
    shows: bool = False,
) -> Decoded:
    """Checks the files "image", "video" and "mask", and reads them if `keeps`.

    Args:
      files: what was sent.
      fps: the model's frame rate.
      side: of the model's videos, in pixels; more than it takes are not kept. None keeps all.
      least_frames: that a video must have.
      limits: that the files must keep.
      scratch: folder for temporary files.
      keeps: whether the arrays are wanted, or only whether there would be any.
      shows: whether the first frame is wanted as a picture.

    Raises:
      UploadError: naming the file and what is wrong with it.
      OSError: if there is no room for the files.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as name:
        folder = Path(name)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        order = {
            "files": list(files), "fps": fps, "side": side, "least_frames": least_frames,
            "limits": dataclasses.asdict(limits), "keeps": keeps, "shows": shows,
        }  # fmt: skip
        (folder / "order.json").write_text(json.dumps(order))
        answer = _answer(folder)
        arrays = {name: np.load(folder / f"{name}.npy") for name in answer["arrays"]}
        box = tuple(answer["box"]) if answer["box"] else None
        frame = (folder / _FRAME).read_bytes() if shows else b""
        return Decoded(arrays, answer["region"], box, frame)


def _answer(folder: Path) -> dict:
    """What the process says; an `UploadError` if it refuses, or came to an end by its limits."""
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(folder)], env=environment, timeout=SECONDS,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode == _NO_SPACE:
            raise OSError(errno.ENOSPC, "an upload cannot be stored")
        answer = json.loads((folder / "answer.json").read_text())
    except (subprocess.TimeoutExpired, FileNotFoundError, json.JSONDecodeError) as error:
        raise UploadError(
            f"a file takes more than {SECONDS} s or {MEMORY // 2**30} GiB to decode, or is "
            "damaged; send a smaller, shorter or simpler one."
        ) from error
    if "error" in answer:
        raise UploadError(answer["error"], is_foreign=answer["is_foreign"])
    return answer


def _decode_here(folder: Path) -> dict:
    """Does what the order says, and answers."""
    order = json.loads((folder / "order.json").read_text())
    files = {name: (folder / name).read_bytes() for name in order["files"]}
    notes: list[str] = []
    try:
        arrays = uploads.check(
            files, order["fps"], order["least_frames"], Limits(**order["limits"]), folder,
            notes.append, order["side"],
        )  # fmt: skip
    except UserError as error:
        return {"error": str(error), "is_foreign": getattr(error, "is_foreign", False)}
    except MemoryError:
        return {"error": "a file is too large to be decoded; send a smaller one.",
                "is_foreign": False}  # fmt: skip
    region, box = "", None
    if "region" in arrays:
        frames = arrays["region"] if arrays["region"].ndim == 3 else arrays["region"][None]
        region, box = "; ".join([in_words(frames), *notes]), _box(np.asarray(frames.any(axis=0)))
    if order["shows"]:
        first = arrays["image"] if "image" in arrays else arrays["video"][0]
        _show(to_uint8(first), arrays.get("region"), folder / _FRAME)
    for name, array in arrays.items() if order["keeps"] else ():
        np.save(folder / f"{name}.npy", array)
    return {"arrays": list(arrays) if order["keeps"] else [], "region": region, "box": box}


def _show(frame: np.ndarray, region: np.ndarray | None, path: Path) -> None:
    """Writes a frame with all that is ever in the region tinted."""
    if region is not None:
        drawn = region.any(axis=0) if region.ndim == 3 else region
        frame[drawn] = (frame[drawn] + 2 * np.array(TINT, np.uint16)) // 3
    Image.fromarray(frame).save(path)


def _box(region: np.ndarray) -> list[int]:
    """Left, top, right and bottom of what is true, which is not nothing."""
    rows, columns = (np.flatnonzero(region.any(axis=axis)) for axis in (1, 0))
    return [int(n) for n in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]


def _main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    folder = Path(sys.argv[1])
    try:
        (folder / "answer.json").write_text(json.dumps(_decode_here(folder)))
    except OSError:
        sys.exit(_NO_SPACE)


if __name__ == "__main__":
    _main()
