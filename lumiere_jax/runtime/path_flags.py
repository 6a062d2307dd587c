"""Flags that hold paths: a `~` in front is the user's home, which a shell leaves after a `=`."""

import os
from collections.abc import Sequence
from typing import Any

from absl import flags

flags.disclaim_key_flags()  # flags belong to the module that defines them by these functions


class PathParser(flags.ArgumentParser):
    """Reads the value of a flag with one path."""

    def parse(self, argument: str) -> str:
        """The path, with the home of a user in place of `~` or `~USER`."""
        return os.path.expanduser(argument)

    def flag_type(self) -> str:
        """What `--help` calls it."""
        return "path"


class PathListParser(flags.ListParser):
    """Reads the value of a flag with paths that commas separate."""

    def parse(self, argument: str | list[str]) -> list[str]:
        """The paths, as `PathParser` gives each."""
        return [os.path.expanduser(path) for path in super().parse(argument)]


def define_path(
    name: str, default: str | None, help: str, *, required: bool = False
) -> flags.FlagHolder:
    """Defines a flag of the calling module that holds a path, or an address with `://`."""
    return _define(PathParser(), name, default, help, required=required)


def define_paths(name: str, default: Sequence[str], help: str) -> flags.FlagHolder:
    """Defines a flag of the calling module that holds paths, with commas between them."""
    return _define(PathListParser(), name, list(default), help)


def _define(parser: Any, name: str, default: Any, help: str, **options: Any) -> flags.FlagHolder:
    is_list = isinstance(parser, PathListParser)
    serializer: Any = flags.CsvListSerializer(",") if is_list else flags.ArgumentSerializer()
    return flags.DEFINE(parser, name, default, help, serializer=serializer, **options)
