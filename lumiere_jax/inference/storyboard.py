"""What a sampler estimates on its way from noise to a video, as one picture."""

from pathlib import Path

import numpy as np
from jaxtyping import Array, Float

from lumiere_jax.data.video_io import write_contact_sheet

_ROWS = 12


class Storyboard:
    """Collects estimates of the first video; call it at every step."""

    def __init__(self, path: str):
        """Takes the PNG to write."""
        self._path = Path(path).expanduser()
        self._estimates: dict[float, np.ndarray] = {}

    def __call__(
        self,
        log_snr: Float[Array | np.ndarray, ""],
        estimate: Float[Array | np.ndarray, "batch time height width 3"],
    ) -> None:
        """Keeps some frames of an estimate."""
        self._estimates.setdefault(float(log_snr), np.asarray(estimate[0]))

    def write(self) -> Path:
        """Writes rows of frames of up to 12 steps; returns the path, or raises `UserError`."""
        count = len(self._estimates)
        chosen = np.unique(np.linspace(0, count - 1, min(count, _ROWS)).round().astype(int))
        estimates = [estimate for _, estimate in sorted(self._estimates.items())]
        rows = [estimates[step] for step in chosen]
        write_contact_sheet(self._path, rows, [f"step {step + 1} of {count}" for step in chosen])
        return self._path
