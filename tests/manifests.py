"""Manifests of bundles, altered by other programs."""

import hashlib
import json
from pathlib import Path
from typing import Any

from lumiere_jax.checkpoints import bundle


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """As another program would, with its checksum."""
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    found = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    (folder / bundle.MANIFEST).write_text(json.dumps(rest | {"sha256": found}))
