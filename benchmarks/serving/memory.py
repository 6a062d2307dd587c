"""Measures the memory of a server, its decoding processes and its worker, idle and at work.

    PYTHONPATH=. python benchmarks/serving/memory.py --write

Jobs of every kind, with the largest uploads that are taken. Linux only: the peaks are the kernel's.
"""

import io
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import httpx
import psutil
from absl import flags, logging
from PIL import Image
from starting import REPOSITORY, Server, serving, write_section

from lumiere_jax.runtime import errors

_BUNDLE = flags.DEFINE_string("bundle", str(REPOSITORY / "weights/small"), "Weights to serve.")
_WRITE = flags.DEFINE_bool("write", False, "Write the figures into the page beside this file.")

_PROMPT = {"prompt": "a large red circle moving right"}


class Watch:
    """Looks at the processes of a server, as long as it is open."""

    def __init__(self, server: Server):
        """Begins."""
        self.peaks: dict[str, float] = {}
        self._server, self._ended = server, threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def close(self) -> None:
        """Ends."""
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(0.01):
            for kind, process in kinds(self._server):
                found = _mib(process, "VmHWM")
                self.peaks[kind] = max(self.peaks.get(kind, 0.0), found)


def kinds(server: Server) -> Iterator[tuple[str, psutil.Process]]:
    """The processes that count, each with what it is."""
    main, *others = server.processes()
    yield "server", main
    for process in others:
        try:
            command = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if "spawn_main" in command:
            yield "worker", process
        elif "serving.decoding" in command:
            yield "decoding", process


def _mib(process: psutil.Process, field: str) -> float:
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:  # it has ended
        return 0.0
    found = re.search(rf"{field}:\s*(\d+) kB", status)
    return int(found[1]) / 1024 if found else 0.0


def uploads() -> list[dict[str, Any]]:
    """Requests for all tasks; the files are of the largest sizes that are taken."""
    photo, mask, clip = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.effect_noise((4000, 4000), 50).convert("RGB").save(photo, "JPEG")
    drawn = Image.new("L", (4000, 4000))
    drawn.paste(255, (500, 500, 1500, 1500))
    drawn.save(mask, "PNG")
    with av.open(clip, "w", "mp4") as container:
        stream = container.add_stream("libx264", rate=8, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 2048, 2048, "yuv420p"
        for number in range(16):
            picture = Image.effect_noise((64, 64), 50).resize((2048, 2048)).convert("RGB")
            frame = av.VideoFrame.from_image(picture)
            frame.pts, frame.time_base = number, Fraction(1, 8)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    image, region, video = photo.getvalue(), mask.getvalue(), clip.getvalue()
    return [
        {"data": {"task": "text_to_video"}},
        {"data": {"task": "animate"}, "files": {"image": image}},
        {"data": {"task": "cinemagraph"}, "files": {"image": image, "mask": region}},
        {"data": {"task": "video_to_video"}, "files": {"video": video}},
        {"data": {"task": "outpaint", "zoom": "0.7"}, "files": {"video": video}},
        {"data": {"task": "extend", "num_frames": "16"}, "files": {"video": video}},
    ]


def work(server: Server) -> None:
    """Has all tasks done, several at once."""
    ids = []
    for request in uploads():
        request["data"] |= _PROMPT | {"steps": "4"}
        reply = httpx.post(f"{server.url}/api/v1/jobs", timeout=300, **request)
        if reply.status_code == 202:
            ids.append(reply.json()["id"])
        else:
            print(f"{request['data']['task']}: {reply.text}")
    while ids:
        jobs = httpx.get(f"{server.url}/api/v1/jobs", params={"ids": ids}, timeout=60).json()
        for job in jobs:
            if job["state"] == "failed":
                print(job["error"])
        ids = [job["id"] for job in jobs if job["state"] in ("queued", "running")]
        time.sleep(1)


def main(argv: list[str]) -> None:
    """Measures."""
    del argv
    logging.set_verbosity(logging.WARNING)  # httpx tells every request
    bundle = str(Path(_BUNDLE.value).absolute())
    with tempfile.TemporaryDirectory(prefix="memory-") as root:
        with serving(Path(root), bundle) as server:
            time.sleep(5)
            idle = {kind: _mib(process, "VmRSS") for kind, process in kinds(server)}
            watch = Watch(server)
            try:
                work(server)
                time.sleep(5)
            finally:
                watch.close()
            after = {kind: _mib(process, "VmRSS") for kind, process in kinds(server)}
    lines = ["| process | before the first job (MiB) | peak (MiB) | idle afterwards (MiB) |",
             "| --- | --- | --- | --- |"]  # fmt: skip
    for kind in ("server", "decoding", "worker"):
        row = (idle.get(kind), watch.peaks.get(kind), after.get(kind))
        lines.append(f"| {kind} | {' | '.join(f'{x:.0f}' if x else '–' for x in row)} |")
    print("\n".join(lines))
    if _WRITE.value:
        write_section("memory", lines)


if __name__ == "__main__":
    errors.run(main)
