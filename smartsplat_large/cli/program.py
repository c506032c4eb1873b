"""From the arguments of a process to its exit code."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Sequence

import click

from smartsplat_large.cli.commands import program
from smartsplat_large.cli.failures import DEBUG, exit_code, report
from smartsplat_large.cli.interrupts import catch_signals


def main() -> int:
    """The console script: what concerns the process as a whole, then :func:`run`."""
    catch_signals()
    if not sys.warnoptions and DEBUG not in os.environ:
        # What the libraries below have to say to programmers would break the promise of one line an error.
        warnings.simplefilter("ignore")
        logging.getLogger().addHandler(logging.NullHandler())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name need not be text; it must not be what ends a run in an encoding error.
            stream.reconfigure(errors="backslashreplace")
    code = run(sys.argv[1:])
    # Under python -m, CPython ends by SIGINT, whatever is returned, if that came while a string was executed, as the
    # making of a dataclass does. Executing another one takes it back.
    exec("")
    return code


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line; returns the exit code, and raises nothing."""
    try:
        # Not program.main: it answers Ctrl-C with an empty line of its own.
        with program.make_context("smartsplat-large", list(arguments)) as context:
            program.invoke(context)
        _flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except BrokenPipeError:
        # Whoever read the results has had enough of them.
        _drop_stdout()
        return 0
    except BaseException as error:
        report(error)
        _drop_stdout()
        return exit_code(error)
    return 0


def _flush() -> None:
    # A process may be started without a standard output.
    if sys.stdout is not None:
        sys.stdout.flush()


def _drop_stdout() -> None:
    """What nobody can take any more must not make the interpreter complain when it ends."""
    try:
        _flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
