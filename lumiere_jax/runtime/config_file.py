"""Config files, and the flag `--config=FILE:VARIANT`, whose fields other flags override."""

import os
import runpy
import traceback
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from lumiere_jax.runtime.errors import UserError


def load(file: str | Path) -> ConfigDict:
    """The config that `get_config` of `FILE` or `FILE:VARIANT` returns; else a `UserError`."""
    path, *variant = str(file).split(":", 1)
    try:
        content = runpy.run_path(os.path.expanduser(path))
        if "get_config" not in content:
            raise UserError(f"--config={file}: the file has no function get_config.")
        config = content["get_config"](*variant)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"the config file cannot be loaded: {error}") from error
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(
            f"--config={file}: {type(error).__name__}: {error} "
            f"({place.filename}, line {place.lineno})"
        ) from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={file}: get_config() returns no ConfigDict, but {config!r}.")
    return config


def define_flag(help_string: str, name: str = "config") -> flags.FlagHolder:
    """Defines the flag; its value is a locked config, or None where the flag is missing.

    Unlike `config_flags.DEFINE_config_file`, it tells every mistake as a `UserError`, and while
    the flags are parsed: a file that cannot be loaded, or an override of a field that is not there.
    """
    flag = _ConfigFlag(
        parser=_Parser(),
        serializer=flags.ArgumentSerializer(),
        name=name,
        default=None,
        help_string=help_string,
        flag_values=flags.FLAGS,
    )
    return flags.DEFINE_flag(flag)


class _Parser(flags.ArgumentParser):
    def parse(self, argument: str) -> ConfigDict:
        return load(argument).lock()

    def flag_type(self) -> str:
        return "config file"


class _ConfigFlag(config_flags._ConfigFlag):
    def _parse(self, argument: str) -> ConfigDict:
        try:
            return super()._parse(argument)
        except (AttributeError, LookupError, ValueError) as error:  # on the way to a field
            raise UserError(
                f"a flag sets a field that the config does not have: {_innermost_message(error)}"
            ) from error


def _innermost_message(error: BaseException) -> str:
    """The message of the error that an error was made from; `ConfigDict` wraps it."""
    while isinstance(error.args[0], Exception):
        error = error.args[0]
    return ". ".join(str(error.args[0]).splitlines())
