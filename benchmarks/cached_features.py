"""Logits of clips, computed once and kept in a folder."""

import hashlib
from pathlib import Path

import numpy as np

from lumiere_jax.evaluation.networks import FeatureNetwork
from lumiere_jax.runtime.files import written


class CachedFeatures:
    """Logits of clips, kept by the clips' checksum."""

    def __init__(self, network: FeatureNetwork, folder: Path):
        self._network, self._folder = network, folder
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, clips: np.ndarray) -> np.ndarray:
        """Logits `[n, 400]`."""
        digest = hashlib.sha256(self._network.fingerprint.encode() + clips.tobytes()).hexdigest()
        path = self._folder / f"{digest[:20]}.npy"
        if not path.is_file():
            with written(path) as temporary:
                np.save(temporary, self._network(list(clips)))
        return np.load(path)
