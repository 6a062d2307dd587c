"""A text-to-image checkpoint as a directory that `diffusers` loads: the way back."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import jax
import ml_dtypes
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict

from lumiere_jax.cascade.config import ConfigDict
from lumiere_jax.cascade.stage import create_network
from lumiere_jax.checkpoints import checkpoint
from lumiere_jax.models.unet import UNet
from lumiere_jax.open_weights import names, scheduler_config, unet_config
from lumiere_jax.open_weights.importing import STEM
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.progress import Progress

VERSION = "0.29.0"
"""Of `diffusers`, that the layout of the directory has."""

_PIPELINES = {"t2i": "IFPipeline", "t2i_ssr": "IFSuperResolutionPipeline"}
_ABSENT = ("feature_extractor", "safety_checker", "text_encoder", "tokenizer", "watermarker")
_DTYPES = {np.dtype(np.float32): "F32", np.dtype(ml_dtypes.bfloat16): "BF16"}


def export_weights(workdir: str | Path, output: str | Path, quiet: bool = False) -> None:
    """Writes `unet`, `scheduler` and `model_index.json` to a new directory.

    They are of the newest checkpoint, of stage "t2i" or "t2i_ssr", with the EMA of trained
    parameters. If `output` exists, or `diffusers` has no such network, that is a `UserError`.
    """
    place = epath.Path(output).expanduser()
    if place.exists():
        raise UserError(f"--output={output} exists already; choose another, or remove it.")
    network = _describe(checkpoint.load_config(workdir), workdir)
    config, params, _ = checkpoint.load(workdir)
    temporary = place.with_name(f".{place.name}.exporting")
    if temporary.exists():  # of an export that was interrupted
        temporary.rmtree()
    _write_json(temporary / "unet" / "config.json", network)
    schedule = temporary / "scheduler" / "scheduler_config.json"
    _write_json(schedule, scheduler_config.describe(config))
    index = {name: [None, None] for name in _ABSENT} | {
        "_class_name": _PIPELINES[config.stage],
        "_diffusers_version": VERSION,
        "requires_safety_checker": False,
        "scheduler": ["diffusers", scheduler_config.CLASS],
        "unet": ["diffusers", unet_config.CLASS],
    }
    if config.stage == "t2i_ssr":
        noising = temporary / "image_noising_scheduler" / "scheduler_config.json"
        _write_json(noising, scheduler_config.describe_noising())
        index["image_noising_scheduler"] = ["diffusers", scheduler_config.CLASS]
    _write_json(temporary / "model_index.json", index)
    arrays = flatten_dict(params, sep="/")
    progress = Progress("exporting", len(arrays), "arrays", quiet=quiet)
    file = temporary / "unet" / f"{STEM}.safetensors"
    _write_tensors(file, arrays, len(config.model.widths), progress)
    temporary.rename(place)


def _describe(config: ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """The `unet/config.json`, of a checkpoint that can be exported."""
    if config.stage not in _PIPELINES or config.model.name not in ("unet", "ssr_unet"):
        raise UserError(
            f"{workdir}: a {config.model.name!r} of stage {config.stage!r} has no counterpart in "
            "diffusers; give a checkpoint of stage t2i, or one of stage t2i_ssr that was imported."
        )
    if not config.diffusion.learned_variance:
        raise UserError(
            f"{workdir} was trained with diffusion.schedule={config.diffusion.schedule!r} and no "
            "learned variance, which no pipeline of diffusers samples from."
        )
    network = cast(UNet, create_network(config.model))
    return unet_config.describe(network, config.text.dim, config.data.resolution)


def _write_json(path: epath.Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def _write_tensors(
    path: epath.Path, arrays: Mapping[str, jax.Array], levels: int, progress: Progress
) -> None:
    """Writes a safetensors file, one array after the other; the library's own takes all at once.

    The format (github.com/huggingface/safetensors): the length of the header as 8 bytes, the header
    as JSON, and the arrays in the order and at the places that it says.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end, named = 0, sorted((names.torch_name(p, levels), p) for p in arrays)
    for name, our_path in named:
        array = arrays[our_path]
        begin, end = end, end + array.nbytes
        header[name] = {
            "dtype": _DTYPES[np.dtype(array.dtype)],
            "shape": names.torch_shape(our_path, array.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # arrays begin at multiples of 8
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, our_path in named:
            values = names.to_torch(our_path, np.asarray(arrays[our_path]))
            file.write(np.ascontiguousarray(values).tobytes())
            progress.advance()
