"""Sections of a config: typed and frozen inside, checked where a user's values enter."""

import dataclasses
import numbers
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Self

from ml_collections import ConfigDict, FrozenConfigDict

from lumiere_jax.runtime.errors import UserError

_NAMES = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}


class ConfigSection(Mapping[str, Any]):
    """Base of the frozen dataclasses that declare the fields of a config.

    A field may be a number, text, a `Literal`, a tuple, another section, or a `FrozenConfigDict`,
    whose names are free. A section is also a mapping, of those fields that are not None.
    """

    @classmethod
    def parse(cls, given: Any, place: str = "") -> Self:
        """Makes a section of what a user wrote; missing fields have their defaults.

        `place` is the path of the section in the whole config, with a dot at its end. A field that
        is unknown, missing or of the wrong type is a `UserError`.
        """
        hints, fields = typing.get_type_hints(cls), dataclasses.fields(typing.cast(Any, cls))
        known = [field.name for field in fields]
        for name in given:
            if name not in known:
                raise UserError(
                    f"the config has no field {place}{name}; {place.rstrip('.') or 'it'} has: "
                    f"{', '.join(known)}."
                )
        for field in fields:
            if field.name not in given and field.default is dataclasses.MISSING:
                raise UserError(f"the config lacks the field {place}{field.name}.")
        values = {name: _checked(hints[name], given[name], f"{place}{name}") for name in given}
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dicts, without the sections that are None."""
        return {
            name: value.to_dict() if hasattr(value, "to_dict") else value
            for name, value in self.items()
        }

    def __getitem__(self, name: str) -> Any:
        if name not in iter(self):
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        names = (field.name for field in dataclasses.fields(typing.cast(Any, self)))
        return (name for name in names if getattr(self, name) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _checked(hint: Any, value: Any, name: str) -> Any:
    """The value as a field's type has it."""
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:  # a section that not every stage has
        return None if value is None else _checked(choices[0], value, name)
    if origin is typing.Literal:
        if value not in choices:
            known = f"{', '.join(map(str, choices[:-1]))} or {choices[-1]}"
            raise UserError(f"{name} {value!r} is unknown; use {known}.")
        return value
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_checked(choices[0], x, f"{name}[{i}]") for i, x in enumerate(value))
    if hint is Any or origin is Mapping:
        return value
    if isinstance(hint, type) and issubclass(hint, ConfigSection | FrozenConfigDict):
        if isinstance(value, hint):
            return value
        if isinstance(value, Mapping | ConfigDict):
            is_free = issubclass(hint, FrozenConfigDict)
            return FrozenConfigDict(value) if is_free else hint.parse(value, f"{name}.")
        raise UserError(f"{name}={value!r} must be a section with fields of its own.")
    kind = {int: numbers.Integral, float: numbers.Real}.get(hint, hint)
    if origin is tuple or not isinstance(value, kind) or isinstance(value, bool) != (hint is bool):
        raise UserError(f"{name}={value!r} must be {_NAMES.get(hint, 'a tuple')}.")
    return value
