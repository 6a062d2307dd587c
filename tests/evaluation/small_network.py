"""The eval binary with a network of a moment in place of I3D, which takes a second a clip here.

    python -m tests.evaluation.small_network FLAGS

With `DIES_AFTER_A_BLOCK` in its environment it is killed as soon as a block of features is written.
"""

import os
import signal

import numpy as np

from lumiere_jax.evaluation import command, features
from lumiere_jax.evaluation.networks import FeatureNetwork


def network(profile, path) -> FeatureNetwork:
    """Features that are mixtures of mean colours."""
    weights = np.random.default_rng(0).normal(size=(3, 400)).astype(np.float32)
    return FeatureNetwork(
        "Colours",
        "0",
        {},
        lambda clip: clip.astype(np.float32).mean(axis=(0, 1, 2)) / 255,
        lambda params, x: x @ params["weights"],
        {"weights": weights},
    )


def _die(*_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    from lumiere_jax import eval as binary
    from lumiere_jax.runtime import errors

    command.i3d_network = network
    if "DIES_AFTER_A_BLOCK" in os.environ:
        features.Progress.update = _die
    errors.run(binary.main)
