"""What the weights of a bundle can do: read from its manifest, without loading any of them."""

import dataclasses
from pathlib import Path
from typing import Any

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.cascade.sampling_options import SamplingOptions
from lumiere_jax.cascade.stage import IMAGE_STAGES, check_config
from lumiere_jax.checkpoints import bundle, selection
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.serving.tasks import TASKS, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A cascade of a bundle.

    Attributes:
      config: of its base.
      refining: configs of its super-resolution stages.
    """

    config: ConfigDict
    refining: tuple[ConfigDict, ...]

    @property
    def fps(self) -> float:
        """Frames per second of its videos."""
        return self.config.data.fps

    @property
    def frames(self) -> int:
        """Frames of the clips that it was trained on."""
        return self.config.data.num_frames

    @property
    def multiple(self) -> int:
        """A shorter clip has a multiple of so many frames."""
        if self.config.stage in IMAGE_STAGES:
            return 1
        return 2 ** (len(self.config.model.widths) - 1)

    @property
    def sizes(self) -> list[int]:
        """Height and width of its videos, of the base and after each super-resolution stage."""
        sizes = [self.config.data.resolution]
        for config in self.refining:
            sizes.append(sizes[-1] * config.ssr.factor)
        return sizes

    @property
    def samplers(self) -> list[str]:
        """Names of the samplers that all its stages have."""
        learned = [
            config.diffusion.get("learned_variance", False)
            for config in (self.config, *self.refining)
        ]
        names = ["ddim", "ancestral", "dpmpp_2m"]
        return [*names, "ddpm"] if all(learned) else names

    @property
    def defaults(self) -> SamplingOptions:
        """How the base samples if nothing else is asked for."""
        return SamplingOptions.from_config(self.config)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Models:
    """All that a bundle has.

    Attributes:
      by_base: kind of the base -> the cascade.
      styles: names of its stages of the kind "style".
      license: of the weights.
    """

    by_base: dict[str, Model]
    styles: tuple[str, ...]
    license: str

    @property
    def tasks(self) -> dict[str, Task]:
        """What can be asked for."""
        return {
            name: task
            for name, task in TASKS.items()
            if task.base in self.by_base and ("style" not in task.options or self.styles)
        }

    def of(self, task: Task) -> Model:
        """The cascade that a task takes."""
        return self.by_base[task.base]

    @classmethod
    def read(cls, folder: Path, *, distilled: bool = False) -> "Models":
        """Looks into a bundle.

        Raises:
          UserError: if it cannot be read, or has no base that makes videos.
        """
        kinds = {name: entry["config"]["stage"] for name, entry in bundle.entries(folder).items()}
        found = {}
        for kind in ("stunet", "stunet_conditional"):
            if kind in kinds.values():
                base, others = selection.choose(folder, kind, distilled=distilled)
                found[kind] = Model(
                    config=_config(base), refining=tuple(_config(path) for path in others)
                )
        if not found:
            raise UserError(
                f"{folder} has no stage that makes videos, only {', '.join(kinds)}; export it "
                "again with a run of the stage 'stunet' or 'stunet_conditional'."
            )
        styles = tuple(sorted(name for name, kind in kinds.items() if kind == "style"))
        return cls(by_base=found, styles=styles, license=bundle.license(folder))


def _config(folder: Path) -> ConfigDict:
    config: Any = ConfigDict(bundle.read_config(folder))
    check_config(config)
    return config
