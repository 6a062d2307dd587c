"""A thin layer over Orbax: what is in a checkpoint, where it is, and how it is read.

`WORKDIR/checkpoints/STEP` holds the items `trainable`, `frozen` (where there are any), `ema`,
`optimizer`, `teacher` (of a run that distils), `powers` (of one with `train.ema_snapshots`) and
`config` (the run's whole config as JSON), so that a checkpoint says by itself what network it is
of. Nothing in it is specific to Linen: parameters are nested dicts. `WORKDIR/ema_snapshots/STEP`
holds the averages of `powers` alone, and all of these stay.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax.traverse_util import flatten_dict
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from lumiere_jax.cascade.config import ConfigDict, with_defaults
from lumiere_jax.cascade.state import TrainState
from lumiere_jax.checkpoints import bundle
from lumiere_jax.models.parameters import Params, merge
from lumiere_jax.runtime import distributed
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.sharding import state_shardings, with_shardings

FOLDER, SNAPSHOTS = "checkpoints", "ema_snapshots"
INHERITED_FIELDS = (
    "text.", "diffusion.prediction", "diffusion.schedule", "diffusion.learned_variance",
    "ssr.factor", "ssr.noise_on", "ssr.upsampling",
)  # fmt: skip
"""What a stage must have in common with the one that it is initialized from, beside its sizes."""

_RESUMED_FIELDS = (
    *INHERITED_FIELDS, "model.", "optimizer.name", "train.trainable", "train.ema_snapshots",
    "distillation.", "style.",
)  # fmt: skip
_OPTIONAL_ITEMS = ("frozen", "teacher", "powers")
# How and where to compute, not what; `text.weights` says what is in the folder.
_FREE_FIELDS = ("model.dtype", "model.remat", "text.dtype", "text.folder")


class DamagedCheckpointError(UserError):
    """A checkpoint that cannot be read."""


class _Manager(ocp.CheckpointManager):
    """Leaves it to the training loop to ask for preemption, which must be done in one place."""

    def reached_preemption(self, step: int) -> bool:
        """Says no: Orbax's question would reset the point that the loop's polls agree on."""
        return False


class _MeasuredManager(_Manager):
    """Knows held-out losses from the run's metrics file.

    Orbax itself would not know those of an earlier process, and so drop the best checkpoint of a
    run that is resumed.
    """

    def metrics(self, step: int) -> dict[str, float] | None:
        """The held-out loss at a step, by which the best ones are kept; None if there is none."""
        from lumiere_jax.runtime import metric_writer  # here, because it takes seconds

        lines = [line for line in metric_writer.read(self.directory.parent) if line["step"] == step]
        losses = [line["eval_loss"] for line in lines if line.get("eval_loss") is not None]
        return {"eval_loss": losses[-1]} if losses else None


def run_of(place: str | Path) -> tuple[epath.Path, int | None]:
    """The workdir of a run, from itself or from `WORKDIR/checkpoints/STEP`, and that step."""
    path = _absolute(place)
    spelled = [path] if "://" in str(place) else [path, epath.Path(os.path.realpath(path))]
    for found in spelled:  # any of the folders may be a link
        names_step = found.parent.name == FOLDER and found.name.isdecimal()
        if names_step and not (found / FOLDER).is_dir():
            return found.parent.parent, int(found.name)
    return path, None


def _absolute(place: str | Path) -> epath.Path:
    path = epath.Path(place).expanduser()
    return path if "://" in str(place) else epath.Path(os.path.abspath(path))


class Checkpointer:
    """Saves and restores the training state of one workdir.

    Keeps the newest checkpoints and those with the least held-out loss. Saves are
    asynchronous; only checkpoints that were written completely are ever seen.
    """

    def __init__(
        self, workdir: str | Path, *, keep_last: int, keep_best: int, keep_snapshots: bool = False
    ):
        """Opens the folder of checkpoints; `keep_best` are kept beside the `keep_last` newest.

        `keep_snapshots` makes one for snapshots of averages, too.
        """
        run = _absolute(workdir)
        if (run / "config" / "metadata").exists():
            raise UserError(
                f"--workdir={workdir} is a checkpoint; give it as --config.init_from to start from "
                "it in another --workdir, or the workdir that it is in to go on from the newest."
            )
        policies = [ocp.checkpoint_managers.LatestN(keep_last)]
        if keep_best:
            # Orbax keeps the last n in the order of the metric: reversed, the lowest.
            best = ocp.checkpoint_managers.BestN(
                get_metric_fn=lambda metrics: metrics["eval_loss"],
                reverse=True,
                n=keep_best,
                keep_checkpoints_without_metrics=False,
            )
            policies.append(best)
        self._manager = _MeasuredManager(
            run / FOLDER,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(policies)
            ),
        )
        # Processes wait for each other by step, and both may write the same one at a time.
        own = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=SNAPSHOTS)
        options = ocp.CheckpointManagerOptions(multiprocessing_options=own)
        self._snapshots = _Manager(run / SNAPSHOTS, options=options) if keep_snapshots else None

    def latest_step(self) -> int | None:
        """The newest complete checkpoint's step, or None."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, ascending."""
        return sorted(self._manager.all_steps())

    def say_best(self) -> None:
        """Says which checkpoint has the least held-out loss, if that is not the last one."""
        metrics = {step: self._manager.metrics(step) for step in self.steps()}
        losses = {step: found["eval_loss"] for step, found in metrics.items() if found}
        best, last = min(losses, key=losses.__getitem__, default=None), self.latest_step()
        if best != last and best is not None:
            at_last = f" ({losses[last]:.4g} at step {last})" if last in losses else ""
            distributed.say(
                f"the least held-out loss, {losses[best]:.4g}{at_last}, is at step {best}; to use "
                f"that, give {self._manager.directory / str(best)} in place of the workdir, which "
                f"stands for step {last}"
            )

    def save(self, state: TrainState, config: ConfigDict, eval_loss: float | None = None) -> None:
        """Starts to save `state` under its step; a step that exists is left as it is."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        items: dict[str, Any] = {
            "trainable": ocp.args.StandardSave(state.trainable),
            "ema": ocp.args.StandardSave(state.ema),
            "optimizer": ocp.args.StandardSave(state.optimizer),
            "config": ocp.args.JsonSave(config.to_dict()),
        }
        for name in _OPTIONAL_ITEMS:
            if getattr(state, name):
                items[name] = ocp.args.StandardSave(getattr(state, name))
        metrics = None if eval_loss is None else {"eval_loss": eval_loss}
        self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)

    def save_snapshot(self, state: TrainState) -> None:
        """Starts to save the averages alone; a step that exists is left as it is."""
        step = int(state.step)
        if self._snapshots and step not in self._snapshots.all_steps():
            items = {name: ocp.args.StandardSave(tree) for name, tree in state.powers.items()}
            self._snapshots.save(step, args=ocp.args.Composite(**items))

    def forget_snapshots_after(self, step: int) -> None:
        """Deletes later snapshots: the run went on from `step` before, and may go on otherwise."""
        steps = self._snapshots.all_steps() if self._snapshots else []
        later = [one for one in steps if one > step]
        if later:
            distributed.say(f"deleting {len(later)} snapshots of averages from after step {step}")
        for one in later:
            assert self._snapshots is not None
            self._snapshots.delete(one)

    def restore(self, state: TrainState, config: ConfigDict) -> TrainState:
        """Reads the newest checkpoint that is not damaged, onto any mesh and number of hosts.

        Damaged checkpoints are reported and, once one before them was read, set aside in
        `WORKDIR/damaged_checkpoints`; where none can be read, all stay where they are. `state` are
        the shapes to restore into, each with the sharding it is to have. A checkpoint of another
        stage or network than the run's, or one that started from other parameters, is a
        `UserError`; what else differs from its config is said. Where `init_from` cannot be read any
        more, `config` gets that of the checkpoint.
        """
        damaged: list[epath.Path] = []
        for step in reversed(self.steps()):
            place, damage = self._manager.directory / str(step), None
            try:
                saved, items = self._read_all(place, state, config)
            except DamagedCheckpointError as error:
                damage = error
            # All processes agree before any of them goes on to compare parameters with others.
            if distributed.agree(damage is None):
                break
            distributed.say(f"warning: {damage or f'{place} cannot be read by another process'}")
            damaged.append(place)
        else:
            raise UserError(
                f"no checkpoint in {self._manager.directory} can be read, see above; nothing was "
                "changed. Try again, if it is the memory or the disk, or choose another --workdir "
                "to start afresh."
            )
        fixed = merge(items.get("teacher", {}), items.get("frozen", {}))
        mesh = getattr(state.step.sharding, "mesh", None)
        _check_start(saved.get("init_from", ""), config, fixed, mesh, place)
        for one in damaged:
            self._set_aside(one)
        for change in _changes(saved, config):
            distributed.say(f"resumed with {change}")
        number = jax.device_put(jnp.int32(step), state.step.sharding)
        return TrainState(**{"step": number, "frozen": {}, **items})

    @staticmethod
    def _read_all(
        place: epath.Path, state: TrainState, config: ConfigDict
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The config and the items of a checkpoint, which must be one of this run."""
        saved = read_config(place)
        if saved["stage"] != config.stage:
            raise UserError(
                f"{place} is a checkpoint of stage {saved['stage']!r}, but this run is stage "
                f"{config.stage!r}; choose another --workdir."
            )
        if saved.get("imported_from"):
            raise UserError(
                f"{place} was imported from {saved['imported_from']} and is not a training run; "
                "give its workdir as --config.init_from, and another --workdir."
            )
        check_same_fields(saved, config, _RESUMED_FIELDS, place, "another --workdir")
        check_same_data(saved, config, place)
        wanted = {name: getattr(state, name) for name in ("trainable", "ema", "optimizer")}
        wanted |= {name: found for name in _OPTIONAL_ITEMS if (found := getattr(state, name))}
        for name, shapes in wanted.items():
            _check_same_arrays(_shapes(place / name), shapes, place / name)
        return saved, {name: _read(place / name, shapes) for name, shapes in wanted.items()}

    def _damaged_folder(self) -> epath.Path:
        return self._manager.directory.parent / "damaged_checkpoints"

    def _set_aside(self, place: epath.Path) -> None:
        if distributed.is_primary():
            self._damaged_folder().mkdir(parents=True, exist_ok=True)
            aside = self._damaged_folder() / place.name
            if aside.exists():
                aside.rmtree()
            place.rename(aside)
        distributed.agree(True)  # nobody looks before it is gone
        self._manager.reload()

    def wait(self) -> None:
        """Waits until what was started to be saved is complete."""
        for manager in filter(None, (self._manager, self._snapshots)):
            manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then lets go of the folder."""
        for manager in filter(None, (self._manager, self._snapshots)):
            manager.close()


def check_same_fields(
    saved: Mapping[str, Any],
    config: ConfigDict,
    prefixes: Sequence[str],
    place: str | Path,
    otherwise: str,
) -> None:
    """Refuses a checkpoint whose parameters mean something else than this run's.

    Args:
      saved: the checkpoint's config.
      config: of this run.
      prefixes: of the fields, such as "model.", that must be equal in both.
      place: where the checkpoint is.
      otherwise: what the `UserError`, which names the first field that differs, proposes.
    """
    there, here = flatten_dict(dict(saved), sep="."), flatten_dict(config.to_dict(), sep=".")
    for field in sorted(set(here) | set(there)):
        # A field that is newer than a checkpoint counts as not set.
        was, is_now = there.get(field, ""), here.get(field, "")
        relevant = field.startswith(tuple(prefixes)) and field not in _FREE_FIELDS
        if field == "text.weights" and not was and there.get("imported_from"):
            continue  # an import does not know them
        if relevant and _plain(was) != _plain(is_now):
            if field == "text.weights":
                raise UserError(
                    f"{place} was trained with other weights of the text encoder (text.weights="
                    f"{was!r}) than text.folder={here.get('text.folder')} holds ({is_now!r}); "
                    f"give the folder with the same, or {otherwise}."
                )
            raise UserError(
                f"{place} has {field}={was!r}, but this run asks for {is_now!r}; use the same "
                f"value, or {otherwise}."
            )


def _check_same_arrays(saved: Any, wanted: Any, place: epath.Path) -> None:
    """Refuses an item whose arrays are not those of this run, which is no damage."""
    there, here = (_shapes_by_name(tree) for tree in (saved, wanted))
    for name in sorted(there | here):
        if there.get(name) != here.get(name):
            was, is_now = (found.get(name, "nothing") for found in (there, here))
            raise UserError(
                f"{place} holds {was} as {name}, but this run's config asks for {is_now}; use the "
                "config that it was trained with, or another --workdir."
            )


def _shapes_by_name(tree: Any) -> dict[str, list[int]]:
    """The shapes of arrays by their path, however the nodes of the tree are kept."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): list(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def check_same_data(saved: Mapping[str, Any], config: ConfigDict, place: str | Path) -> None:
    """Refuses to continue with other data than a checkpoint was trained on, unless told to.

    A config that is older than fingerprints passes.
    """
    was, now = (data.get("fingerprint") for data in (saved.get("data", {}), config.data))
    if was and now and was != now and not config.data.allow_other:
        raise UserError(
            f"{place} was trained on the data {was}, but this run's data is {now}: files, captions "
            "or clip settings have changed, or a version came between that leaves out other files "
            "(data_report.txt). Restore them, choose another --workdir, or continue with the other "
            "data by --config.data.allow_other=True."
        )


