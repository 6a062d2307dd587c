"""`manifest.json` of a bundle: read, and checked before anything is taken from it.

Whoever made a bundle wrote its checksum as well; so its shape is checked too, and neither a name in
it leads out of the bundle nor what stages share in a ring.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, cast

from lumiere_jax.cascade.config import NETWORKS
from lumiere_jax.runtime.errors import UserError

MANIFEST = "manifest.json"
VERSION = 2
CHECKSUM = "sha256"


class StageEntry(TypedDict):
    """What a manifest says of a stage."""

    config: dict
    step: int | None  # None where it is not known
    shares: str | None  # the stage whose equal parameters it leaves out
    parameters: int  # with those that it shares
    bytes: int  # of its file
    sha256: str  # of its file


class Manifest(TypedDict):
    """All of a manifest."""

    version: int
    licence: str  # spelt so since version 0.1.0
    dtype: str
    stages: dict[str, StageEntry]


_FIELDS = {"licence": str, "dtype": str, "stages": dict}
_OF_A_CONFIG = {"stage": str, "model": dict, "text": dict, "data": dict, "diffusion": dict,
                "sampling": dict, "optimizer": dict, "train": dict}  # fmt: skip


def checksum(values: Mapping[str, Any]) -> str:
    """SHA-256 of values, such as all of a manifest but this checksum of it."""
    rest = {name: value for name, value in values.items() if name != CHECKSUM}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def read(bundle: Path) -> Manifest:
    """The manifest of a bundle; a `UserError` if it is of another version, altered, or not one."""
    place = bundle / MANIFEST
    try:
        manifest = json.loads(place.read_text(encoding="utf-8"))
        version = manifest["version"]
    except OSError as error:
        raise UserError(
            f"{place} cannot be read ({error.strerror}); give the folder of a bundle."
        ) from error
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise broken(place, "is not the manifest of a bundle") from error
    if not _is(version, int):
        raise broken(place, "is not the manifest of a bundle")
    if version != VERSION:
        raise UserError(
            f"{place} is of version {version} of the format, and this program reads {VERSION}; use "
            f"the {'newer' if version > VERSION else 'older'} program that wrote it, or export "
            "again."
        )
    if manifest.get(CHECKSUM) != checksum(manifest):
        raise broken(place, "is not what its checksum says")
    if problem := _problem(manifest):
        raise broken(place, f"is not the manifest of a bundle ({problem})")
    return cast(Manifest, manifest)


def broken(file: Path, problem: str) -> UserError:
    """An error about a file of a bundle."""
    return UserError(f"{file} {problem}; get the bundle again (in a clone: git checkout).")


def _problem(manifest: Mapping[str, Any]) -> str:
    """What is wrong with it; "" if nothing is."""
    if wrong := _wrong_field(manifest, _FIELDS):
        return wrong
    stages = manifest["stages"]
    if not stages:
        return "it has no stages"
    for name, entry in stages.items():
        if not name.isidentifier():
            return f"{name!r} is not a name for a stage"
        wrong = "not a mapping"
        if isinstance(entry, dict):
            wrong = _wrong_field(entry, StageEntry.__annotations__)
            wrong = wrong or _wrong_field(entry["config"], _OF_A_CONFIG)
        if not wrong and entry["config"]["stage"] not in NETWORKS:
            wrong = f"its kind {entry['config']['stage']!r} is unknown"
        if wrong:
            return f"stage {name!r}: {wrong}"
    for name in stages:
        seen, shared = [name], stages[name]["shares"]
        while shared is not None:
            if shared not in stages:
                return f"stage {seen[-1]!r} shares with {shared!r}, which is not there"
            if shared in seen:
                return f"stage {name!r} shares with itself"
            seen.append(shared)
            shared = stages[shared]["shares"]
    return ""


def _wrong_field(values: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    for name, kind in wanted.items():
        if name not in values:
            return f"{name!r} is missing"
        if not _is(values[name], kind):
            return f"{name!r} is {values[name]!r:.60}"
    return ""


def _is(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
