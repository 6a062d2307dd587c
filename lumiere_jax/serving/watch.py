"""How far a batch of jobs is: filled by the pipeline's callbacks, read by the worker's main thread.

The same callbacks are where a batch is stopped: one that raises ends the sampling.
"""

import io
import threading
import time
from typing import Any

import numpy as np
from PIL import Image

from lumiere_jax.data.pixels import to_uint8

_PREVIEW_PIXELS = 128  # height at which a frame is shown


class Stopped(Exception):
    """The batch is not wanted any more."""


class Watch:
    """Progress of one batch. Safe for threads.

    Raises:
      Stopped: by `raise_if_stopped`, `start` and `advance`, after `stop`.
    """

    def __init__(self, stages: int):
        """Takes how many stages there are to come, in all."""
        self._lock = threading.Lock()
        self._stages, self._done_stages = max(stages, 1), -1
        self._label, self._step, self._total = "loading", 0, 0
        self._is_compiling = False
        self._first: tuple[float, float] | None = None  # time and fraction after the first step
        self._last = 0.0
        self._estimate: tuple[float, np.ndarray] | None = None
        self._is_new = False
        self._stop = threading.Event()

    def expect(self, stages: int) -> None:
        """Says how many stages there are to come, once that is known."""
        with self._lock:
            self._stages = max(stages, 1)

    def stop(self) -> None:
        """Makes the next callback raise `Stopped`."""
        self._stop.set()

    def raise_if_stopped(self) -> None:
        """To be called wherever work can end."""
        if self._stop.is_set():
            raise Stopped

    def start(self, label: str, total: int) -> None:
        """Says that a stage begins."""
        self.raise_if_stopped()
        with self._lock:
            self._label, self._step, self._total = label, 0, total
            self._done_stages = min(self._done_stages + 1, self._stages - 1)

    def compiling(self) -> None:
        """Says that the stage's programs are compiled before its first step."""
        with self._lock:
            self._is_compiling = True

    def advance(self) -> None:
        """Says that a step of the stage is done."""
        self.raise_if_stopped()
        with self._lock:
            self._step, self._is_compiling = min(self._step + 1, self._total), False
            self._last = time.monotonic()
            if self._first is None:
                self._first = self._last, self._fraction()

    def estimate(self, log_snr: np.ndarray, frames: np.ndarray) -> None:
        """Keeps the latest `[batch, time, height, width, 3]`; they come in any order."""
        with self._lock:
            level = float(log_snr)
            # A clip that goes on begins with noise again, and that is the newer one.
            if self._estimate is None or level > self._estimate[0] or self._step <= 1:
                self._estimate, self._is_new = (level, np.asarray(frames)), True

    def finishing(self) -> None:
        """Says that the videos are made, and are written."""
        with self._lock:
            self._label, self._step, self._total = "writing", 0, 0
            self._done_stages = self._stages

    def progress(self) -> dict[str, Any]:
        """Stage, step, total, fraction, and seconds left (None while nobody knows)."""
        with self._lock:
            fraction, left = self._fraction(), None
            began, done = self._first or (self._last, fraction)
            if fraction > done and self._last > began:
                # As of the last step: it is not to change while nothing happens.
                left = round((1 - fraction) * (self._last - began) / (fraction - done), 1)
            label = "compiling" if self._is_compiling else self._label
            stage = {"stage": label, "step": self._step, "total": self._total}
            return stage | {"fraction": round(fraction, 4), "seconds_left": left}

    def previews(self, count: int) -> list[bytes]:
        """A PNG for each of the first `count` videos; none if nothing is new."""
        with self._lock:
            if not self._is_new or self._estimate is None:
                return []
            self._is_new, frames = False, self._estimate[1]
        return [_picture(video) for video in frames[:count]]

    def _fraction(self) -> float:
        if self._done_stages < 0:
            return 0.0
        part = self._step / self._total if self._total else 0.0
        return min((self._done_stages + part) / self._stages, 1.0)


def _picture(frames: np.ndarray) -> bytes:
    """Frames `[time, height, width, 3]` in a row, as a PNG."""
    row = np.concatenate(list(to_uint8(frames)), axis=1)
    scale = max(_PREVIEW_PIXELS // row.shape[0], 1)
    image = Image.fromarray(row.repeat(scale, axis=0).repeat(scale, axis=1))
    if image.height > 2 * _PREVIEW_PIXELS:
        image.thumbnail((image.width, 2 * _PREVIEW_PIXELS))
    content = io.BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()
