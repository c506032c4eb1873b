"""Ctrl-C, SIGTERM, full disks: what was there is still there, and nothing else."""

from __future__ import annotations

import re
import signal
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from .conftest import Command, Start

LONG = ("--preset", "fast", "--steps", 1_000_000, "--ratio", 20)


def read_until(process: subprocess.Popen[str], pattern: str) -> re.Match[str]:
    """The first match on the process's stderr."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if match := re.search(pattern, line):
            return match
    pytest.fail(f"{pattern!r} was never said: {seen}")


def wait_for(folder: Path, pattern: str) -> None:
    """Return when something of that name is in ``folder``."""
    deadline = time.monotonic() + 60
    while not any(folder.glob(pattern)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_fit_leaves_the_old_file(start: Start, picture: Path, tmp_path: Path, number: int) -> None:
    out = tmp_path / "a.ssplat"
    out.write_bytes(b"the old one")
    process = start("fit", picture, "-o", out, *LONG, "--overwrite", "--json")
    read_until(process, "choosing colours")
    process.send_signal(number)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (5, "")
    assert [line.split(";")[0] for line in stderr.splitlines() if line.startswith("error")] == ["error: interrupted"]
    assert {path.name for path in tmp_path.iterdir()} <= {"a.ssplat", "a.ssplat.state"}
    assert out.read_bytes() == b"the old one"


def test_the_dashboard_answers_and_goes_with_the_fit(start: Start, picture: Path, tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    process = start("fit", picture, "-o", tmp_path / "a.ssplat", *LONG, "--dashboard")
    url = read_until(process, r"dask dashboard: (http://127\.0\.0\.1:\d+/status)")[1]
    page = read_until(process, r"progress of the fit: (http://127\.0\.0\.1:\d+/smartsplat)")[1]
    for address in (url, page):
        with urllib.request.urlopen(address, timeout=30) as answer:
            assert answer.status == 200
            assert b'<a href="smartsplat">' in answer.read()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert process.returncode == 5
    # Until the first Gaussians are there, no state is worth keeping.
    assert {path.name for path in tmp_path.iterdir()} <= {"a.ssplat.state"}


@pytest.mark.parametrize("name", ["a.tif", "a.zarr", "a.png", "a.jpg", "a.npy"])
def test_an_interrupted_decode_leaves_nothing(start: Start, fitted: Path, tmp_path: Path, name: str) -> None:
    process = start("decode", fitted, "-o", tmp_path / name, "--scale", 60)
    wait_for(tmp_path, f"{name}.*.part")
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 5
    assert stderr.splitlines()[-1] == "error: interrupted; nothing half-written is left"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.ssplat", "a.tif", "a.zarr", "a.png", "a.jpg", "a.npy"])
def test_a_full_disk_leaves_the_old_file(start: Start, picture: Path, fitted: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    before = set()
    if not name.endswith(".zarr"):
        out.write_bytes(b"the old one")
        before = {name}
    if name.endswith(".ssplat"):
        arguments = ["fit", picture, "-o", out, "--gaussians", 4000, "--preset", "fast", "--steps", 1]
    else:
        arguments = ["decode", fitted, "-o", out]
    # A limit on the size of files is met like the end of the disk; this one is of two or four kilobytes.
    process = start(*arguments, "--overwrite", "-q", wrapper=("sh", "-c", 'ulimit -f 4; exec "$0" "$@"'))
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (4, ""), stderr
    error, hint = stderr.splitlines()
    assert error.startswith(f"error: {out}: the disk is full (")
    assert hint.startswith("hint: make room")
    assert {path.name for path in tmp_path.iterdir()} == before
    assert not before or out.read_bytes() == b"the old one"


def test_a_reader_that_leaves_is_no_error(start: Start, fitted: Path) -> None:
    process = start("info", fitted)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert (process.stderr.read(), process.wait(timeout=30)) == ("", 0)


def test_results_that_cannot_be_written_are_an_error(fitted: Path, start: Start) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    process = start("info", fitted, wrapper=("sh", "-c", 'exec "$0" "$@" >/dev/full'))
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 4
    assert stderr.startswith("error: standard output")


def test_memory_that_runs_out_is_said_so(
    command: Command, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise MemoryError("Unable to allocate 8.00 GiB")

    monkeypatch.setattr("smartsplat_large.api.sample", exhausted)
    done = command("fit", picture, "-o", tmp_path / "a.ssplat", "-q")
    assert done.code == 4
    assert done.err.startswith("error: memory ran out: Unable to allocate 8.00 GiB\nhint: ")
    assert list(tmp_path.iterdir()) == []
