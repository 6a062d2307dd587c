"""Feature extraction for FVD, compared with the same network in PyTorch: same clips and threads.

    .venv/bin/python benchmarks/i3d_speed.py

Prints the videos per second of both, taken in turn, and the largest difference of their logits.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np
import torch
from absl import flags

from lumiere_jax.evaluation.networks import i3d_network
from lumiere_jax.evaluation.profiles import PROFILES
from lumiere_jax.metrics import i3d_weights
from lumiere_jax.runtime import devices, errors
from tests.metrics.i3d_torch import TorchI3D

_VIDEOS = flags.DEFINE_integer("videos", 16, "Videos in a round.")
_ROUNDS = flags.DEFINE_integer("rounds", 4, "Rounds of each.")
_FRAMES = flags.DEFINE_integer("frames", 16, "Frames of a video.")
_SIZE = flags.DEFINE_integer("size", 128, "Pixels a side of a video.")


def main(argv: list[str]) -> None:
    """Times both."""
    del argv
    devices.split_cpu()  # as the eval binary does
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    print(f"{threads} threads; jax {jax.__version__}, torch {torch.__version__}")
    shape = (_VIDEOS.value, _FRAMES.value, _SIZE.value, _SIZE.value, 3)
    clips = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    network, rival = i3d_network(PROFILES["unterthiner"]), TorchI3D(i3d_weights.load()).eval()

    def ours() -> np.ndarray:
        return network(list(clips))

    @torch.inference_mode()
    def theirs() -> np.ndarray:
        logits = []
        for start in range(0, len(clips), network.batch_size):
            batch = torch.tensor(clips[start : start + network.batch_size])
            batch = batch.permute(0, 1, 4, 2, 3).flatten(0, 1).float()
            # PyTorch has no TF1 resize, whose pixels are the same in number.
            batch = torch.nn.functional.interpolate(batch, (224, 224), mode="bilinear")
            batch = batch.unflatten(0, (-1, clips.shape[1])).transpose(1, 2) * (2 / 255) - 1
            logits.append(rival(batch).numpy())
        return np.concatenate(logits)

    print("compiling")
    ours(), theirs()
    best = {"lumiere_jax": np.inf, "torch": np.inf}
    for _ in range(_ROUNDS.value):
        for name, extract in (("lumiere_jax", ours), ("torch", theirs)):
            begin = time.perf_counter()
            extract()
            best[name] = min(best[name], time.perf_counter() - begin)
    for name, seconds in best.items():
        print(f"{name}: {len(clips) / seconds:.2f} videos/s (best of {_ROUNDS.value} rounds)")
    print(f"lumiere_jax / torch: {best['torch'] / best['lumiere_jax']:.2f}")


if __name__ == "__main__":
    errors.run(main)
