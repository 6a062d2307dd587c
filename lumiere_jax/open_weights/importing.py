"""A directory of DeepFloyd IF in the layout of `diffusers`, as a checkpoint to start from."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict
from orbax.checkpoint import type_handlers

from lumiere_jax.cascade.config import ConfigDict, default_config
from lumiere_jax.cascade.stage import Stage
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.open_weights import names, scheduler_config, unet_config
from lumiere_jax.open_weights.json_fields import read_json
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.progress import Progress
from lumiere_jax.runtime.safetensors_reading import TensorFiles

STEM = "diffusion_pytorch_model"
STAGES = {"t2i": "t2i", "ssr": "t2i_ssr"}
"""What `--stage` calls a stage, and the stage of this project that it becomes."""

_FACTOR = 4  # of stage II, from 64 to 256 pixels a side


def import_weights(
    source: str | Path, stage: str, workdir: str | Path, dtype: str = "float32", quiet: bool = False
) -> ConfigDict:
    """Writes a checkpoint with the weights of a directory, one array after the other.

    Args:
      source: directory with `unet` and `scheduler`.
      stage: "t2i" (stage I) or "ssr" (stage II).
      workdir: of the new run; it gets a checkpoint of step 0, whose config is returned.
      dtype: of the parameters, and of the computation: "float32" or "bfloat16".
      quiet: no progress.

    Raises:
      UserError: if the directory is not of that stage, does not have exactly the tensors that its
        config asks for, or `workdir` exists.
    """
    place, source = epath.Path(workdir).expanduser(), Path(source).expanduser()
    if (place / checkpoint.FOLDER).exists():
        raise UserError(
            f"--workdir={workdir} has checkpoints already; choose another, or remove it."
        )
    config = read_config(source, stage, dtype)
    tensors = TensorFiles(source / "unet", STEM)
    progress = Progress("importing", len(tensors.names()), "arrays", quiet=quiet)
    tree = _deferred(tensors, config, progress)
    final, temporary = place / checkpoint.FOLDER / "0", place / ".importing"
    if temporary.exists():  # of an import that was interrupted
        temporary.rmtree()
    # Orbax takes absolute paths alone; those of buckets are.
    absolute = temporary if "://" in str(temporary) else temporary.resolve()
    save_deferred(absolute / "frozen", tree)
    (temporary / "config").mkdir()
    (temporary / "config" / "metadata").write_text(json.dumps(config.to_dict()))
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary.rename(final)
    return config


def read_config(source: Path, stage: str, dtype: str) -> ConfigDict:
    """The config of the stage that a directory becomes; a `UserError` if it is of another one."""
    if stage not in STAGES:
        raise UserError(f"--stage={stage} is unknown; use one of {', '.join(STAGES)}.")
    if not source.is_dir():
        raise UserError(
            f"--source={source}: there is no such folder; give a directory of DeepFloyd IF in the "
            "layout of diffusers."
        )
    unet = unet_config.read(source / "unet" / "config.json")
    _check_stage(unet, stage, source)
    config = default_config(STAGES[stage])
    config.imported_from = str(source.resolve())
    config.model.update(unet.fields, dtype=dtype)
    config.data.update({"num_frames": 1, "resolution": unet.sample_size})
    _set_text(config, unet.text_dim, source / "text_encoder")
    scheduler_config.apply(source / "scheduler" / "scheduler_config.json", config)
    # The defaults of the two pipelines of diffusers.
    config.sampling.num_steps = 100 if stage == "t2i" else 50
    config.sampling.guidance_scale = 7.0 if stage == "t2i" else 4.0
    if stage == "ssr":
        noising = source / "image_noising_scheduler" / "scheduler_config.json"
        scheduler_config.check_noising(noising)
        config.model.name = "ssr_unet"
        config.ssr.update({"factor": _FACTOR, "crop": unet.sample_size})
        config.ssr.update({"upsampling": "bilinear_corners", "augmentation": 0.25})  # 250 of 1000
    return config


def _set_text(config: ConfigDict, dim: int, folder: Path) -> None:
    """Prompts as DeepFloyd IF's pipelines read them, by the T5 that may be in the directory."""
    has_weights = any(folder.glob("*.safetensors"))
    config.text.update({"name": "t5", "dim": dim, "folder": str(folder) if has_weights else ""})
    config.text.update({"max_length": 77, "lowercase": True, "keep_padding": True})


