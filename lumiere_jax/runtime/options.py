"""Options that are declared once, as fields of a dataclass.

The flags of commands, the fields of requests and the checks of values all derive from there.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from absl import flags

from lumiere_jax.runtime.errors import UserError

flags.disclaim_key_flags()  # flags belong to the module that defines them by `define_flag`

_NOUNS = {int: "an integer", float: "a number", str: "a text"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
    """An option as users see it: its name is that of the flag, and of the field of a request."""

    name: str
    type: type
    default: Any  # None if it is decided elsewhere
    help: str
    minimum: float | None = None
    above: float | None = None  # what every value is above
    maximum: float | None = None
    served_maximum: float | None = None  # the largest that a server takes from clients, if less
    choices: tuple[str, ...] = ()

    @property
    def largest_served(self) -> float | None:
        """The largest value that a server takes."""
        return self.maximum if self.served_maximum is None else self.served_maximum

    @property
    def rule(self) -> str:
        """What a value must be, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        bounds = {"at least": self.minimum, "above": self.above, "at most": self.maximum}
        parts = [f"{word} {bound:.12g}" for word, bound in bounds.items() if bound is not None]
        return " and ".join(parts) or f"{_NOUNS[self.type]} that is finite"

    def accepts(self, value: Any) -> bool:
        """Whether a value is in range."""
        if value is None:
            return self.default is None
        if self.choices:
            return value in self.choices
        if self.type in (str, bool):
            return True
        return (
            math.isfinite(value)
            and (self.minimum is None or value >= self.minimum)
            and (self.above is None or value > self.above)
            and (self.maximum is None or value <= self.maximum)
        )


def option(default: Any, help: str, *, name: str | None = None, **limits: Any) -> Any:
    """A field of a dataclass that declares an option; users may know it by another name."""
    metadata = {"help": help, "limits": limits} | ({"name": name} if name else {})
    return dataclasses.field(default=default, metadata=metadata)


def declared(declaration: type) -> Mapping[str, Option]:
    """The options that a dataclass declares, by the names of the fields; others are left out."""
    hints = typing.get_type_hints(declaration)
    return types.MappingProxyType(
        {
            field.name: Option(
                name=field.metadata.get("name", field.name),
                type=_plain(hints[field.name]),
                default=field.default,
                help=field.metadata["help"],
                **field.metadata["limits"],
            )
            for field in dataclasses.fields(declaration)
            if "help" in field.metadata
        }
    )


def check(declaration: type, values: Mapping[str, Any]) -> None:
    """Checks values, by the names of the fields; a `UserError` names what one must be."""
    options = declared(declaration)
    for field, value in values.items():
        if not options[field].accepts(value):
            raise UserError(f"{options[field].name}={value} must be {options[field].rule}.")


def define_flag(
    option: Option, flag_values: flags.FlagValues = flags.FLAGS, **changes: Any
) -> flags.FlagHolder:
    """Defines a flag of the calling module; `changes` are attributes to replace."""
    option = dataclasses.replace(option, **changes)
    arguments = option.name, option.default, option.help, flag_values
    if option.type is bool:
        return flags.DEFINE_bool(*arguments)
    serializer: flags.ArgumentSerializer[Any] = flags.ArgumentSerializer()
    return flags.DEFINE(_Parser(option), *arguments, serializer=serializer)


class _Parser(flags.ArgumentParser):
    """Reads and checks the value of a flag."""

    def __init__(self, option: Option):
        self._option = option
        noun = _NOUNS[option.type]
        self.syntactic_help = option.rule if option.choices else noun
        if option.rule.startswith(("at", "above")):
            self.syntactic_help = f"{noun}, {option.rule}"

    def parse(self, argument: Any) -> Any:
        try:
            value = self._option.type(argument)
        except ValueError:
            raise ValueError(f"must be {_NOUNS[self._option.type]}") from None
        if not self._option.accepts(value):
            raise ValueError(f"must be {self._option.rule}")
        return value

    def flag_type(self) -> str:
        return self._option.type.__name__


def _plain(hint: Any) -> type:
    """`int` for `int | None` and the like, `str` for names."""
    if typing.get_origin(hint) is typing.Literal:
        return str
    kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
    return _plain(kinds[0]) if kinds else hint
