"""Small files that ask for much: no process takes more than its share of memory for them."""

import io
import json
import os
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from lumiere_jax.serving import decoding
from lumiere_jax.serving.settings import Limits
from lumiere_jax.serving.uploads import UploadError
from tests.warm_python import REPOSITORY

PROGRAM = """
import json, resource, sys
from pathlib import Path
import numpy as np
from lumiere_jax.inference import editing
from lumiere_jax.serving import decoding
from lumiere_jax.serving.settings import Limits
from lumiere_jax.serving.uploads import UploadError
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30,) * 2)
order = json.loads(sys.argv[1])
files = {name: Path(path).read_bytes() for name, path in order["files"].items()}
try:
    found = decoding.decode(
        files, fps=8, side=128, least_frames=1, limits=Limits(), scratch=Path(order["scratch"]),
        keeps=True,
    ).arrays
    told = {name: array.shape for name, array in found.items()}
    if order.get("zoom"):
        told["canvas"] = editing.padded_to_square(found["video"], order["zoom"], 128)[0].shape
except UploadError as error:
    told = {"refused": str(error)}
# What `getrusage` says of itself includes the process that started this one.
status = Path("/proc/self/status").read_text()
own = int(status.partition("VmHWM:")[2].split()[0])
child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps(told | {"own": own, "child": child}))
"""


def film(path, seconds, size, rate=8, codec="libx264"):
    """Moving and cheap: a flat colour."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"preset": "ultrafast"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for n in range(round(seconds * rate)):
            frame = av.VideoFrame(*size, "yuv420p")
            for plane in frame.planes:
                plane.update(bytes([100 + n % 50]) * plane.buffer_size)
            frame.pts, frame.time_base = n, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def ask(tmp_path, files, **order):
    """What a process of 4 GiB makes of files, in kilobytes of memory."""
    order |= {"files": {name: str(path) for name, path in files.items()}, "scratch": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(order)], capture_output=True, text=True,
        cwd=REPOSITORY, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"}, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("zoom, size, seconds", [(0.1, (320, 240), 3), (0.7, (1920, 1080), 3.9)])
def test_a_video_that_is_to_be_a_small_part_of_the_picture(tmp_path, zoom, size, seconds):
    told = ask(tmp_path, {"video": film(tmp_path / "v.mp4", seconds, size)}, zoom=zoom)
    assert told["canvas"][1:] == [128, 128, 3] and min(told["video"][1:3]) == 128
    assert told["own"] < 500_000 and told["child"] < 1_000_000


def test_a_picture_that_is_very_wide(tmp_path):
    Image.new("RGB", (65_000, 240), "red").save(tmp_path / "wide.jpg")
    told = ask(tmp_path, {"image": tmp_path / "wide.jpg"})
    assert told["image"][2] == 3 and told["image"][1] <= 64 * 128 and told["own"] < 500_000


def test_two_large_uploads_of_few_bytes(tmp_path):
    large = film(tmp_path / "large.mp4", 2, (2048, 2048))
    told = ask(tmp_path, {"video": large, "mask": large})
    assert told["own"] < 500_000 and told["child"] < 2_500_000


def test_a_decoder_that_nobody_needs_is_not_reached(tmp_path):
    with av.open(str(tmp_path / "x.avi"), "w") as container:
        stream = container.add_stream("cinepak", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        for n in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), n, np.uint8))
            frame.pts = n
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(UploadError, match="not a supported|coded in a way that is not") as caught:
        decode(tmp_path, video=(tmp_path / "x.avi").read_bytes())
    assert caught.value.is_foreign


def decode(scratch, **files):
    return decoding.decode(
        files, fps=8, side=64, least_frames=1, limits=Limits(), scratch=scratch, keeps=True
    )


def test_arrays_and_region_come_back(tmp_path):
    image, mask = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (96, 80), "red").save(image, "PNG")
    drawn = Image.new("L", (96, 80))
    drawn.paste(255, (0, 0, 48, 80))
    drawn.save(mask, "PNG")
    found = decode(tmp_path, image=image.getvalue(), mask=mask.getvalue())
    assert found.region == "50.6% of the frame"  # 39 of 77 columns, half of one included
    assert list(tmp_path.iterdir()) == []
    assert found.arrays["image"].shape == (64, 77, 3) and found.arrays["image"].dtype == np.float32
    assert found.arrays["region"].shape == (64, 77)
    with pytest.raises(UploadError, match="^image: is damaged, or not"):
        decode(tmp_path, image=image.getvalue()[:60])


def test_what_ends_the_decoder_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "SECONDS", 0.01)
    with pytest.raises(UploadError, match="takes more than 0.01 s or 3 GiB to decode"):
        decode(tmp_path, image=b"x")
