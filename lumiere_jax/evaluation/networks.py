"""The networks whose features are compared, from uint8 clips to logits."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float32

from lumiere_jax.data.pixels import Frames
from lumiere_jax.evaluation.profiles import Profile
from lumiere_jax.metrics import c3d, i3d, i3d_weights
from lumiere_jax.metrics.preprocessing import prepare
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.sharding import on_every_device

BATCH_SIZE = 4
"""Clips a device. A constant, so that features are the same to the last bit on any number."""

I3D, C3D = "I3D Kinetics-400 (RGB, from scratch)", "C3D UCF101 (TGANv2)"
_NUM_FRAMES = {I3D: (i3d.MIN_FRAMES, None), C3D: (c3d.NUM_FRAMES, c3d.NUM_FRAMES)}


def check_num_frames(name: str, num_frames: int) -> None:
    """Makes sure that clips have a length that a network takes."""
    least, largest = _NUM_FRAMES[name]
    if num_frames < least or (largest is not None and num_frames > largest):
        wanted = f"{least}" if largest == least else f"{least} or more"
        raise UserError(
            f"--num_frames={num_frames}: {name} needs {wanted} frames a clip; FVD and IS are "
            "usually given for 16."
        )


def check_files(i3d_path: Path | None, c3d_paths: tuple[Path, Path] | None) -> None:
    """Makes sure that weights which are given are there, without reading them."""
    if i3d_path is not None:
        i3d_weights.find(i3d_path)
    for path in c3d_paths or ():
        c3d.find(path)


class FeatureNetwork:
    """Logits of clips, on all devices of this process.

    Its `fingerprint` is the SHA-256 of the weights; its `options` are what else decides the
    features, for the protocol card and for caches.
    """

    def __init__(
        self,
        name: str,
        fingerprint: str,
        options: dict[str, str],
        preprocess: Callable[[jax.Array], jax.Array],
        apply: Callable[[dict, jax.Array], Any],
        params: dict,
    ):
        """Puts the parameters on the devices; use `i3d_network` or `c3d_network`."""
        self.name, self.fingerprint, self.options = name, fingerprint, options
        mesh = Mesh(np.array(jax.local_devices()), ("clips",))
        self._by_clip = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._preprocess = jax.jit(preprocess)
        whole = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
        self._apply = functools.partial(on_every_device(apply, mesh), whole)
        self.batch_size = BATCH_SIZE * mesh.size

    def __call__(self, clips: Sequence[Frames]) -> Float32[np.ndarray, "clip channel"]:
        """Logits of clips with one number of frames; sizes may differ."""
        ready = [np.asarray(self._preprocess(jnp.asarray(clip))) for clip in clips]
        ready += [ready[-1]] * (-len(ready) % self.batch_size)  # one compilation for all
        logits = []
        for start in range(0, len(ready), self.batch_size):
            batch = np.stack(ready[start : start + self.batch_size])
            logits.append(np.asarray(self._apply(jax.device_put(batch, self._by_clip))))
        return np.concatenate(logits)[: len(clips)]


def i3d_network(
    profile: Profile, weights: str | Path | None = None, cache: str | Path | None = None
) -> FeatureNetwork:
    """I3D as FVD uses it; for `weights`, `cache` and errors see `i3d_weights.load`."""
    arrays = i3d_weights.load(weights, cache)
    epsilon = f"{profile.bn_epsilon:g}"
    return FeatureNetwork(
        I3D,
        i3d_weights.fingerprint(arrays),
        {"resize": profile.resize, "crop": profile.crop, "bn_epsilon": epsilon},
        lambda clip: prepare(clip, profile.resize, profile.crop),
        lambda params, clips: i3d.I3D().apply({"params": params}, clips),
        i3d.fold(arrays, profile.bn_epsilon),
    )


def c3d_network(weights: str | Path, mean: str | Path) -> FeatureNetwork:
    """C3D, fine-tuned on UCF101, as TGANv2's Inception Score uses it.

    The files are `conv3d_deepnetA_ucf.npz` and `mean2.npz`; others are a `UserError`.
    """
    params, mean_array = c3d.load(weights, mean)
    mean_clip = jnp.asarray(mean_array)

    def preprocess(clip: jax.Array) -> jax.Array:
        return c3d.preprocess(clip[None].astype(jnp.float32) / 127.5 - 1, mean_clip)[0]

    return FeatureNetwork(
        C3D,
        c3d.fingerprint(params, mean_array),
        {"preprocessing": "TGANv2"},
        preprocess,
        lambda params, clips: c3d.C3D().apply({"params": params}, clips),
        params,
    )
