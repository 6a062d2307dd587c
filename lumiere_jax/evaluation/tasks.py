"""What the eval binary generates before it scores."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from lumiere_jax.data.config import DataConfig
from lumiere_jax.data.sources import Source, create_source, spread
from lumiere_jax.data.video_io import write_lossless
from lumiere_jax.evaluation import ucf101
from lumiere_jax.evaluation.generation import Generator, Request
from lumiere_jax.runtime.distributed import is_primary, wait_for_all
from lumiere_jax.runtime.errors import UserError

UCF101 = "ucf101_zero_shot"
HELD_OUT = "held_out"


@dataclasses.dataclass(frozen=True)
class Made:
    """What a task made."""

    generated: tuple[Path, ...]  # a folder for each set
    real: Path | None  # a folder; None if the task knows of none
    model: dict[str, Any]  # what generated, for the card


class Task(Protocol):
    """Makes the videos of a protocol."""

    @property
    def name(self) -> str:
        """For the card."""

    @property
    def protocol(self) -> dict[str, Any]:
        """What the videos were asked for by, for the card."""

    def check(self) -> None:
        """Refuses what can be seen to be wrong before anything takes long."""

    def prepare(self, output: Path, poll: Callable[[], None]) -> Made:
        """Makes what is not in `output` yet; `poll` is called now and then, and may raise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ucf101ZeroShot:
    """Videos of UCF101's classes from a model that never saw them."""

    generator: Generator  # what makes them
    preset: str = "lumiere"  # a name of `ucf101.PRESETS`
    seed: int = 0  # of the first set
    repeats: int = 1  # how many sets, with seeds one after another
    max_per_class: int | None = None  # for a trial; None for what the preset says
    name: str = UCF101

    @property
    def protocol(self) -> dict[str, Any]:
        """See `Task`."""
        preset = ucf101.PRESETS[self.preset]
        shares = preset.counts if self.max_per_class is None else f"{self.max_per_class} a class"
        return {
            "preset": f"{self.preset} ({preset.source})",
            "prompts": preset.prompts,
            "videos_by_class": shares,
            "seeds": [self.seed + i for i in range(self.repeats)],
        }

    def check(self) -> None:
        """See `Task`."""
        self.generator.configs()

    def prepare(self, output: Path, poll: Callable[[], None]) -> Made:
        """See `Task`."""
        settings = {"preset": self.preset, "max_per_class": self.max_per_class}
        requests = {
            seed: ucf101.requests(self.preset, seed, self.max_per_class)
            for seed in range(self.seed, self.seed + self.repeats)
        }
        loaded = self.generator.load()
        return Made(loaded.generate(output, settings, requests, poll), None, loaded.model)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Videos of the captions of clips that the base stage's data source holds out.

    These are spread over the source, since the first ones of a folder may all be of one class.
    """

    generator: Generator  # what makes them
    num_videos: int  # how many of both, real and generated
    seed: int = 0  # of the first set
    repeats: int = 1  # how many sets
    name: str = HELD_OUT

    @property
    def protocol(self) -> dict[str, Any]:
        """See `Task`."""
        which = "captions of held-out clips, spread over them"
        return {"prompts": which, "split": "test", "seed": self.seed}

    def check(self) -> None:
        """See `Task`."""
        self.generator.configs()

    def prepare(self, output: Path, poll: Callable[[], None]) -> Made:
        """See `Task`."""
        data = self._data()
        source = create_source(data, "test")
        if len(source) < self.num_videos:
            raise UserError(
                f"--num_videos={self.num_videos}: the data source {data.name} holds out "
                f"{len(source)} clips only."
            )
        loaded = self.generator.load()
        captions = _write_real(output / "real", source, self.num_videos, data.fps, poll)
        settings = {"captions": "held out, spread", "num_videos": self.num_videos}
        requests = {
            seed: [
                Request(f"{i:06d}_{seed}", caption, (seed * 1_000_000 + i) % 2**32)
                for i, caption in enumerate(captions)
            ]
            for seed in range(self.seed, self.seed + self.repeats)
        }
        folders = loaded.generate(output, settings, requests, poll)
        return Made(folders, output / "real", loaded.model)

    def _data(self) -> DataConfig:
        """Of clips as they are generated: from the base's source, at the last stage's size."""
        options, configs = self.generator.options, self.generator.configs()
        base, *super_resolution = (DataConfig.from_config(config.data) for config in configs)
        sizes = [] if options.get("base_only") else [data.resolution for data in super_resolution]
        frames = options.get("num_frames")
        return dataclasses.replace(
            base,
            num_frames=base.num_frames if frames is None else frames,
            resolution=[base.resolution, *sizes][-1],
        )


def _write_real(
    folder: Path, source: Source, count: int, fps: float, poll: Callable[[], None]
) -> list[str]:
    """Writes held-out clips once each, and returns their captions."""
    captions = []
    if is_primary():
        folder.mkdir(parents=True, exist_ok=True)
    for number, index in enumerate(spread(source, count)):
        video, caption = source.example(index)
        path = folder / f"{number:06d}.mkv"
        if is_primary() and not path.is_file():
            write_lossless(path, video, fps)
        captions.append(caption)
        poll()
    wait_for_all("real videos")
    return captions
