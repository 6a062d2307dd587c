"""Features of a set of videos, computed once, in blocks that a killed job finds again."""

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

from lumiere_jax.data import damaged
from lumiere_jax.data.pixels import Frames
from lumiere_jax.data.video_timing import VideoReadError
from lumiere_jax.evaluation.clips import ClipRule, VideoSet
from lumiere_jax.evaluation.networks import FeatureNetwork
from lumiere_jax.metrics.frechet import Moments
from lumiere_jax.runtime.distributed import is_primary, wait_for_all
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import written
from lumiere_jax.runtime.progress import Progress

BLOCK = 16
READER = 2  # raise it when videos are read otherwise, as those that are turned in key frames were
_DARK = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
    """Features of a set, in the order of its videos."""

    videos: VideoSet  # the set
    logits: Float32[np.ndarray, "video channel"]  # of each video
    sizes: tuple[str, ...]  # "HEIGHT×WIDTH" of the clips, each once, sorted
    darkest: int  # smallest value of any pixel
    brightest: int  # largest value of any pixel

    @property
    def moments(self) -> Moments:
        """Their moments."""
        return Moments.of(self.logits)

    @property
    def is_dark(self) -> bool:
        """Whether values in [0, 1] seem to have been written as bytes."""
        return self.brightest <= _DARK


def extract(
    videos: VideoSet,
    rule: ClipRule,
    network: FeatureNetwork,
    cache: Path,
    poll: Callable[[], None] = lambda: None,
) -> Features:
    """Computes what is not in the folder `cache` yet.

    With several processes, which share that folder, each computes a share of the blocks, and all of
    them get all. `poll` is called after every block, equally often on every process; it may raise.
    A video that cannot be read any more is a `UserError`.
    """
    folder = cache / _key(videos, rule, network)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"features cannot be written to {folder} ({error}).") from error
    count = -(-len(videos.names) // BLOCK)
    processes, process = jax.process_count(), jax.process_index()
    what = f"{network.name.split()[0]} of {videos.label} videos"
    progress = Progress(what, len(videos.names), "videos", quiet=not is_primary())
    with ThreadPoolExecutor(max_workers=2) as pool:
        for first in range(0, count, processes):
            block, path = first + process, folder / f"{first + process:06d}.npz"
            if block < count and _read(path) is None:
                names = videos.names[block * BLOCK : (block + 1) * BLOCK]
                arrays: dict[str, Any] = _compute(videos.folder, names, rule, network, pool)
                with written(path) as temporary, temporary.open("wb") as file:
                    np.savez(file, **arrays)
            progress.update(min((first + processes) * BLOCK, len(videos.names)))
            poll()
    wait_for_all(f"features {folder.name}")
    blocks = [_read(folder / f"{block:06d}.npz") for block in range(count)]
    read = [block for block in blocks if block is not None]
    if len(read) < count:
        raise UserError(f"{folder} lost blocks while it was read; start again.")
    return Features(
        videos=videos,
        logits=np.concatenate([block["logits"] for block in read]),
        sizes=tuple(sorted({str(size) for block in read for size in block["sizes"]})),
        darkest=min(int(block["darkest"]) for block in read),
        brightest=max(int(block["brightest"]) for block in read),
    )


def _key(videos: VideoSet, rule: ClipRule, network: FeatureNetwork) -> str:
    """A name for the features that changes with anything they depend on."""
    what = {
        "videos": videos.fingerprint,
        "rule": dataclasses.asdict(rule),
        "network": [network.name, network.fingerprint, network.options],
        "block": BLOCK,
        "reader": READER,
    }
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
    return f"{videos.label}_{digest[:16]}"


def _compute(
    folder: Path,
    names: Sequence[str],
    rule: ClipRule,
    network: FeatureNetwork,
    pool: ThreadPoolExecutor,
) -> dict[str, np.ndarray]:
    """Features of a block, a batch at a time; the next batch is decoded meanwhile."""

    def decode(name: str) -> Frames:
        try:
            with damaged.told(folder / name):
                return rule.read(folder / name, name)
        except VideoReadError as error:
            raise UserError(
                f"{error}; it was fine at the start: repair it, or remove it and start again."
            ) from error

    size = network.batch_size
    batches = [
        [pool.submit(decode, name) for name in names[start : start + size]]
        for start in range(0, len(names), size)
    ]
    logits, sizes, darkest, brightest = [], set[str](), 255, 0
    for batch in batches:
        clips = [future.result() for future in batch]
        batch.clear()
        logits.append(network(clips))
        sizes |= {f"{clip.shape[1]}×{clip.shape[2]}" for clip in clips}
        darkest = min(darkest, *(int(clip.min()) for clip in clips))
        brightest = max(brightest, *(int(clip.max()) for clip in clips))
    return {
        "logits": np.concatenate(logits),
        "sizes": np.array(sorted(sizes)),
        "darkest": np.array(darkest),
        "brightest": np.array(brightest),
    }


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """A block, or None if it is not there or damaged."""
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in ("logits", "sizes", "darkest", "brightest")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