def _check_start(
    was: str, config: ConfigDict, fixed: Params, mesh: Mesh | None, place: epath.Path
) -> None:
    """Refuses other parameters to start from than those that a run started from.

    They are compared with those that the run does not train, if there are any, or else with those
    that are in `was` now. If they cannot be read, as after a move, `config` gets what it was.
    """
    now = config.init_from
    if not now or (was and run_of(was) == run_of(now)):
        config.init_from = was
        return
    given, before = (_params_if_there(place, mesh) for place in (now, "" if fixed else was))
    if given and (before or fixed):
        if _holds(given, before or fixed):
            return
        raise UserError(
            f"{place} started from other parameters (init_from={was!r}) than are in {now}; give "
            "that again, or choose another --workdir to start from these."
        )
    config.init_from = was
    distributed.say(f"init_from stays {was!r}, where this run started; {now} is not read")


def _params_if_there(workdir: str, mesh: Mesh | None) -> Params:
    """The parameters that `load` gives; none if any process cannot read them."""
    try:
        params = load(workdir, mesh)[1] if workdir else {}
    except UserError:
        params = {}
    return params if distributed.agree(bool(params)) else {}


def _holds(params: Params, others: Params) -> bool:
    """Whether `params` has all of `others`, as these are rounded."""
    known = flatten_dict(params)
    return all(
        path in known
        and known[path].shape == leaf.shape
        and bool((_on_host(known[path]).astype(leaf.dtype) == _on_host(leaf)).all())
        for path, leaf in flatten_dict(others).items()
    )


