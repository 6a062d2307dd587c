"""What the eval binary generates before it scores."""

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from etils import epath

from lumiere_jax.checkpoints import bundle
from lumiere_jax.data.config import DataConfig
from lumiere_jax.data.mixture import places_of
from lumiere_jax.data.sources import Source, create_source, is_folder, not_held_out, spread
from lumiere_jax.data.video_io import write_lossless
from lumiere_jax.evaluation import ucf101
from lumiere_jax.evaluation.clips import ClipRule
from lumiere_jax.evaluation.generation import Generator, Request, agree_on_settings
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

    @property
    def warnings(self) -> list[str]:
        """What makes figures of these videos doubtful."""

    def check(self, rule: ClipRule) -> None:
        """Refuses what can be seen to be wrong before anything takes long.

        `rule` says which clip of each video is scored.
        """

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

    @property
    def warnings(self) -> list[str]:
        """See `Task`."""
        return []

    def check(self, rule: ClipRule) -> None:
        """See `Task`."""
        self.generator.check(rule)

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
    data_folder: epath.Path | None = None  # of the clips; None: where they were in training
    seed: int = 0  # of the first set
    repeats: int = 1  # how many sets
    name: str = HELD_OUT

    @property
    def protocol(self) -> dict[str, Any]:
        """See `Task`."""
        leaked = not_held_out(self._source)
        split = f"trained on ({', '.join(leaked)})" if leaked else "test"
        prompts = "captions of held-out clips, spread over them"
        seeds = [self.seed + i for i in range(self.repeats)]
        return {"prompts": prompts, "split": split, "seeds": seeds}

    @property
    def warnings(self) -> list[str]:
        """See `Task`."""
        return [
            f"{name} holds no clips out: videos are compared with clips that were trained on"
            for name in not_held_out(self._source)
        ]

    def check(self, rule: ClipRule) -> None:
        """See `Task`."""
        self.generator.check(rule)
        if len(self._source) < self.num_videos:
            raise UserError(
                f"--num_videos={self.num_videos}: the data source {self._data.name} holds out "
                f"{len(self._source)} clips only."
            )

    def prepare(self, output: Path, poll: Callable[[], None]) -> Made:
        """See `Task`."""
        loaded, data, source = self.generator.load(), self._data, self._source
        asked = {"source": source.fingerprint, "num_videos": self.num_videos}
        pixels = {"frames": data.num_frames, "resolution": data.resolution, "fps": data.fps}
        agree_on_settings(output / "real", asked | pixels)
        captions = _write_real(output / "real", source, self.num_videos, data.fps, poll)
        settings = {"captions": "held out, spread"} | asked
        requests = {
            seed: [
                Request(f"{i:06d}_{seed}", caption, (seed * 1_000_000 + i) % 2**32)
                for i, caption in enumerate(captions)
            ]
            for seed in range(self.seed, self.seed + self.repeats)
        }
        folders = loaded.generate(output, settings, requests, poll)
        return Made(folders, output / "real", loaded.model)

    @functools.cached_property
    def _source(self) -> Source:
        return create_source(self._data, "test")

    @functools.cached_property
    def _data(self) -> DataConfig:
        """Of clips as they are generated: the base's, at the size that the last stage makes."""
        options, configs = self.generator.options, self.generator.configs()
        base, *super_resolution = configs if not options.get("base_only") else configs[:1]
        data, frames = DataConfig.from_config(base.data), options.get("num_frames")
        size = data.resolution * math.prod(config.ssr.factor for config in super_resolution)
        if super_resolution and data.name == "prepared":  # stored at one size
            last = DataConfig.from_config(super_resolution[-1].data)
            if (last.name, last.resolution) == (data.name, size):
                data = dataclasses.replace(data, folder=last.folder)
        return dataclasses.replace(
            self._moved(data),
            num_frames=data.num_frames if frames is None else frames,
            resolution=size,
        )

    def _moved(self, data: DataConfig) -> DataConfig:
        """The same with its folder, or those of a mixture's sources, in `data_folder`."""
        base, folder, is_mixture = self.generator.base, self.data_folder, data.name == "mixture"
        entries = data.mixture if is_mixture else [{"name": data.name, "folder": data.folder}]
        of_folders = [entry for entry in entries if is_folder(entry["name"])]
        places = places_of(of_folders) if is_mixture else []
        inside = f", the one that holds {', '.join(dict.fromkeys(places))}" * any(places)
        if folder is None:
            is_told = all(entry.get("folder") or data.folder for entry in of_folders)
            if is_told and not (of_folders and bundle.is_stage(base)):
                return data
            raise UserError(
                f"{base} does not say where its clips are, as a bundle never does: give "
                f"--data_folder=FOLDER{inside}."
            )
        if not of_folders:
            names = ", ".join(entry["name"] for entry in entries)
            raise UserError(
                f"--data_folder={folder}: the clips of {base} are drawn ({names}), and come from "
                "no folder; leave the flag out."
            )
        here = folder.expanduser()
        if len(set(places)) == 1 and not (here / places[0]).is_dir():  # the one folder itself
            places = [""] * len(places)
        if missing := [place for place in places if place and not (here / place).is_dir()]:
            raise UserError(f"--data_folder={folder} holds no {missing[0]}; give FOLDER{inside}.")
        moved = iter(places)
        mixture = tuple(
            {**entry, "folder": next(moved)} if is_folder(entry["name"]) else entry
            for entry in data.mixture
        )
        return dataclasses.replace(data, folder=str(folder), mixture=mixture if is_mixture else ())


def _write_real(
    folder: Path, source: Source, count: int, fps: float, poll: Callable[[], None]
) -> list[str]:
    """Writes held-out clips once each, and returns their captions."""
    captions = []
    for number, index in enumerate(spread(source, count)):
        video, caption = source.example(index)
        path = folder / f"{number:06d}.mkv"
        if is_primary() and not path.is_file():
            write_lossless(path, video, fps)
        captions.append(caption)
        poll()
    wait_for_all("real videos")
    return captions
