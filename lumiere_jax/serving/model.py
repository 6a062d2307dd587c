"""What the weights of a bundle can do, read from its manifest without loading them."""

import dataclasses
import itertools
from pathlib import Path

from lumiere_jax.cascade.config import StageConfig
from lumiere_jax.checkpoints import bundle, selection
from lumiere_jax.inference.tasks import TASKS, Task
from lumiere_jax.runtime.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A cascade of a bundle: the configs of its base and of its super-resolution stages."""

    config: StageConfig
    refining: tuple[StageConfig, ...]

    @property
    def fps(self) -> float:
        """Frames per second of its videos."""
        return self.config.data.fps

    @property
    def frames(self) -> int:
        """Frames of a clip in training."""
        return self.config.data.num_frames

    @property
    def sizes(self) -> list[int]:
        """Height and width of the videos of the base, and after each super-resolution stage."""
        factors = [config.ssr.factor if config.ssr else 1 for config in self.refining]
        return list(itertools.accumulate(factors, int.__mul__, initial=self.config.data.resolution))

    @property
    def samplers(self) -> list[str]:
        """Names of the samplers that all its stages can use."""
        learned = [config.diffusion.learned_variance for config in (self.config, *self.refining)]
        names = ["ddim", "ancestral", "dpmpp_2m"]
        return [*names, "ddpm"] if all(learned) else names


@dataclasses.dataclass(frozen=True, kw_only=True)
class Models:
    """The cascades of a bundle by the kind of their base, its styles, and its license."""

    by_base: dict[str, Model]
    styles: tuple[str, ...]
    license: str

    @property
    def tasks(self) -> dict[str, Task]:
        """The tasks that it can do."""
        return {
            name: task
            for name, task in TASKS.items()
            if task.base in self.by_base and ("style" not in task.options or self.styles)
        }

    @classmethod
    def read(cls, folder: Path, *, distilled: bool = False) -> "Models":
        """Reads the manifest of a bundle."""
        kinds = {name: entry["config"]["stage"] for name, entry in bundle.entries(folder).items()}
        found = {}
        for kind in ("stunet", "stunet_conditional"):
            if kind in kinds.values():
                base, others = selection.choose(folder, kind, distilled=distilled)
                config, *refining = (
                    StageConfig.parse(bundle.read_config(path)) for path in (base, *others)
                )
                found[kind] = Model(config=config, refining=tuple(refining))
        if not found:
            raise UserError(
                f"{folder} has no stage that makes videos, only {', '.join(kinds)}; export it "
                "again with a run of the stage 'stunet' or 'stunet_conditional'."
            )
        styles = tuple(sorted(name for name, kind in kinds.items() if kind == "style"))
        return cls(by_base=found, styles=styles, license=bundle.license(folder))