def _changes(saved: Mapping[str, Any], config: ConfigDict) -> list[str]:
    """The fields of a config that are not as they were, as "seed=2, formerly 1"."""
    plain = (json.loads(json.dumps(c, default=list)) for c in (dict(saved), config.to_dict()))
    there, here = (flatten_dict(fields, sep=".") for fields in plain)
    return [
        f"{field}={here.get(field)!r}, formerly {there.get(field)!r}"
        for field in sorted(here | there)
        if here.get(field) != there.get(field)
    ]


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value


def _own_processes() -> ocp.options.MultiprocessingOptions:
    """Every process reads by itself: one that fails must not leave the others in a barrier."""
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process_{me}"
    )


def _damaged(place: epath.Path, error: Exception) -> DamagedCheckpointError:
    first_line = (str(error).splitlines() or [""])[0]
    return DamagedCheckpointError(
        f"the checkpoint {place} cannot be read ({type(error).__name__}: {first_line}). If it is "
        "damaged, move the folder of that step away: the checkpoint before it is used then."
    )


def read_config(place: epath.Path) -> dict[str, Any]:
    """The config of the checkpoint in the folder `place`."""
    try:
        return with_defaults(json.loads((place / "config" / "metadata").read_text()))
    except (OSError, ValueError) as error:
        raise _damaged(place, error) from error


