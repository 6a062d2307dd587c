"""Weights in the folders of Hugging Face: one safetensors file, or many with an index.

Nothing is read before it is needed, and a slice of a tensor reads no more than its bytes, so that
every device of a mesh gets its own part of a model that is larger than the host's memory. (The
`safetensors` package reads one file; indexes of many are left to each user.)
"""

import json
import re
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from lumiere_jax.runtime.errors import UserError

_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8,
    "BOOL": np.bool_,
}  # fmt: skip


class TensorFiles:
    """The tensors of one model, by name; a name that there is not is a `UserError`."""

    def __init__(self, folder: str | Path, stem: str = "model"):
        """Opens `STEM.safetensors`, or all files that `STEM.safetensors.index.json` names.

        The stem is "model" in folders of transformers, "diffusion_pytorch_model" in those of
        diffusers. Where these are missing, the parts `STEM-00001-of-0000N.safetensors` are read
        without an index, or else the only variant that there is, as `STEM.fp16.safetensors`. A file
        that is missing, damaged, or not what the index says is a `UserError`.
        """
        self.folder = Path(folder).expanduser()
        if not self.folder.is_dir():
            raise UserError(
                f"there is no folder {self.folder}; give one with {stem}.safetensors, or with "
                f"{stem}.safetensors.index.json and the files that it names."
            )
        self._files: dict[str, Any] = {}
        if self._open_model(stem):
            return
        variants = _variants(self.folder, stem)
        if len(variants) > 1:
            raise UserError(
                f"{self.folder} has no {stem}.safetensors, but the variants {', '.join(variants)}; "
                f"make a folder with one of them, as {stem}.safetensors."
            )
        if not variants or not self._open_model(f"{stem}.{variants[0]}"):
            raise _nothing_found(self.folder, stem)

    def _open_model(self, stem: str) -> bool:
        """Opens the files with that stem, a variant included; False if there are none."""
        name, *variant = stem.split(".")
        single = self.folder / f"{stem}.safetensors"
        ends = ["index.json", *(f"index.{word}.json" for word in variant)]
        places = [self.folder / f"{stem}.safetensors.{ends[0]}"]
        places += [self.folder / f"{name}.safetensors.{end}" for end in ends[1:]]
        index = next((place for place in places if place.is_file()), None)
        parts = sorted(self.folder.glob(f"{stem}-*-of-*.safetensors"))
        if single.is_file():
            opened = _open(single)
            self._files = dict.fromkeys(opened.keys(), opened)
        elif index:
            self._open_shards(index)
        elif parts:
            self._open_parts(stem, parts)
        return single.is_file() or bool(index or parts)

    def _open_parts(self, stem: str, parts: list[Path]) -> None:
        """Opens the parts of a model that has no index."""
        count, digits = len(parts), len(parts[0].stem.rpartition("-")[2])
        ends = (f"{n:0{digits}}-of-{count:0{digits}}" for n in range(1, count + 1))
        pairs = zip(parts, (f"{stem}-{end}.safetensors" for end in ends), strict=True)
        if wrong := [part.name for part, name in pairs if part.name != name]:
            raise UserError(
                f"{self.folder} has {count} parts of {stem} and no index, and {wrong[0]} is none "
                f"of {count}; copy all files of one model into the folder."
            )
        for part in parts:
            opened = _open(part)
            if twice := self._files.keys() & opened.keys():
                raise UserError(f"{part} and another part both have the tensor {min(twice)!r}.")
            self._files |= dict.fromkeys(opened.keys(), opened)

    def _open_shards(self, index: Path) -> None:
        weight_map = _weight_map(index)
        shards = {shard: _open(index.parent / shard) for shard in sorted(set(weight_map.values()))}
        held = {shard: set(opened.keys()) for shard, opened in shards.items()}
        for name, shard in weight_map.items():
            if name not in held[shard]:
                raise UserError(
                    f"{index} looks for the tensor {name!r} in {shard}, which does not have it; "
                    "the files are not of one model: copy all of them again."
                )
            self._files[name] = shards[shard]

    def names(self) -> list[str]:
        """Names of all tensors, sorted."""
        return sorted(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return tuple(self._slice(name).get_shape())

    def dtype(self, name: str) -> np.dtype:
        """Type of a tensor's numbers; a `UserError` if NumPy has none."""
        dtype = self._slice(name).get_dtype()
        if dtype not in _DTYPES:
            raise UserError(
                f"{self.folder}: tensor {name!r} has numbers of type {dtype}, which is not "
                f"supported; convert it to one of {', '.join(_DTYPES)}."
            )
        return np.dtype(_DTYPES[dtype])

    def check_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Makes sure that a tensor is there and has a shape; a `UserError` otherwise."""
        if self.shape(name) != tuple(shape):
            raise UserError(
                f"{self.folder}: tensor {name!r} has shape {self.shape(name)}, and {tuple(shape)} "
                "is needed; the weights do not belong to the config.json beside them."
            )

    def read(self, name: str) -> np.ndarray:
        """A whole tensor, as it is stored."""
        return self.read_slice(name, ())

    def read_slice(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """A part of a tensor; only its bytes are read.

        The index has slices without a step, one for each of the first axes.
        """
        self.dtype(name)
        part = self._slice(name)
        sizes = zip(index, part.get_shape(), strict=False)
        bounds = [slice(*bound.indices(size)[:2]) for bound, size in sizes]
        if not bounds:
            return self._files[name].get_tensor(name)
        if any(bound.start >= bound.stop for bound in bounds):  # safetensors refuses empty ones
            return np.zeros(part.get_shape(), self.dtype(name))[tuple(bounds)]
        return part[tuple(bounds)]

    def _slice(self, name: str) -> Any:
        if name not in self._files:
            raise UserError(
                f"{self.folder} has no tensor {name!r} among its {len(self._files)}; it holds "
                "another kind of model, or a part of one."
            )
        return self._files[name].get_slice(name)


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="numpy")
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing; copy all files of the model into one folder."
        ) from error
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path} cannot be read ({error}); it is not a safetensors file, or it is damaged: "
            "copy it again."
        ) from error


def _weight_map(index: Path) -> dict[str, str]:
    """Which file has which tensor."""
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        if all(Path(shard).name == shard for shard in weight_map.values()):
            return weight_map
        problem = "it names files of other folders"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{type(error).__name__}: {error}"
    raise UserError(f"{index} is not an index of safetensors files ({problem}); copy it again.")


def _variants(folder: Path, stem: str) -> list[str]:
    """Names of the variants of a model, as "fp16" of `model.fp16.safetensors`."""
    forms = (
        rf"{stem}\.([^.-]+)(?:-\d+-of-\d+)?\.safetensors(?:\.index\.json)?",
        rf"{stem}\.safetensors\.index\.([^.]+)\.json",
    )
    names = [path.name for path in folder.iterdir()]
    return sorted(
        {found[1] for form in forms for name in names if (found := re.fullmatch(form, name))}
    )


def _nothing_found(folder: Path, stem: str) -> UserError:
    missing = f"{folder} has neither {stem}.safetensors nor {stem}.safetensors.index.json"
    if pickles := sorted(path.name for path in folder.glob("*.bin")):
        return UserError(
            f"{missing}, only {pickles[0]}, a pickle that could run foreign code; save the model "
            "as safetensors with the library it is from: model.save_pretrained(FOLDER)."
        )
    return UserError(f"{missing}; give the folder that holds the weights.")
