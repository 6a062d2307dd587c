"""Errors that are meant for the user, and how a binary ends with them."""

import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags, logging

from lumiere_jax.runtime.devices import leave_out_missing_tpu

EXIT_USER_ERROR = 2
EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: the same command continues.
EXIT_PEER = 76
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as a shell reports it.


class UserError(Exception):
    """A mistake of the user, told in one message: what is wrong, where, and what to do."""


class Preempted(Exception):
    """The machine is taken away (SIGTERM): the work was stopped where it can be resumed."""


class PeerError(Exception):
    """Another process of the same run hangs or is gone."""


def run(main: Callable[[list[str]], int | None]) -> NoReturn:
    """Runs a binary: parses its flags, calls `main`, and ends the process.

    A `UserError`, a bad flag or an argument that is not a flag ends it with one line on
    stderr and exit code 2; an interrupt with one line and exit code 130; `Preempted` with 75;
    `PeerError` with 76. Any other exception is a defect of the program and keeps its traceback.

    Args:
      main: takes a list of the program's name alone, and returns the exit code; None counts as 0.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # in a log file, each line when it is printed
    sys.unraisablehook = _on_unraisable
    leave_out_missing_tpu()
    app.run(lambda argv: _call(main, argv), flags_parser=_parse_flags)
    raise AssertionError("absl.app.run does not return")


def _call(main: Callable[[list[str]], int | None], argv: list[str]) -> int | None:
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


def _parse_flags(argv: list[str]) -> list[str]:
    """Parses the flags as absl does, but tells a mistake in one line."""
    try:
        remaining = flags.FLAGS(argv)
    except KeyboardInterrupt:
        sys.exit(_report("interrupted", EXIT_INTERRUPTED))
    except (flags.Error, UserError, app.UsageError) as error:
        hint = " (--help lists the flags)" if isinstance(error, flags.Error) else ""
        sys.exit(_report(f"{error}{hint}", EXIT_USER_ERROR))
    if flags.FLAGS["verbosity"].using_default_value:
        logging.set_verbosity(logging.WARNING)  # absl shows the INFO of libraries
    return remaining


def _on_unraisable(dropped: "sys.UnraisableHookArgs") -> None:
    """Sends an interrupt again that Python has dropped.

    A destructor and a callback of the garbage collector, of which JAX has one, cannot raise: a
    Ctrl-C that arrives in one of them would only be printed.
    """
    if issubclass(dropped.exc_type, KeyboardInterrupt):
        again = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(dropped)


def _report(message: str, exit_code: int) -> int:
    """Prints one line on stderr and hands the exit code through."""
    prefix = "error: " if exit_code in (EXIT_USER_ERROR, EXIT_PEER) else ""
    print(prefix + " ".join(message.split()), file=sys.stderr, flush=True)
    return exit_code