def _shapes(place: epath.Path) -> Any:
    """Shapes and dtypes of the arrays of the item in the folder `place`."""
    try:
        metadata = ocp.StandardCheckpointHandler().metadata(place)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), metadata)
    except Exception as error:  # Orbax raises many kinds for a damaged file
        raise _damaged(place, error) from error


def _read(place: epath.Path, shapes: Any) -> Any:
    """Reads the item in the folder `place`, with the shardings of `shapes`."""
    options = _own_processes()
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=options)
    try:
        with ocp.Checkpointer(handler, multiprocessing_options=options) as reader:
            return reader.restore(place, args=ocp.args.StandardRestore(shapes))
    except Exception as error:  # Orbax raises many kinds for a damaged file
        raise _damaged(place, error) from error


def read_item(place: epath.Path) -> Params:
    """The arrays of the item in the folder `place`, on the first device of this process."""
    return _read(place, _placed(_shapes(place), None))


def load(workdir: str | Path, mesh: Mesh | None = None) -> tuple[ConfigDict, Params, int | None]:
    """Reads a checkpoint of a run, or a stage of a bundle, as the next stage needs it.

    Args:
      workdir: the run's workdir, for its newest checkpoint; one of its checkpoints,
        `WORKDIR/checkpoints/STEP`; or a stage of a bundle.
      mesh: places the parameters on it as `sharding.state_shardings` says; None: all on the first
        device of this process.

    Returns:
      The config, the parameters (the EMA of the trained ones, and the frozen ones) and the step;
      None if a bundle does not know it. No checkpoint that can be read is a `UserError`.
    """
    if bundle.is_stage(workdir):
        config, arrays, step = bundle.read(workdir)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, _placed(arrays, mesh))
        return ConfigDict(config), jax.device_put(arrays, shardings), step
    place = _chosen(workdir)
    params: Params = {}
    for name in ("frozen", "ema"):
        if (place / name).is_dir():
            params = merge(_read(place / name, _placed(_shapes(place / name), mesh)), params)
    return ConfigDict(read_config(place)), params, int(place.name)


