"""Every way a run can end badly, as one line, a way out, and an exit code."""

from __future__ import annotations

import errno
import os
import traceback

import click

from smartsplat_large.errors import CapacityError, Interrupted, SmartSplatError

DEBUG = "SMARTSPLAT_DEBUG"
"""Environment variable: when it is set, an error also prints its traceback."""

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def report(error: BaseException) -> None:
    """Write ``error:`` and ``hint:`` to stderr."""
    if os.environ.get(DEBUG):
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    message, hint = describe(error)
    click.echo(f"{click.style('error:', fg='red', bold=True)} {_one_line(message)}", err=True)
    if hint:
        click.echo(f"{click.style('hint:', fg='cyan', bold=True)} {_one_line(hint)}", err=True)


def exit_code(error: BaseException) -> int:
    """0 done, 2 usage, 3 bad input, 4 does not fit in memory or on disk, 5 interrupted, 1 a fault of ours."""
    if isinstance(error, SmartSplatError):
        return error.exit_code
    if isinstance(error, click.ClickException):
        return 2
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return 5
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _DISK_FULL):
        return CapacityError.exit_code
    return 1


def describe(error: BaseException) -> tuple[str, str | None]:
    """What happened, and what to do about it."""
    if isinstance(error, SmartSplatError | Interrupted):
        return error.message, error.hint
    if isinstance(error, click.ClickException):
        return _usage(error)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return "interrupted; nothing half-written is left", None
    if isinstance(error, MemoryError):
        return f"memory ran out{_detail(error)}", "fewer --workers, a higher --ratio, or a machine with more memory"
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        where = error.filename or "standard output or a temporary file"
        return f"{where}: {error.strerror}", "make room there, or point TMPDIR or the output to another disk"
    return (
        f"{type(error).__name__}{_detail(error)}",
        f"a fault of this program; run it again with {DEBUG}=1 for the traceback, and report that",
    )


def _usage(error: click.ClickException) -> tuple[str, str]:
    message = error.format_message().rstrip(".")
    context = error.ctx if isinstance(error, click.UsageError) else None
    return message, f"{context.command_path if context else 'smartsplat-large'} --help lists what it takes"


def _detail(error: BaseException) -> str:
    return f": {error}" if str(error) else ""


def _one_line(text: str) -> str:
    return " ".join(text.split("\n")).strip()