def _check_stage(unet: unet_config.UNetConfig, stage: str, source: Path) -> None:
    """Makes sure of the channels and of what else tells the stages apart."""
    fields = unet.fields
    kinds = {(3, False): "t2i", (6, True): "ssr"}
    found = kinds.get((fields["in_channels"], fields["augmentation"]))
    if found is None or fields["out_channels"] != 6:
        name = read_json(source / "unet" / "config.json").get("class_embed_type")
        raise UserError(
            f"{source}: in_channels={fields['in_channels']}, out_channels="
            f"{fields['out_channels']} and class_embed_type={name!r} are of no stage of DeepFloyd "
            "IF, which has 3, 6 and None (stage I) or 6, 6 and 'timestep' (stage II)."
        )
    if found != stage:
        raise UserError(
            f"{source} holds stage {'I' if found == 't2i' else 'II'} of DeepFloyd IF; give "
            f"--stage={found}."
        )


def parameter_shapes(config: ConfigDict) -> dict[str, tuple[int, ...]]:
    """Shapes of all parameters of a stage, by path."""
    stage = Stage.from_config(config)
    shapes = stage.param_shapes
    return {path: leaf.shape for path, leaf in flatten_dict(shapes, sep="/").items()}


def _deferred(tensors: TensorFiles, config: ConfigDict, progress: Progress) -> dict:
    """The tree of parameters, none of them read yet."""
    levels, dtype = len(config.model.widths), jnp.dtype(config.model.dtype)
    wanted, tree = parameter_shapes(config), {}
    for name in tensors.names():
        shape = tensors.shape(name)
        path = names.our_path(name, len(shape), levels)
        if path not in wanted:
            raise UserError(
                f"{tensors.folder}: the tensor {name!r} is not of the network that config.json "
                "describes; the files are of two models."
            )
        tensors.dtype(name)
        tensors.check_shape(name, names.torch_shape(path, wanted[path]))

        def read(name: str = name) -> np.ndarray:
            progress.advance(name)
            array = names.to_ours(name, tensors.read(name))
            return np.ascontiguousarray(array, dtype=dtype)

        tree[path] = Deferred(wanted[path], dtype, read)
    missing = [names.torch_name(path, levels) for path in sorted(set(wanted) - set(tree))]
    if missing:
        raise UserError(
            f"{tensors.folder} lacks {len(missing)} tensors that config.json asks for, such as "
            f"{missing[0]!r}; copy all files of the model again."
        )
    return unflatten_dict(tree, sep="/")


@dataclasses.dataclass(frozen=True)
class Deferred:
    """An array that is made when it is saved."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]  # makes it

    @property
    def size(self) -> int:
        """Number of scalars."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """Bytes that it will take."""
        return self.size * self.dtype.itemsize


class _DeferredHandler(type_handlers.NumpyHandler):
    """Writes one array after the other, each before the next is read."""

    async def serialize(
        self, values: Sequence[Deferred], infos: Sequence[Any], args: Sequence[Any] | None = None
    ) -> Sequence[Any]:
        args = args or [ocp.SaveArgs()] * len(values)
        for value, info, arg in zip(values, infos, args, strict=True):
            for written in await super().serialize([value.read()], [info], [arg]):
                written.result()
        return []


def save_deferred(place: epath.Path, tree: dict[str, Any]) -> None:
    """Saves a nested dict of `Deferred` in a new folder, as `checkpoint.Checkpointer`'s items."""
    registry = type_handlers.create_type_handler_registry(
        (Deferred, _DeferredHandler(deepcopy_host_arrays=False)),
        (jax.Array, type_handlers.ArrayHandler()),  # or Orbax warns that it is not there
    )
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry)
    with ocp.Checkpointer(handler) as writer:
        writer.save(place, args=ocp.args.PyTreeSave(tree))
