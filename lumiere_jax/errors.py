"""Errors that are meant for the user, and how a binary ends with them."""

import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from absl import app, flags

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it.


class UserError(Exception):
    """A mistake of the user, told in one message: what is wrong, where, and what to do."""


def run(main: Callable[[Sequence[str]], int | None]) -> NoReturn:
    """Runs a binary: parses its flags, calls `main`, and ends the process.

    A `UserError`, a bad flag or an argument that is not a flag ends it with one line on
    stderr and exit code 2; an interrupt with one line and exit code 130. Any other exception
    is a defect of the program, not of its use, and keeps its traceback.

    Args:
        main: Called with a list of the program's name alone. What it returns becomes the exit
            code; None counts as 0.
    """
    app.run(lambda argv: _call(main, argv), flags_parser=_parse_flags)
    raise AssertionError("absl.app.run does not return")


def _call(main: Callable[[Sequence[str]], int | None], argv: Sequence[str]) -> int | None:
    """Calls `main` and turns what the user can mend into an exit code."""
    try:
        if len(argv) > 1:
            raise UserError(
                f"unexpected argument {argv[1]!r}: everything is passed by flags; "
                "put a value that contains spaces in quotes"
            )
        return main(argv)
    except (UserError, app.UsageError) as error:
        return _report(str(error), EXIT_USER_ERROR)
    except KeyboardInterrupt:
        return _report("interrupted", EXIT_INTERRUPTED)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the flags as absl does, but tells a mistake in one line."""
    try:
        remaining = flags.FLAGS(argv)
        _check_config_files()
        return remaining
    except flags.Error as error:
        message = f"{error} (--help lists the flags)"
        sys.exit(_report(message, EXIT_USER_ERROR))
    except (UserError, app.UsageError) as error:
        sys.exit(_report(str(error), EXIT_USER_ERROR))
    except KeyboardInterrupt:
        sys.exit(_report("interrupted", EXIT_INTERRUPTED))


def _check_config_files() -> None:
    """Raises `UserError` now for a config file that ml_collections would miss only later.

    Its flag for config files keeps a failure to load and raises it as an `OSError` whenever
    the config is first looked at, which here is a look at an attribute that every config has.
    """
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        try:
            hasattr(flag.value, "lock")
        except OSError as error:
            path = getattr(flag, "config_filename", "")
            raise UserError(f"--{name}={path}: {error.__cause__ or error}") from error


def _report(message: str, exit_code: int) -> int:
    """Prints one line on stderr and hands the exit code through."""
    prefix = "error: " if exit_code == EXIT_USER_ERROR else ""
    print(prefix + " ".join(message.split()), file=sys.stderr, flush=True)
    return exit_code