def load_config(workdir: str | Path) -> ConfigDict:
    """The config of what `load` reads."""
    if bundle.is_stage(workdir):
        return ConfigDict(bundle.read_config(workdir))
    return ConfigDict(read_config(_chosen(workdir)))


def _chosen(workdir: str | Path) -> epath.Path:
    """The folder of the checkpoint that a path names, or of the newest one of a run."""
    run, step = run_of(workdir)
    folder = run / FOLDER
    if not folder.is_dir():
        raise UserError(
            f"there is no checkpoint in {workdir}: it has no folder {FOLDER!r}. Give the "
            "--workdir of a training run."
        )
    steps = ocp.utils.checkpoint_steps(folder)
    if not steps:
        raise UserError(
            f"{folder} holds no complete checkpoint; train longer, or give another run."
        )
    if step is not None and step not in steps:
        raise UserError(
            f"there is no checkpoint of step {step} in {folder}, only of "
            f"{', '.join(map(str, sorted(steps)))}; give one of these, or {run} for the newest."
        )
    return folder / str(max(steps) if step is None else step)


def fingerprint(params: Params) -> str:
    """16 hexadecimal digits that identify parameters: names, shapes and 64 values of each.

    Where processes share parameters, all of them must call it.
    """
    digest = hashlib.sha256()
    for path, leaf in sorted(flatten_dict(params).items()):
        step = max(leaf.size // 64, 1)
        leaf = _on_host(leaf)
        values = leaf.reshape(-1)[::step]
        if isinstance(values, jax.Array) and not values.is_fully_addressable:
            values = multihost_utils.process_allgather(values, tiled=True)
        told = f"{'/'.join(path)} {leaf.shape}".encode()
        digest.update(told + np.asarray(values, np.float32).tobytes())
    return digest.hexdigest()[:16]


def _on_host(leaf: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
    """What a CPU holds, as NumPy has it: nothing is copied, and nothing compiled to look at it."""
    if isinstance(leaf, np.ndarray) or not leaf.is_fully_addressable:
        return leaf
    devices: Any = leaf.devices()
    return np.asarray(leaf) if {device.platform for device in devices} == {"cpu"} else leaf


def _placed(shapes: Params, mesh: Mesh | None) -> Params:
    """Shapes with shardings."""
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    shardings = state_shardings(shapes, mesh) if mesh else jax.tree.map(lambda _: here, shapes)
    return with_shardings(shapes, shardings)
