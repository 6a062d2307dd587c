"""Configs of `diffusers`: JSON whose every field must be understood, or nothing is imported."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lumiere_jax.runtime.errors import UserError


class Fields:
    """The fields of one config, each to be taken once."""

    def __init__(self, path: Path, defaults: Mapping[str, Any]):
        """Reads a file, whose fields must be among `defaults`; any other is a `UserError`.

        The defaults are what `diffusers` takes for fields that are absent. Names that begin with
        "_" are about the file and are left out.
        """
        self.path = path
        given = {n: value for n, value in read_json(path).items() if not n.startswith("_")}
        if unknown := sorted(set(given) - set(defaults)):
            raise UserError(
                f"{path} has the field {unknown[0]!r} (value {given[unknown[0]]!r}), which is not "
                "known, so what it means for the network is not either; import DeepFloyd IF's "
                "stage I or II."
            )
        self._values = {**defaults, **given}

    def take(self, name: str) -> Any:
        """The value of a field."""
        return self._values.pop(name)

    def number(self, name: str) -> int:
        """The value of a field that must be one whole number, or a list of equal ones."""
        value = self.take(name)
        numbers = value if isinstance(value, list) and value else [value]
        if not isinstance(numbers[0], int) or any(number != numbers[0] for number in numbers):
            self.refuse(name, value, "one whole number")
        return numbers[0]

    def choose(self, name: str, *allowed: Any) -> Any:
        """The value of a field that must be one of a few."""
        value = self.take(name)
        if not any(value == choice and type(value) in _kinds(choice) for choice in allowed):
            self.refuse(name, value, " or ".join(json.dumps(choice) for choice in allowed))
        return value

    def finish(self, fixed: Mapping[str, Any]) -> None:
        """Makes sure that all fields that are left have the one value that is supported."""
        for name in list(self._values):
            self.choose(name, fixed[name])

    def refuse(self, name: str, value: Any, supported: str) -> None:
        """Raises the `UserError` for a value."""
        raise UserError(
            f"{self.path}: {name}={json.dumps(value)} is not supported, only {supported}; import "
            "DeepFloyd IF's stage I or II."
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object; a `UserError` if the file is missing or holds none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{path} is missing; give a directory of DeepFloyd IF in the layout of diffusers, with "
            "the folders unet and scheduler."
        ) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); copy it again.") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object; copy it again.")
    return value


def _kinds(value: Any) -> tuple[type, ...]:
    """Types that a value of JSON may have: 1 and 1.0 are one number, but True is none."""
    return (int, float) if type(value) in (int, float) else (type(value),)
