"""Bundles: the trained stages of a cascade as files to ship, without any state of training.

    BUNDLE/README.md                model card
    BUNDLE/manifest.json            what there is: licence, configs, steps, sizes, checksums
    BUNDLE/STAGE/weights.safetensors

A stage may leave out what it shares, bit for bit, with the stage that it was initialised from: the
frozen image network is there once. Whatever takes the workdir of a run also takes `BUNDLE/STAGE`.
"""

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from lumiere_jax import __version__, quantization
from lumiere_jax.atomic import local, written_folder
from lumiere_jax.config import with_defaults
from lumiere_jax.errors import UserError
from lumiere_jax.state import Params

MANIFEST = "manifest.json"
CARD = "README.md"
WEIGHTS = "weights.safetensors"
VERSION = 2
CHECKSUM = "sha256"
DTYPES = ("bfloat16", "float32", "int8")
SEPARATOR = "."
"""Between the parts of a parameter's path; those of LoRA hold slashes."""


def is_stage(folder: str | Path) -> bool:
    """Whether a folder is a stage of a bundle."""
    folder = Path(folder)
    return "://" not in str(folder) and (folder.parent / MANIFEST).is_file()


def check_output(output: str | Path, names: Collection[str], dtype: str) -> None:
    """Makes sure that a bundle can be written, before anything is loaded.

    Args:
      output: see `write`.
      names: of its stages.
      dtype: see `write`.

    Raises:
      UserError: if `output` is something else, holds stages that are not in `names` and would be
        lost, or is in a bucket, or if the dtype is unknown.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is unknown; choose from {', '.join(DTYPES)}.")
    output = local(output)
    if not output.exists():
        return
    if not (output / MANIFEST).is_file():
        raise UserError(f"{output} exists and is no bundle; choose another --output.")
    try:
        lost = [name for name in entries(output) if name not in names]
    except UserError as error:
        raise UserError(
            f"{output} holds a bundle that cannot be read; remove it, or choose another --output. "
            f"({error})"
        ) from error
    if lost:
        raise UserError(
            f"{output} is a bundle with other stages, which would be lost: {', '.join(lost)}; give "
            f"{'it' if len(lost) == 1 else 'them'} as well (--stage={output / lost[0]}), or choose "
            "another --output."
        )


def write(
    stages: Mapping[str, tuple[Mapping[str, Any], Params, int | None]],
    output: str | Path,
    shares: Mapping[str, str],
    dtype: str = "bfloat16",
    licence: str = "",
    finish: Callable[[Path], None] = lambda folder: None,
) -> None:
    """Writes a bundle, which is there as a whole or not at all.

    Args:
      stages: name -> config, parameters and step of a trained stage; None where it is not known.
      output: folder to make, see `check_output`; of a bundle that is replaced, other files stay.
      shares: name of a stage -> name of the one whose equal parameters it leaves out, which
        shares with none of its own kind.
      dtype: of the weights, "bfloat16", "float32", or "int8": kernels by `quantization.quantize`
        and all else in bfloat16.
      licence: of the weights; an SPDX identifier or a sentence.
      finish: adds files to the folder, before it is at its place.

    Raises:
      UserError: see `check_output`, and if it cannot be written.
    """
    check_output(output, stages, dtype)
    output = Path(output)
    cast = {
        name: _as_stored(
            {SEPARATOR.join(path): np.asarray(leaf) for path, leaf in flatten_dict(params).items()},
            dtype,
        )
        for name, (_, params, _) in stages.items()
    }
    with written_folder(output) as folder:
        described = {}
        for name, (config, params, step) in stages.items():
            config, source = _portable(config), shares.get(name)
            if source not in cast or not set(cast[source]) <= set(cast[name]):
                source = None
            own = _without(cast[name], cast[source]) if source else cast[name]
            described[name] = {
                "config": config,
                "config_sha256": _sum(config),
                "step": step,
                "shares": source,
                "parameters": sum(np.size(leaf) for leaf in jax.tree.leaves(params)),
                **_write_weights(folder / name, own),
            }
        manifest = {
            "version": VERSION,
            "program": f"lumiere_jax {__version__}",
            "licence": licence,
            "dtype": dtype,
            "stages": described,
        }
        manifest[CHECKSUM] = _sum(manifest)
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        if output.exists():
            _keep_others(output, folder)
        finish(folder)


def _portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without the folders of the machine it was trained on."""
    config = copy.deepcopy(dict(config))
    config["init_from"] = ""
    if config.get("imported_from"):  # that it was is still to be known
        config["imported_from"] = Path(config["imported_from"]).name
    parts = [config.get("text", {}), config.get("data", {})]
    for part in [*parts, *parts[1].get("mixture", ())]:
        part.update({name: "" for name in ("folder", "captions") if name in part})
    return config


