"""Every way to end badly, as one line and an exit code."""

from __future__ import annotations

import errno
import subprocess
import sys

import click
import pytest

from smartsplat_large.cli import run
from smartsplat_large.cli.failures import exit_code, report
from smartsplat_large.errors import DiskFullError, MemoryLimitError, SourceError, SplatFileError, UsageError

HINT = "do that"


@pytest.mark.parametrize(
    ("error", "code", "message", "hint"),
    [
        (UsageError("a: b", hint=HINT), 2, "a: b", HINT),
        (SourceError("a:\nb", hint=HINT), 3, "a: b", HINT),
        (SplatFileError("a", hint=HINT), 3, "a", HINT),
        (MemoryLimitError("a", hint=HINT), 4, "a", HINT),
        (DiskFullError("a", hint=HINT), 4, "a", HINT),
        (MemoryError(), 4, "memory ran out", "fewer --workers"),
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/x"), 4, "/tmp/x: No space left on device", "make room"),
        (KeyboardInterrupt(), 5, "interrupted", None),
        (click.UsageError("No such option."), 2, "No such option", "smartsplat-large --help"),
        (OSError(errno.EIO, "Input/output error", "/x"), 1, "OSError: ", "SMARTSPLAT_DEBUG=1"),
        (ZeroDivisionError("division by zero"), 1, "ZeroDivisionError: division by zero", "SMARTSPLAT_DEBUG=1"),
    ],
)
def test_report(
    error: BaseException, code: int, message: str, hint: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    report(error)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert exit_code(error) == code
    assert out == ""
    assert lines[0].startswith(f"error: {message}")
    assert len(lines) == (2 if hint else 1)
    if hint:
        assert lines[1].startswith("hint: ")
        assert hint in lines[1]


def test_debugging_adds_the_traceback(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMARTSPLAT_DEBUG", "1")
    try:
        raise ZeroDivisionError
    except ZeroDivisionError as error:
        report(error)
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert "error: ZeroDivisionError" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing command"),
        (["fot"], "No such command 'fot'"),
        (["fit"], "Missing argument 'IMAGE'"),
        (["fit", "x.png", "--nope"], "No such option '--nope'"),
        (["fit", "x.png", "--preset", "superb"], "'superb' is not one of 'paper', 'balanced', 'fast', 'best'"),
        (["fit", "x.png", "--device", "tpu"], "'tpu' is not one of 'auto', 'cpu', 'cuda'"),
        (["fit", "x.png", "--workers", "0"], "0 is not in the range x>=1"),
        (["fit", "x.png", "--ratio", "much"], "'much' is not a valid float"),
        (["decode", "x.ssplat"], "Missing option '-o'"),
        (["decode", "x.ssplat", "-o", "y.png", "--region", "1,2,3"], "--region '1,2,3' is not X,Y,W,H"),
        (["decode", "x.ssplat", "-o", "y.png", "--region", "1,2,3,4.5"], "--region '1,2,3,4.5' is not X,Y,W,H"),
        (["ingest", "x.png", "-o", "y.png"], "y.png: a working copy is a folder that ends in .zarr"),
    ],
)
def test_usage_errors_are_of_the_same_form(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    error, hint = err.splitlines()
    assert error.startswith("error: ")
    assert said in error
    assert hint.startswith("hint: ")


def test_signals_interrupt_once_and_a_swallowed_one_is_not_lost() -> None:
    script = """
import os, signal
from smartsplat_large.cli.interrupts import catch_signals, check
catch_signals()
class Swallowing:
    def __del__(self): os.kill(os.getpid(), signal.SIGTERM)
Swallowing()
os.kill(os.getpid(), signal.SIGINT)
try: check()
except KeyboardInterrupt: print("raised again")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "raised again\n")
