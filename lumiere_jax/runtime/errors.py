"""Errors that are meant for the user, and how a binary ends with them."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from absl import app, flags, logging

EXIT_USER_ERROR = 2
EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: the same command continues.
EXIT_PEER = 76
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it.


class UserError(Exception):
    """A mistake of the user, told in one message: what is wrong, where, and what to do."""


class Preempted(Exception):
    """The machine is taken away (SIGTERM): the work was stopped where it can be continued."""


class PeerError(Exception):
    """Another process of the same run hangs or is gone."""


def run(main: Callable[[Sequence[str]], int | None]) -> NoReturn:
    """Runs a binary: parses its flags, calls `main`, and ends the process.

    A `UserError`, a bad flag or an argument that is not a flag ends it with one line on
    stderr and exit code 2; an interrupt with one line and exit code 130; `Preempted` with 75;
    `PeerError` with 76. Any other exception is a defect of the program, not of its use, and
    keeps its traceback.

    Args:
      main: Called with a list of the program's name alone. What it returns becomes the exit code;
        None counts as 0.
    """
    sys.stdout.reconfigure(line_buffering=True)  # in a log file, each line when it is printed
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
    except Preempted as error:
        return _report(f"preempted: {error}", EXIT_PREEMPTED)
    except PeerError as error:
        _report(str(error), EXIT_PEER)
        sys.stdout.flush()
        os._exit(EXIT_PEER)  # an ordinary end would wait for the process that is gone
    except KeyboardInterrupt:
        return _report("interrupted", EXIT_INTERRUPTED)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    """Parses the flags as absl does, but tells a mistake in one line."""
    try:
        remaining = flags.FLAGS(argv)
        if flags.FLAGS["verbosity"].using_default_value:
            logging.set_verbosity(logging.WARNING)  # absl shows the INFO of libraries
        _look_at_configs()
        return remaining
    except KeyboardInterrupt:
        sys.exit(_report("interrupted", EXIT_INTERRUPTED))
    except Exception as error:
        message = _describe_flag_error(error)
        if message is None:
            raise
        sys.exit(_report(message, EXIT_USER_ERROR))


def _look_at_configs() -> None:
    """Raises an `OSError` now for a config file that ml_collections reports only when used.

    Its flag for config files holds back a failure to load until an attribute is looked at.
    """
    for name in flags.FLAGS:
        hasattr(flags.FLAGS[name].value, "lock")


def _describe_flag_error(error: Exception) -> str | None:
    """Puts an error of parsing the flags in words; None if it is a defect of the program."""
    if isinstance(error, UserError | app.UsageError):
        return str(error)
    if isinstance(error, OSError):
        return f"the config file cannot be loaded: {_last_line(error)}"
    if isinstance(error, flags.IllegalFlagValueError) and "Traceback" in str(error):
        # get_config() of a config file raised: absl's message holds the whole traceback.
        flag, place = str(error).split(": ", 1)[0], _origin(error)
        return f"{flag}: {_last_line(error)} ({place.filename}, line {place.lineno})"
    if isinstance(error, flags.Error):
        return f"{error} (--help lists the flags)"
    if isinstance(error, AttributeError | KeyError) and _is_config_override(error):
        return f"a flag sets a field that the config does not have: {_innermost_message(error)}"
    return None


def _last_line(error: Exception) -> str:
    """The last line of an error's message, where libraries put the point of it."""
    return str(error).strip().splitlines()[-1].strip(' "')


def _innermost_message(error: Exception) -> str:
    """The message of the error that an error was made from, in one line."""
    while isinstance(error.args[0], Exception):
        error = error.args[0]
    return ". ".join(str(error.args[0]).splitlines())


def _origin(error: BaseException) -> traceback.FrameSummary:
    """The line of code that raised the first of a chain of errors."""
    while error.__context__ is not None:
        error = error.__context__
    return traceback.extract_tb(error.__traceback__)[-1]


def _is_config_override(error: Exception) -> bool:
    """Whether an error arose where ml_collections follows the path of `--config.a.b=...`."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(Path(frame.filename).name == "config_path.py" for frame in frames)


def _report(message: str, exit_code: int) -> int:
    """Prints one line on stderr and hands the exit code through."""
    prefix = "error: " if exit_code in (EXIT_USER_ERROR, EXIT_PEER) else ""
    print(prefix + " ".join(message.split()), file=sys.stderr, flush=True)
    return exit_code
