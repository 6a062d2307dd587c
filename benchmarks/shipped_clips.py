"""The clips that the shipped pipeline made of held-out captions, once for all scores."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from flax.traverse_util import flatten_dict

from lumiere_jax.cascade.config import default_config
from lumiere_jax.checkpoints import bundle
from lumiere_jax.runtime.files import written

if TYPE_CHECKING:
    from lumiere_jax.inference.pipeline import LumierePipeline

BATCH, REFINED_BATCH = 32, 8
Cell = dict[str, dict[str, float | int | str]]


class Shipped:
    """The shipped pipeline, its sources, and the clips that it made of their captions.

    Attributes:
      weights: the bundle.
      pipeline: base and super-resolution.
      config: of the base.
    """

    def __init__(self, weights: Path, clips: Path):
        """Loads the weights.

        Args:
          weights: the bundle.
          clips: folder that keeps what is made.
        """
        from lumiere_jax.inference.pipeline import LumierePipeline

        base, ssr = identities(weights, ("stunet", "ssr")).values()
        self._sums = {"base": base[:12], "untrained": base[:12], "refined": ssr[:12]}
        self._clips, self.weights = clips / base[:12], weights
        self.pipeline = LumierePipeline.from_checkpoints(weights / "stunet", [weights / "ssr"])
        self.config = self.pipeline.base[0].config

    def held_out(self, name: str, count: int, first: int = 0) -> tuple[list[np.ndarray], list[str]]:
        """Clips of one source of the mixture that the weights learnt from, and their captions."""
        from lumiere_jax.data.sources import create_source

        max_objects = 2 if name == "moving_digits" else 1
        data = dataclasses.replace(self.config.data, name=name, max_objects=max_objects)
        source = create_source(data, "test")
        videos, captions = zip(*(source.example(first + i) for i in range(count)), strict=True)
        return list(videos), list(captions)

    def base(self, name: str, count: int) -> np.ndarray:
        """Clips of the first held-out captions of a source, `[count, time, h, w, 3]`."""
        captions = self.held_out(name, count)[1]
        return self._kept(
            "base", name, count,
            lambda n: self.pipeline(captions[n:], seeds=range(n, count), base_only=True,
                                    batch_size=BATCH),
        )  # fmt: skip

    def refined(self, name: str, count: int) -> np.ndarray:
        """The same clips after super-resolution."""
        captions = self.held_out(name, count)[1]
        return self._kept(
            "refined", name, count,
            lambda n: self.super_resolve(self.pipeline, self.base(name, count), captions, first=n),
        )  # fmt: skip

    @staticmethod
    def super_resolve(
        pipeline: "LumierePipeline", base: np.ndarray, captions: Sequence[str], first: int = 0
    ) -> np.ndarray:
        """Refines base clips from the first on, each with its number as seed."""
        made = []
        for begin in range(first, len(base), REFINED_BATCH):
            chosen = slice(begin, min(begin + REFINED_BATCH, len(base)))
            seeds = list(range(chosen.start, chosen.stop))
            made.append(np.asarray(pipeline.refine(base[chosen], captions[chosen], seeds)))
        return np.concatenate(made)

    def untrained(self, name: str, count: int) -> np.ndarray:
        """Clips by the same base network without training, without guidance."""
        import jax

        from lumiere_jax.inference.pipeline import LumierePipeline

        captions = self.held_out(name, count)[1]
        stage, _ = self.pipeline.base
        made = LumierePipeline((stage, jax.jit(stage.init_params)(jax.random.key(0))))
        return self._kept(
            "untrained", name, count,
            lambda n: made(captions[n:], seeds=range(n, count), guidance_scale=1.0,
                           batch_size=BATCH),
        )  # fmt: skip

    def _kept(
        self, kind: str, name: str, count: int, make: Callable[[int], np.ndarray]
    ) -> np.ndarray:
        """Clips from their file; `make` is given how many there are, and makes the others."""
        path = self._clips / f"{kind}_{self._sums[kind]}_{name}.npy"
        have = np.load(path) if path.is_file() else None
        number = 0 if have is None else len(have)
        if number < count:
            made = make(number)
            have = made if have is None else np.concatenate([have, made])
            path.parent.mkdir(parents=True, exist_ok=True)
            with written(path) as temporary:
                np.save(temporary, have)
        return have[:count]


def identities(weights: Path, stages: Sequence[str]) -> dict[str, str]:
    """What scores depend on: a checksum of each stage's weights, and of its config.

    Fields at their default are left out, so that one that is new to the code changes nothing, and
    so are those that only say how fast clips are read.
    """
    found = bundle.entries(weights)

    def identity(stage: dict[str, Any]) -> str:
        config, defaults = (
            flatten_dict(fields, sep=".")
            for fields in (stage["config"], default_config(stage["config"]["stage"]).to_dict())
        )
        chosen = {
            name: value
            for name, value in config.items()
            if defaults.get(name) != value and name != "data.num_threads"
        }
        text = stage["sha256"] + json.dumps(chosen, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    return {name: identity(found[name]) for name in stages}