def _write_weights(folder: Path, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Makes the folder of a stage; returns size and checksum of its file."""
    folder.mkdir()
    file = folder / WEIGHTS
    save_file(arrays, file)
    file.chmod(0o644)  # for others to read as well
    return {
        "bytes": file.stat().st_size,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
    }


def _keep_others(former: Path, folder: Path) -> None:
    """Copies from a bundle what is neither a stage nor its manifest, such as a model card."""
    own = {*entries(former), MANIFEST}
    for path in former.iterdir():
        if path.name in own or (folder / path.name).exists():
            continue
        if path.is_dir():
            shutil.copytree(path, folder / path.name)
        else:
            shutil.copy2(path, folder / path.name)


def _as_stored(arrays: dict[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
    """Arrays as they are in a file."""
    if dtype != "int8":
        return {name: array.astype(jnp.dtype(dtype)) for name, array in arrays.items()}
    stored = {}
    for name, array in arrays.items():
        if quantization.is_kernel(name, array):
            stored[name], stored[name + quantization.SCALE] = quantization.quantize(array)
        else:
            stored[name] = array.astype(jnp.bfloat16)
    return stored


def _sum(values: Mapping[str, Any]) -> str:
    """SHA-256 of values, such as all of a manifest but this checksum of it."""
    rest = {name: value for name, value in values.items() if name != CHECKSUM}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _without(arrays: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays that `others` does not hold bit for bit under the same name."""

    def is_shared(name: str, array: np.ndarray) -> bool:
        other = others.get(name)
        return (
            other is not None and other.shape == array.shape and other.tobytes() == array.tobytes()
        )

    return {name: array for name, array in arrays.items() if not is_shared(name, array)}


def entries(bundle: str | Path) -> dict[str, dict[str, Any]]:
    """What a bundle says of each of its stages: name -> config, step, bytes, and so on.

    Raises:
      UserError: if there is no manifest, or it cannot be read.
    """
    return _manifest(Path(bundle))["stages"]


def licence(bundle: str | Path) -> str:
    """The licence of a bundle's weights, "" if it states none.

    Raises:
      UserError: if there is no manifest, or it cannot be read.
    """
    return _manifest(Path(bundle))["licence"]


def dtype(bundle: str | Path) -> str:
    """The dtype of a bundle's weights.

    Raises:
      UserError: if there is no manifest, or it cannot be read.
    """
    return _manifest(Path(bundle))["dtype"]


def read_config(folder: str | Path) -> dict[str, Any]:
    """The config of a stage of a bundle.

    Raises:
      UserError: see `read`.
    """
    return with_defaults(_entry(Path(folder))["config"])


def read(folder: str | Path) -> tuple[dict[str, Any], Params, int]:
    """Reads a stage of a bundle.

    Args:
      folder: `BUNDLE/STAGE`.

    Returns:
      Config, parameters (float32, on the host) and step of training.

    Raises:
      UserError: if a file is missing, truncated or altered, or the bundle of another version.
    """
    folder = Path(folder)
    entry = _entry(folder)
    arrays = quantization.dequantize(_arrays(folder))
    params = {
        tuple(name.split(SEPARATOR)): array.astype(np.float32) for name, array in arrays.items()
    }
    return with_defaults(entry["config"]), unflatten_dict(params), entry["step"]


def _arrays(folder: Path) -> dict[str, np.ndarray]:
    """Own and shared arrays of a stage."""
    entry, file = _entry(folder), folder / WEIGHTS
    try:
        data = file.read_bytes()
    except OSError as error:
        raise _broken(file, f"cannot be read ({error.strerror})") from error
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        problem = f"has {len(data)} bytes in place of {entry['bytes']}"
        if len(data) == entry["bytes"]:
            problem = "is not what its checksum says"
        raise _broken(file, problem)
    try:
        arrays = load_file(file)
    except SafetensorError as error:
        raise _broken(file, f"is no safetensors file ({error})") from error
    shared = _arrays(folder.parent / entry["shares"]) if entry["shares"] else {}
    return {**shared, **arrays}


def _entry(folder: Path) -> dict[str, Any]:
    """What the manifest says of a stage."""
    described = entries(folder.parent)
    if folder.name not in described:
        raise UserError(
            f"{folder.parent} has no stage {folder.name!r}; it has {', '.join(described)}."
        )
    return described[folder.name]


def _manifest(bundle: Path) -> dict[str, Any]:
    place = bundle / MANIFEST
    try:
        manifest = json.loads(place.read_text(encoding="utf-8"))
        version = manifest["version"]
    except OSError as error:
        raise UserError(
            f"{place} cannot be read ({error.strerror}); give the folder of a bundle."
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise _broken(place, "is no manifest of a bundle") from error
    if not isinstance(version, int):
        raise _broken(place, "is no manifest of a bundle")
    if version != VERSION:
        raise UserError(
            f"{place} is of version {version} of the format, and this program reads {VERSION}; use "
            f"the {'newer' if version > VERSION else 'older'} program that wrote it, or export "
            "again."
        )
    if manifest.get(CHECKSUM) != _sum(manifest):
        raise _broken(place, "is not what its checksum says")
    return manifest


def _broken(file: Path, problem: str) -> UserError:
    return UserError(f"{file} {problem}; get the bundle again (in a clone: git checkout).")
