"""Bundles: the trained stages of a cascade as files to ship, without any state of training.

    BUNDLE/README.md                model card
    BUNDLE/manifest.json            what there is: license, configs, steps, sizes, checksums
    BUNDLE/STAGE/weights.safetensors

A stage may leave out what it shares, bit for bit, with the stage that it was initialized from: the
frozen image network is there once. Whatever takes the workdir of a run also takes `BUNDLE/STAGE`.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from lumiere_jax import __version__
from lumiere_jax.cascade.config import with_defaults
from lumiere_jax.checkpoints import manifest, quantization
from lumiere_jax.checkpoints.manifest import CHECKSUM, MANIFEST, VERSION, StageEntry, checksum
from lumiere_jax.data.mixture import places_of
from lumiere_jax.models.parameters import Params
from lumiere_jax.runtime.errors import UserError
from lumiere_jax.runtime.files import keep_others, local, written_folder

CARD = "README.md"
WEIGHTS = "weights.safetensors"
DTYPES = ("bfloat16", "float32", "int8")
SEPARATOR = "."
"""Between the parts of a parameter's path; those of LoRA hold slashes."""


def is_stage(folder: str | Path) -> bool:
    """Whether a folder is a stage of a bundle."""
    return (
        "://" not in str(folder)
        and (Path(folder).expanduser().resolve().parent / MANIFEST).is_file()
    )


def check_output(output: str | Path, names: Collection[str], dtype: str) -> None:
    """Makes sure that a bundle of the stages `names` can be written, before anything is loaded.

    A `UserError` if the dtype is unknown, or `output` is something else or in a bucket, or holds
    other stages, which would be lost.
    """
    if dtype not in DTYPES:
        raise UserError(f"dtype {dtype!r} is unknown; choose from {', '.join(DTYPES)}.")
    output = local(output)
    try:
        str(output).encode()  # it stands in the card
        if not output.exists():
            return
    except (OSError, UnicodeEncodeError) as error:
        raise UserError(
            f"--output={str(output)!r:.60} is not a valid name for a folder ({error})."
        ) from error
    if not (output / MANIFEST).is_file():
        raise UserError(f"{output} exists and is not a bundle; choose another --output.")
    try:
        former = entries(output)
        lost = [name for name in former if name not in names]
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
    for name in names:
        if name not in former and (output / name).exists():
            raise UserError(
                f"{output / name} is not a stage of that bundle, but in the way of one; move "
                "it away."
            )


def write(
    stages: Mapping[str, tuple[Mapping[str, Any], Params, int | None]],
    output: str | Path,
    shares: Mapping[str, str | None],
    dtype: str = "bfloat16",
    license: str = "",
    finish: Callable[[Path], None] = lambda folder: None,
    stored: Mapping[str, dict[str, np.ndarray]] | None = None,
) -> None:
    """Writes a whole bundle, or nothing; a `UserError` if it cannot, see `check_output`.

    Args:
      stages: name -> config, parameters and step of a trained stage; None where it is not known.
      output: folder to make; of a bundle that is replaced, other files stay.
      shares: name of a stage -> name of the one whose equal parameters it leaves out, or None.
      dtype: of `DTYPES`; "int8": kernels by `quantization.quantize`, all else in bfloat16.
      license: of the weights; an SPDX identifier or a sentence.
      finish: adds files to the folder, before it is at its place.
      stored: arrays of stages that come from a bundle of this dtype, see `stored_arrays`: int8
        must not be rounded a second time.
    """
    check_output(output, stages, dtype)
    output, stored = Path(output).expanduser(), stored or {}
    cast = {n: stored.get(n) or _as_stored(params, dtype) for n, (_, params, _) in stages.items()}
    with written_folder(output) as folder:
        described = {}
        for name, (config, params, step) in stages.items():
            config, source = _portable(config), shares.get(name)
            if source not in cast or not set(cast[source]) <= set(cast[name]):
                source = None
            own = _without(cast[name], cast[source]) if source else cast[name]
            described[name] = {
                "config": config,
                "config_sha256": checksum(config),
                "step": step,
                "shares": source,
                "parameters": sum(np.size(leaf) for leaf in jax.tree.leaves(params)),
                **_write_weights(folder / name, own),
            }
        manifest = {
            "version": VERSION,
            "program": f"lumiere_jax {__version__}",
            "licence": license,
            "dtype": dtype,
            "stages": described,
        }
        manifest[CHECKSUM] = checksum(manifest)
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        if output.exists():
            former = entries(output)
            keep_others(output, folder, {*former, MANIFEST})
            for name in former:
                if (output / name).is_dir():
                    keep_others(output / name, folder / name, {WEIGHTS})
        finish(folder)


