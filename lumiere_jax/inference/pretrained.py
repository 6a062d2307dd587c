"""How a pipeline is loaded and saved: from training runs, bundles and model hubs."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

from lumiere_jax import text
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.checkpoints import bundle, checkpoint, hub, model_card, selection
from lumiere_jax.inference import autoguidance
from lumiere_jax.models.parameters import Params


class Pretrained:
    """The part of `LumierePipeline` that knows files; see there for `base`."""

    base: tuple[Stage, Params]
    super_resolution: list[tuple[Stage, Params]]

    @classmethod
    def from_checkpoints(
        cls,
        base: str | Path,
        ssr: Sequence[str | Path] = (),
        *,
        guide: str | Path | None = None,
        text_folder: str | Path | None = None,
        **options: Any,
    ) -> Self:
        """Loads a checkpoint of each stage.

        Args:
          base: workdir of the base stage, or what else `checkpoint.load` takes.
          ssr: workdirs of super-resolution stages, in order.
          guide: workdir of a weaker base of the same kind, which guides it, see
            `autoguidance.load`; None for guidance by the prediction without the prompt.
          text_folder: where the text encoder's weights are on this machine; None for where they
            were in training.
          **options: of `LumierePipeline`, such as `show_progress`.

        Raises:
          UserError: if a workdir has no readable checkpoint, or one of the wrong stage.
        """

        def load(workdir: str | Path) -> tuple[Stage, Params]:
            config, params, _ = checkpoint.load(workdir)
            text.move_folder(config.text, text_folder, workdir)
            return Stage.from_config(config), params

        make: Callable[..., Self] = cls
        stages = load(base), [load(path) for path in ssr]
        if guide is not None:
            options["guide"] = autoguidance.load(guide, stages[0][0].config)[0]
        return make(*stages, **options)

    @classmethod
    def from_pretrained(
        cls,
        place: str | Path,
        *,
        base: str | None = None,
        distilled: bool = False,
        text_folder: str | Path | None = None,
        revision: str | None = None,
        token: str | None = None,
        **options: Any,
    ) -> Self:
        """Loads a bundle, on whatever devices there are.

        Args:
          place: its folder, or "OWNER/NAME" of a model hub.
          base: name or kind of its base stage, see `selection.choose`; "stunet_conditional" is the
            one to animate, inpaint and extend videos.
          distilled: whether to take stages of few steps, where the bundle has them.
          text_folder: see `from_checkpoints`.
          revision: of the hub's repository.
          token: of the hub.
          **options: of `from_checkpoints` and `LumierePipeline`.

        Raises:
          UserError: if a file is missing, truncated or altered, the bundle of another version, or
            without such a base.
        """
        folder = hub.find(place, revision=revision, token=token)
        first, others = selection.choose(folder, base, distilled=distilled)
        return cls.from_checkpoints(first, others, text_folder=text_folder, **options)

    def save_pretrained(
        self, folder: str | Path, *, dtype: str = "bfloat16", license: str = ""
    ) -> Path:
        """Writes its stages as a bundle, a style as it is mixed in, and returns the folder.

        What guides the base is not among them.

        The folder is made, or is of a bundle that is replaced. For `dtype` and `license`, of the
        weights, see `bundle.write`.

        Raises:
          UserError: if `folder` is something else, see `bundle.check_output`.
        """
        stages = {}
        for number, (stage, params) in enumerate([self.base, *self.super_resolution]):
            name = stage.name if number < 2 else f"{stage.name}_{number}"
            stages[name] = (stage.config.to_dict(), params, None)

        def finish(written: Path) -> None:
            model_card.write(written, name=Path(folder).resolve().name)

        bundle.write(stages, folder, {}, dtype, license, finish)
        return Path(folder).expanduser()

    def push_to_hub(
        self,
        repository: str,
        *,
        dtype: str = "bfloat16",
        license: str = "",
        private: bool = True,
        token: str | None = None,
    ) -> str:
        """Uploads its stages as a bundle to a model hub, and returns the commit's address.

        What a pipeline does not know is left out: steps of training, and the card's plots and
        scores. To upload a bundle as it is, call `hub.push`. `UserError` if it cannot be sent.
        """
        hub.check_repository(repository)
        with tempfile.TemporaryDirectory() as temporary:
            name = repository.rpartition("/")[2]
            folder = self.save_pretrained(Path(temporary) / name, dtype=dtype, license=license)
            return hub.push(folder, repository, private=private, token=token)
