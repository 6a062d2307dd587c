"""Whether the input keeps up: clips a second, measured on the real source, and bytes to devices."""

import math
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax

from lumiere_jax import text
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.data.mixture import Mixture
from lumiere_jax.data.pipeline import enough_threads, train_batches
from lumiere_jax.data.source import Source, StoresText
from lumiere_jax.data.sources import hold_bytes
from lumiere_jax.planning import flops
from lumiere_jax.planning.check_up.finding import Finding, at_least
from lumiere_jax.planning.plan import Plan
from lumiere_jax.planning.report import amount
from lumiere_jax.runtime.devices import num_cores
from lumiere_jax.runtime.distributed import is_primary
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.progress import announced
from lumiere_jax.runtime.sharding import BATCH_AXES

SECONDS = 10.0
"""How long the input is measured; less if it has shown enough by then."""

_ENOUGH, _LEAST_SECONDS = 1024, 1.0  # clips after which it has, and not before
_BATCH_SECONDS = 0.25
_HEAVY = 1e9  # bytes a second to a device
_LARGE = 8e6  # bytes of clips to a device for a step
_HOST_CHIPS = 4  # of a host of a slice of many hosts


class Delivery(NamedTuple):
    """What one process's input delivered."""

    clips: int
    seconds: float
    threads: int  # that could read clips

    @property
    def rate(self) -> float:
        """Clips a second."""
        return self.clips / self.seconds


def measure(stage: Stage, source: Source) -> Delivery:
    """Takes batches as training does, as fast as they come, and says how far it is.

    Of text encoders, only what runs in the input's threads is run. The first batches are not
    counted: they wait for all that starts.
    """
    data = stage.config.data
    threads = data.num_threads or enough_threads(source)
    share = stage.config.train.batch_size // jax.process_count()
    batch_size = max(1, min(share, max(threads, _clips_in(source, _BATCH_SECONDS))))
    batches = train_batches(
        source,
        _encoder(stage, source),
        batch_size=batch_size,
        seed=stage.config.seed,
        allow_small=True,
        num_threads=data.num_threads,
        flip=data.flip,
        crop=stage.crop,
        draw_mask=stage.draw_mask,
    )
    with announced(f"measuring the input, for {SECONDS:g} s at most", quiet=not is_primary()):
        for _ in range(1 + threads // batch_size):
            next(batches)
        clips, begin, taken = 0, time.monotonic(), 0.0
        while taken < SECONDS and (clips < _ENOUGH or taken < _LEAST_SECONDS):
            next(batches)
            clips, taken = clips + batch_size, time.monotonic() - begin
    return Delivery(clips, taken, threads)


def _clips_in(source: Source, seconds: float) -> int:
    """How many clips one thread makes in some seconds, by one of them."""
    begin = time.monotonic()
    source.example(0)
    return int(seconds / max(time.monotonic() - begin, 1e-6))


def _encoder(stage: Stage, source: Source) -> text.TextEncoder:
    """The part that runs in the input's threads; one of shapes where its folder is not here."""
    try:
        encoder = text.host_part(text.create(stage.config.text))
        encoder([""])  # reads the folder
        return encoder
    except UserError:
        return _Unread(stage.text_encoder, source)


class _Unread(text.ShapesOnly):
    """Stands in for an encoder, and has the name of what the source stores."""

    def __init__(self, encoder: text.TextEncoder, source: Source):
        super().__init__(encoder.dim, encoder.max_length)
        parts = source.sources if isinstance(source, Mixture) else (source,)
        names = [part.text_fingerprint for part in parts if isinstance(part, StoresText)]
        self.fingerprint = next(filter(None, names), "none")


def rate(delivery: Delivery | None, plan: Plan) -> Iterator[Finding]:
    """What a host's input delivers beside what its chips take, as far as they are known."""
    needed = plan.batch / plan.seconds / jax.process_count() if plan.seconds else None
    if delivery is not None:
        yield _delivered(delivery, needed)
    elif needed is not None:
        a_host = needed * min(1.0, _HOST_CHIPS / plan.chips)
        yield Finding(
            "clips a second",
            f"{amount(needed)} are needed, {amount(a_host)} for a host of {_HOST_CHIPS} chips",
            "-",
            "--dry_run of lumiere_jax.main measures what the input delivers, where the data is",
        )


def _delivered(delivery: Delivery, needed: float | None) -> Finding:
    name, has = "clips a second", delivery.rate
    told = f"{amount(has)} from this host by {delivery.threads} thread(s)"
    told += f", measured for {delivery.seconds:.1f} s"
    if needed is None:
        known = "what the chips take is known on a TPU, and by lumiere_jax.plan"
        return Finding(name, told, "-", known)
    told = f"{amount(needed)} are needed for the chips of a host; {told}"
    help_ = "prepare the clips (python -m lumiere_jax.prepare_data), or take more hosts"
    if delivery.threads < num_cores():
        help_ = f"--config.data.num_threads=0 for one on each of {num_cores()} cores; {help_}"
    waiting = f"the chips would wait for {max(0.0, 1 - has / needed):.0%} of the time: {help_}"
    return Finding(name, told, at_least(has / needed, 1.3, 1.0), waiting)


def bytes_to_devices(stage: Stage, plan: Plan) -> Iterator[Finding]:
    """Bytes of a batch that each device is sent for a step."""
    parts = math.prod(plan.mesh[axis] for axis in BATCH_AXES)
    shapes = flops.batch_shapes(stage, stage.config.train.batch_size)
    sizes = {k: math.prod(x.shape) * x.dtype.itemsize / parts for k, x in shapes.items()}
    as_bytes = hold_bytes(stage.config.data)
    total, video, share = sum(sizes.values()), sizes["video"], _share_of_clip(stage)
    told = f"{total / 1e6:.3g} MB a step, {video / 1e6:.3g} of them clips as "
    told += "bytes" if as_bytes else "float32"
    if stage.is_super_resolution:
        told += f"; {share:.3g} of each clip, cut on the host" if share < 1 else "; whole clips"
    is_heavy = plan.seconds is not None and total / plan.seconds > _HEAVY
    is_whole = stage.is_super_resolution and share == 1 or not as_bytes
    yield Finding(
        "bytes to a device",
        told,
        "look" if is_heavy or (is_whole and video > _LARGE) else "ok",
        "clips on their way take the time of steps: --config.ssr.crop=256 cuts a part of each, and "
        "sources that hold bytes send a quarter",
    )


def _share_of_clip(stage: Stage) -> float:
    frames, side, *_ = stage.clip_shape()
    data = stage.config.data
    return frames * side**2 / (data.num_frames * data.resolution**2)