def _portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without the folders of the machine it was trained on.

    Those of a mixture's sources keep their places below one, to be found again.
    """
    portable = copy.deepcopy(dict(config)) | {"init_from": ""}
    if portable.get("imported_from"):  # that it was is still to be known
        portable["imported_from"] = Path(portable["imported_from"]).name
    parts = [portable.get("text", {}), portable.get("data", {})]
    mixture = parts[1].get("mixture", ())
    places = places_of(mixture)
    for part in [*parts, *mixture]:
        part.update({name: "" for name in ("folder", "captions") if name in part})
    for entry, place in zip(mixture, places, strict=True):
        entry.update({"folder": place} if place else {})
    return portable


def _write_weights(folder: Path, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """Makes the folder of a stage; returns size and checksum of its file."""
    folder.mkdir()
    file = folder / WEIGHTS
    try:
        save_file(arrays, file)
    except SafetensorError as error:  # its own error of a full disk
        raise OSError(str(error)) from error
    file.chmod(0o644)  # for others to read as well
    return {"bytes": file.stat().st_size, "sha256": _digest(file)}


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _as_stored(params: Params, dtype: str) -> dict[str, np.ndarray]:
    """Arrays as they are in a file."""
    arrays = {name: np.asarray(leaf) for name, leaf in flatten_dict(params, sep=SEPARATOR).items()}
    if dtype != "int8":
        return {name: array.astype(jnp.dtype(dtype)) for name, array in arrays.items()}
    stored = {}
    for name, array in arrays.items():
        if quantization.is_kernel(name, array):
            stored[name], stored[name + quantization.SCALE] = quantization.quantize(array)
        else:
            stored[name] = array.astype(jnp.bfloat16)
    return stored


def _without(arrays: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Arrays that `others` does not hold bit for bit under the same name."""
    return {
        name: array
        for name, array in arrays.items()
        if name not in others
        or others[name].shape != array.shape
        or others[name].tobytes() != array.tobytes()
    }


def entries(bundle: str | Path) -> dict[str, StageEntry]:
    """What a bundle says of each of its stages, by name; a `UserError` if it is none."""
    return manifest.read(Path(bundle).expanduser())["stages"]


def license(bundle: str | Path) -> str:
    """The license of a bundle's weights, "" if it states none."""
    return manifest.read(Path(bundle).expanduser())["licence"]


def dtype(bundle: str | Path) -> str:
    """The dtype of a bundle's weights, one of `DTYPES`."""
    return manifest.read(Path(bundle).expanduser())["dtype"]


def read_config(folder: str | Path) -> dict[str, Any]:
    """The config of a stage of a bundle."""
    return with_defaults(_entry(Path(folder).expanduser().resolve())["config"])


def read(folder: str | Path) -> tuple[dict[str, Any], Params, int | None]:
    """Config, parameters (float32, on the host) and step of a stage of a bundle, `BUNDLE/STAGE`.

    Raises:
      UserError: if a file is missing, truncated or altered, or the bundle of another version.
    """
    folder = Path(folder).expanduser().resolve()
    entry = _entry(folder)
    arrays = quantization.dequantize(stored_arrays(folder))
    found = sum(array.size for array in arrays.values())
    if found != entry["parameters"]:
        problem = f"holds {found:,} of {entry['parameters']:,} parameters"
        raise manifest.broken(folder / WEIGHTS, problem)
    params = {name: array.astype(np.float32) for name, array in arrays.items()}
    return with_defaults(entry["config"]), unflatten_dict(params, SEPARATOR), entry["step"]


def stored_arrays(folder: str | Path) -> dict[str, np.ndarray]:
    """Arrays of a stage as they are in the files, its own and those that it shares."""
    folder = Path(folder).expanduser().resolve()
    entry, file = _entry(folder), folder / WEIGHTS
    try:
        size, digest = file.stat().st_size, _digest(file)
    except OSError as error:
        raise manifest.broken(file, f"cannot be read ({error.strerror})") from error
    if digest != entry["sha256"]:
        is_whole = size == entry["bytes"]
        problem = f"has {size} bytes in place of {entry['bytes']}"
        raise manifest.broken(file, "is not what its checksum says" if is_whole else problem)
    try:
        arrays = load_file(file)  # `load` knows no bfloat16
    except SafetensorError as error:
        raise manifest.broken(file, f"is not a safetensors file ({error})") from error
    shared = stored_arrays(folder.parent / entry["shares"]) if entry["shares"] else {}
    return {**shared, **arrays}


def _entry(folder: Path) -> StageEntry:
    """What the manifest says of a stage."""
    described = entries(folder.parent)
    if folder.name not in described:
        raise UserError(
            f"{folder.parent} has no stage {folder.name!r}; it has {', '.join(described)}."
        )
    return described[folder.name]
