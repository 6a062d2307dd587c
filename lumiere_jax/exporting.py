"""From the workdirs of a cascade to a bundle."""

from collections.abc import Sequence
from pathlib import Path

from etils import epath

from lumiere_jax import bundle, checkpoint, loss_plot, model_card
from lumiere_jax.atomic import written
from lumiere_jax.errors import UserError
from lumiere_jax.stage import STAGES


def export(
    workdirs: Sequence[str],
    output: str | Path,
    dtype: str = "bfloat16",
    *,
    licence: str = "",
    evaluation: str | Path | None = None,
    plans: str | Path | None = None,
) -> str:
    """Writes a bundle of the newest checkpoint of each run, with a model card.

    A stage leaves out what it shares with the one that it was initialised from, if that is among
    them. A card that somebody has written stays.

    Args:
      workdirs: each "WORKDIR" or "NAME=WORKDIR"; without a name, that of its stage.
      output: folder of the bundle.
      dtype: of the weights, see `bundle.write`.
      licence: of the weights; an SPDX identifier or a sentence.
      evaluation: protocol card for the model card, see `model_card.read_evaluation`.
      plans: the same of plans, see `model_card.read_plans`.

    Returns:
      A table of what was written.

    Raises:
      UserError: if a workdir has no checkpoint, two have one name, a card or plan cannot be read,
        or `output` is no bundle.
    """
    scores = model_card.read_evaluation(evaluation) if evaluation else None
    planned = model_card.read_plans(plans) if plans else []
    stages, shares, losses = {}, {}, {}
    for given in workdirs:
        name, _, workdir = given.rpartition("=")
        config, params, step = checkpoint.load(workdir)
        name = name or config.stage
        if name in stages:
            raise UserError(f"two stages are called {name!r}; name one: --stage=NAME=WORKDIR.")
        if not name.isidentifier():
            raise UserError(f"--stage={given}: {name!r} is no name; use letters and digits.")
        config.init_from = ""  # a folder of this machine
        stages[name] = (config.to_dict(), params, step)
        losses[name] = epath.Path(workdir) / loss_plot.FILE
        if STAGES[config.stage]:
            shares[name] = STAGES[config.stage]
    bundle.write(stages, output, shares, dtype, licence)
    _write_losses(Path(output) / model_card.LOSSES, losses)
    model_card.write(Path(output), planned, scores)
    return describe(output)


def _write_losses(folder: Path, losses: dict[str, epath.Path]) -> None:
    """The loss curves of those runs that have one."""
    for name, source in losses.items():
        if source.is_file():
            folder.mkdir(exist_ok=True)
            with written(folder / f"{name}.png") as temporary:
                temporary.write_bytes(source.read_bytes())


def describe(output: str | Path) -> str:
    """A table of the stages of a bundle."""
    lines = [f"{'stage':<20} {'step':>8} {'parameters':>12} {'file, MB':>9}  leaves out"]
    for name, entry in bundle.entries(output).items():
        size = f"{entry['bytes'] / 1e6:9.1f}"
        shared = f"what {entry['shares']} has" if entry["shares"] else "nothing"
        step = "unknown" if entry["step"] is None else entry["step"]
        lines.append(f"{name:<20} {step:>8} {entry['parameters']:>12,} {size}  {shared}")
    return "\n".join(lines)
