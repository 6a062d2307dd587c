"""A thin layer over Orbax: what is in a checkpoint, where it is, and how it is read.

`WORKDIR/checkpoints/STEP` holds the items `trainable`, `frozen` (where there are any), `ema`,
`optimizer` and `config` (the run's whole config as JSON), so that a checkpoint says by itself
what network it is of. Nothing in it is specific to Linen: parameters are nested dicts.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict

from lumiere_jax.config import ConfigDict
from lumiere_jax.errors import UserError
from lumiere_jax.state import Params, TrainState, merge

FOLDER = "checkpoints"
INHERITED_FIELDS = ("text.", "diffusion.prediction")
"""What a stage must have in common with the one that it is initialised from, beside its sizes."""

_RESUMED_FIELDS = (*INHERITED_FIELDS, "model.", "optimizer.name", "train.trainable")
_FREE_FIELDS = ("model.dtype", "model.remat")  # how to compute, not what


def _checkpoint_folder(workdir: str | Path) -> Path:
    return Path(workdir).resolve() / FOLDER


class Checkpointer:
    """Saves and restores the training state of one workdir.

    Keeps the newest checkpoints and those with the least held-out loss. Saves are
    asynchronous; only checkpoints that were written completely are ever seen.
    """

    def __init__(self, workdir: str | Path, *, keep_last: int, keep_best: int):
        """Opens (and makes) the folder of checkpoints.

        Args:
          workdir: folder of the run.
          keep_last: how many of the newest to keep.
          keep_best: how many of the best by "eval_loss" to keep beside them.
        """
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
        self._manager = ocp.CheckpointManager(
            _checkpoint_folder(workdir),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(policies)
            ),
        )

    def latest_step(self) -> int | None:
        """The newest complete checkpoint's step, or None."""
        return self._manager.latest_step()

    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, ascending."""
        return sorted(self._manager.all_steps())

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
        if state.frozen:
            items["frozen"] = ocp.args.StandardSave(state.frozen)
        metrics = None if eval_loss is None else {"eval_loss": eval_loss}
        self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)

    def restore(self, state: TrainState, config: ConfigDict) -> TrainState:
        """Reads the newest checkpoint.

        Args:
          state: a state, or its shapes, of the structure to restore into.
          config: of this run; the checkpoint must be of the same stage and network.

        Raises:
          UserError: if the checkpoint is of another stage or network, or cannot be read.
        """
        step = self._manager.latest_step()
        place = self._manager.directory / str(step)
        saved = _read(place, {"config": ocp.args.JsonRestore()})["config"]
        if saved["stage"] != config.stage:
            raise UserError(
                f"{place} is a checkpoint of stage {saved['stage']!r}, but this run is stage "
                f"{config.stage!r}; choose another --workdir."
            )
        check_same_fields(saved, config, _RESUMED_FIELDS, place, "another --workdir")
        abstract = jax.tree.map(_shape_on_this_host, state)
        items = {
            "trainable": ocp.args.StandardRestore(abstract.trainable),
            "ema": ocp.args.StandardRestore(abstract.ema),
            "optimizer": ocp.args.StandardRestore(abstract.optimizer),
        }
        if state.frozen:
            items["frozen"] = ocp.args.StandardRestore(abstract.frozen)
        restored = _read(place, items)
        return TrainState(
            step=jnp.int32(step),
            trainable=restored["trainable"],
            frozen=restored["frozen"] if state.frozen else {},
            ema=restored["ema"],
            optimizer=restored["optimizer"],
        )

    def wait(self) -> None:
        """Waits until what was started to be saved is complete."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, then lets go of the folder."""
        self._manager.close()


def _shape_on_this_host(leaf: Any) -> jax.ShapeDtypeStruct:
    """What to restore: a shape and dtype, on one device of this process."""
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


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
      prefixes: of the fields, such as "model.", that must have the same values in both.
      place: where the checkpoint is, for the message.
      otherwise: what to choose if not the same value, for the message.

    Raises:
      UserError: naming the first field that differs, and both values.
    """
    there = flatten_dict(dict(saved), sep=".")
    here = flatten_dict(config.to_dict(), sep=".")
    for field in sorted(set(here) | set(there)):
        was, is_now = there.get(field), here.get(field)
        relevant = field.startswith(tuple(prefixes)) and field not in _FREE_FIELDS
        if relevant and _plain(was) != _plain(is_now):
            raise UserError(
                f"{place} has {field}={was!r}, but this run asks for {is_now!r}; use the same "
                f"value, or {otherwise}."
            )


def _plain(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value


def _read(place: Path, items: dict[str, Any]) -> Any:
    """Reads items of the checkpoint in the folder `place`.

    Raises:
      UserError: if they cannot be read.
    """
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as reader:
            return reader.restore(place, args=ocp.args.Composite(**items))
    except Exception as error:  # Orbax raises many kinds for a damaged file
        first_line = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"the checkpoint {place} cannot be read ({type(error).__name__}: {first_line}). If it "
            "is damaged, move that folder away: the checkpoint before it is used then."
        ) from error


def load(workdir: str | Path) -> tuple[ConfigDict, Params, int]:
    """Reads the newest checkpoint of a run for inference or to initialise the next stage.

    Args:
      workdir: the run's workdir.

    Returns:
      The run's config, its parameters (the EMA of the trained ones, and the frozen ones) and
      the step.

    Raises:
      UserError: if there is no complete checkpoint, or it cannot be read.
    """
    folder = _checkpoint_folder(workdir)
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
    place = folder / str(max(steps))
    # A run on several devices can be read on one.
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    names = ["ema", "frozen"] if (place / "frozen").is_dir() else ["ema"]
    items = {name: ocp.args.StandardRestore(fallback_sharding=sharding) for name in names}
    restored = _read(place, {"config": ocp.args.JsonRestore(), **items})
    params = merge(restored["ema"], restored["frozen"] if "frozen" in names else {})
    return ConfigDict(restored["config"]), params, max(steps)
