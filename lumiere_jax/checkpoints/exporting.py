"""From the workdirs of a cascade to a bundle."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from etils import epath

from lumiere_jax.cascade.stage import STAGES
from lumiere_jax.checkpoints import averages, bundle, checkpoint, loss_plot, model_card
from lumiere_jax.models.parameters import merge
from lumiere_jax.runtime.errors import UserError

_LONGEST = 100


def export(
    workdirs: Sequence[str],
    output: str | Path,
    dtype: str = "bfloat16",
    *,
    license: str = "",
    evaluation: str = "",
    plans: Sequence[str] = (),
    ema_width: float | None = None,
) -> str:
    """Writes a bundle of a checkpoint of each run, with a model card.

    A stage leaves out what it shares with the one that it was initialized from, if that is among
    them. A stage of a bundle brings its loss curve and license along, and its weights bit for bit
    if the dtype is the same. A card that somebody has written stays.

    Args:
      workdirs: each "WORKDIR" or "NAME=WORKDIR"; without a name, that of its stage. A workdir
        stands for its newest checkpoint; see `checkpoint.load` for others.
      output: folder of the bundle.
      dtype: of the weights, see `bundle.write`.
      license: see `bundle.write`; "": that of the bundles that stages come from or that is
        replaced.
      evaluation: protocol card for the model card, as text, see `evaluation.card.read`.
      ema_width: of the average of each run's parameters, see `averages.load`; None for the EMA of
        `optimizer.ema_decay`. Stages of a bundle stay as they are.
      plans: what the TPU compiler said of the stages, see `planning.report.read`.

    Returns:
      A table of what was written, and what the former card had that the new one has not.

    Raises:
      UserError: if a workdir has no checkpoint, two have one name, bundles have several
        licenses, or `output` is of something else (`bundle.check_output`).
    """
    places = dict(_named(given) for given in workdirs)
    if len(places) < len(workdirs):
        raise UserError("two stages have one name; name one of them: --stage=NAME=WORKDIR.")
    bundle.check_output(output, places, dtype)
    license = license or _inherited_license(places.values(), Path(output).expanduser())
    model_card.check_license(license)
    stages, kinds, stored = {}, {}, {}
    for name, workdir in places.items():
        config, params, step = checkpoint.load(workdir)
        if ema_width is not None and not bundle.is_stage(workdir):
            chosen, step = averages.load(workdir, ema_width)
            params = merge(chosen, params)
        stages[name], kinds[name] = (config.to_dict(), params, step), config.stage
        if bundle.is_stage(workdir) and bundle.dtype(Path(workdir).resolve().parent) == dtype:
            stored[name] = bundle.stored_arrays(workdir)
    shares = {name: _before(name, kinds) for name in stages}
    lost: list[str] = []

    def finish(folder: Path) -> None:
        _write_losses(folder / model_card.LOSSES, places)
        lost[:] = model_card.write(folder, plans, evaluation, name=Path(output).resolve().name)

    bundle.write(stages, output, shares, dtype, license, finish, stored)
    missing = f"\nno longer in the card: {' and '.join(lost)}; give it again" if lost else ""
    return describe(output) + missing


def _inherited_license(places: Iterable[str], output: Path) -> str:
    """The license of the bundles that the stages come from or that is replaced; "" for none."""
    bundles = {Path(place).resolve().parent for place in places if bundle.is_stage(place)}
    if (output / bundle.MANIFEST).is_file():
        bundles.add(output.resolve())
    found = {bundle.license(folder) for folder in bundles} - {""}
    if len(found) > 1:
        raise UserError(
            f"these stages are under several licenses ({'; '.join(sorted(found))}); say by "
            "--license what holds for all of them."
        )
    return found.pop() if found else ""


def _named(given: str) -> tuple[str, str]:
    """Name and workdir of a stage, from "WORKDIR" or "NAME=WORKDIR"."""
    given = os.path.expanduser(given)
    name, equals, workdir = given.partition("=")
    if equals and not _exists(given):  # a folder's name may hold "="
        if not name.isidentifier() or len(name) > _LONGEST or name == model_card.LOSSES:
            raise UserError(
                f"--stage={given:.200}: {name[:_LONGEST]!r} is not a name for a stage; use at most "
                f"{_LONGEST} letters and digits, but not {model_card.LOSSES!r}."
            )
        return name, os.path.expanduser(workdir)
    return checkpoint.load_config(given).stage, given


def _exists(given: str) -> bool:
    try:
        return epath.Path(given).exists()
    except OSError:  # too long for a path
        return False


def _before(name: str, kinds: Mapping[str, str]) -> str | None:
    """The stage of a bundle that another one was most likely initialized from."""
    kind = STAGES[kinds[name]]
    found = [other for other in kinds if kinds[other] == kind]
    return kind if kind in found else next(iter(found), None)


def _write_losses(folder: Path, places: Mapping[str, str]) -> None:
    """Copies the loss curves of the runs and stages that have one, and removes stale ones."""
    if folder.exists() and not folder.is_dir():
        raise UserError(
            f"the bundle's {folder.name!r} is not a folder of loss curves; move it away."
        )
    for name, workdir in places.items():
        source, place = checkpoint.run_of(workdir)[0] / loss_plot.FILE, folder / f"{name}.png"
        if bundle.is_stage(workdir):
            stage = Path(workdir).resolve()
            source = stage.parent / model_card.LOSSES / f"{stage.name}.png"
        place.unlink(missing_ok=True)
        if source.is_file():
            folder.mkdir(exist_ok=True)
            place.write_bytes(source.read_bytes())


def describe(output: str | Path) -> str:
    """A table of the stages of a bundle."""
    lines = [f"{'stage':<20} {'step':>8} {'parameters':>12} {'file, MB':>9}  leaves out"]
    for name, entry in bundle.entries(output).items():
        size = f"{entry['bytes'] / 1e6:9.1f}"
        shared = f"what {entry['shares']} has" if entry["shares"] else "nothing"
        step = "unknown" if entry["step"] is None else entry["step"]
        lines.append(f"{name:<20} {step:>8} {entry['parameters']:>12,} {size}  {shared}")
    return "\n".join(lines)
