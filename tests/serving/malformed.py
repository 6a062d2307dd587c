"""Uploads that are damaged, of foreign formats, too large, or oddly named."""

import io
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lumiere_jax.data.video_io import write_gif, write_mp4


def malformed(count: int, seed: int) -> list[tuple[str, dict[str, str], Any]]:
    """Tasks, fields and files that are none."""
    generator, noise = random.Random(seed), np.random.default_rng(seed)
    picture = noise.integers(0, 256, (40, 60, 3), np.uint8)
    whole = {}
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"):
        content = io.BytesIO()
        Image.fromarray(picture).save(content, kind)
        whole[kind] = content.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        clip = noise.uniform(-1, 1, (9, 40, 60, 3))
        write_mp4(f"{folder}/x.mp4", clip, 8)
        write_gif(f"{folder}/x.gif", clip, 8)
        whole["MP4"] = Path(folder, "x.mp4").read_bytes()
        whole["GIF video"] = Path(folder, "x.gif").read_bytes()
    texts = [
        b"", b"\0" * 4096,
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='/etc/passwd'/></svg>",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        b"%!PS\n(/etc/passwd) run\n", b"P6 9999999 9999999 255\n",
    ]  # fmt: skip
    names = ["x.png", "../../../x", "/etc/passwd", "x\0.png", "a" * 5000, "..", "", "ü\u202e.mp4"]
    kinds = ["image/png", "video/mp4", "text/html", "application/x-mpegurl", "nonsense"]
    tasks = {
        "animate": ["image"], "cinemagraph": ["image", "mask"], "video_to_video": ["video"],
        "inpaint": ["video", "mask"], "outpaint": ["video"], "extend": ["video"],
    }  # fmt: skip

    def damaged() -> bytes:
        content = bytearray(generator.choice(list(whole.values())))
        way = generator.randrange(6)
        if way == 0:
            return generator.choice(texts)
        if way == 1:
            return bytes(content[: generator.randrange(len(content))])
        if way == 2:
            return generator.randbytes(generator.randrange(20_000))
        if way == 3:
            return bytes(content) + generator.randbytes(999)
        if way == 4:
            return b"x" * (3 * 2**20)  # more than is taken
        for _ in range(generator.randrange(1, 60)):
            content[generator.randrange(len(content))] = generator.randrange(256)
        return bytes(content)

    made = []
    for _ in range(count):
        task = generator.choice(list(tasks))
        files = {
            name: (generator.choice(names), damaged(), generator.choice(kinds))
            for name in tasks[task]
        }
        fields = {"task": task, "prompt": "a circle", "steps": "1", "base_only": "true"}
        made.append((task, fields | ({"num_frames": "2"} if task == "extend" else {}), files))
    return made
