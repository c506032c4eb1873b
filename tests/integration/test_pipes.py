"""The command line fed through a pipe, by a writer that takes its time."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from smartsplat_large.source import open_source

from .conftest import PICTURE, Command, Outcome

PNG = PICTURE.read_bytes()
FAST = ("--preset", "fast", "--steps", 2, "--ratio", 100, "--no-dashboard")


class Piped:
    """A command whose standard input this process writes."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "smartsplat_large", *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
        )  # fmt: skip

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def write_slowly(self, data: bytes) -> None:
        """In bands, with pauses."""
        for start in range(0, len(data), 30_000):
            self.write(data[start : start + 30_000])
            time.sleep(0.05)

    def end(self) -> Outcome:
        """Close standard input and wait."""
        out, err = self.process.communicate(timeout=120)
        return Outcome(self.process.returncode, out.decode(), err.decode())


@pytest.fixture
def piped(temporary: Path) -> Iterator[Callable[..., Piped]]:
    """``piped("ingest", "-", ...)``; what was started does not outlive the test."""
    started: list[Piped] = []

    def begin(*arguments: object) -> Piped:
        started.append(Piped(*arguments))
        return started[-1]

    yield begin
    for each in started:
        each.process.kill()
        each.process.communicate()


Begin = Callable[..., Piped]


@pytest.fixture
def fed(command: Command) -> Callable[..., Outcome]:
    """``fed(data, "ingest", "-", ...)``: a command in this process, whose standard input is a pipe."""

    def carry_out(data: bytes, *arguments: object) -> Outcome:
        usual, (ours, theirs) = os.dup(0), os.pipe()

        def write() -> None:
            with contextlib.suppress(BrokenPipeError), os.fdopen(theirs, "wb", buffering=0) as pipe:
                pipe.write(data)

        writer = threading.Thread(target=write)
        writer.start()
        os.dup2(ours, 0)
        os.close(ours)
        try:
            return command(*arguments)
        finally:
            os.dup2(usual, 0)
            os.close(usual)
            writer.join()

    return carry_out


def ppm(pixels: np.ndarray) -> bytes:
    return f"P6\n{pixels.shape[1]} {pixels.shape[0]}\n255\n".encode() + pixels.tobytes()


def pixel_files(folder: Path) -> dict[str, bytes]:
    """All files of a working copy but the one that holds the image's name."""
    files = [path for path in folder.rglob("*") if path.is_file() and path != folder / "zarr.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_working_copy_of_standard_input_is_that_of_the_file(command: Command, piped: Begin, tmp_path: Path) -> None:
    assert command("ingest", PICTURE, "-o", tmp_path / "file.zarr").code == 0
    running = piped("ingest", "-", "-o", tmp_path / "pipe.zarr", "--json")
    running.write_slowly(PNG)
    done = running.end()
    assert done.json["raw_bytes"] == 147456
    assert pixel_files(tmp_path / "pipe.zarr") == pixel_files(tmp_path / "file.zarr")


def test_a_command_ends_with_the_picture_not_with_the_pipe(
    piped: Begin, tmp_path: Path, scene: Callable[..., np.ndarray]
) -> None:
    pixels = scene(700, 300, 3)
    running = piped("ingest", "-", "-o", tmp_path / "a.zarr", "-q")
    running.write_slowly(ppm(pixels))
    assert running.process.wait(60) == 0
    with open_source(tmp_path / "a.zarr") as source:
        np.testing.assert_array_equal(source.read(source.meta.size.window), pixels)


def test_a_fit_of_a_pipe_makes_the_file_of_the_working_copy(command: Command, piped: Begin, tmp_path: Path) -> None:
    pipe, whole = tmp_path / "pipe" / PICTURE.name, tmp_path / "whole.ssplat"
    pipe.parent.mkdir()
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(PNG,))
    writer.start()
    assert command("fit", pipe, *FAST).code == 0
    writer.join()
    assert command("fit", PICTURE, "-o", whole, *FAST).code == 0
    assert pipe.with_suffix(".ssplat").read_bytes() == whole.read_bytes()
    running = piped("fit", "-", "-o", tmp_path / "a.ssplat", *FAST, "--json")
    running.write_slowly(PNG)
    done = running.end().json
    assert done["raw_bytes"] == 147456
    assert done["bytes"] == (tmp_path / "a.ssplat").stat().st_size
    assert done["ratio"] == done["raw_bytes"] / done["bytes"] >= 100


def test_eval_takes_a_pipe(piped: Begin, fitted: Path, command: Command) -> None:
    running = piped("eval", fitted, "-", "--json")
    running.write_slowly(PNG)
    assert running.end().json == command("eval", fitted, PICTURE, "--json").json


def test_compare_takes_a_pipe(piped: Begin, command: Command) -> None:
    flags = ("--region", "100,80,64,64", "--ratios", 20, "--codecs", "jpeg", "--preset", "fast", "--steps", 1)
    running = piped("compare", "-", *flags, "-q", "--json")
    running.write(PNG)
    found = [running.end(), command("compare", PICTURE, *flags, "-q", "--json")]
    assert len({tuple(each["direct"]["psnr"] for each in done.json["results"]) for done in found}) == 1


@pytest.mark.parametrize("verb", ["fit", "ingest"])
@pytest.mark.parametrize(("data", "said"), [
    (PNG[: len(PNG) // 2], "cannot be decoded"),
    (ppm(np.zeros((300, 300, 3), np.uint8))[:-1], "ended after 299 of 300 rows"),
    (b"", "ended without a byte"),
    (b"II*\0" + bytes(100), "TIFF"),
    (b"There was a picture here.", "not an image we know"),
], ids=["png", "ppm", "nothing", "tiff", "text"])  # fmt: skip
def test_what_cannot_be_read_leaves_nothing(
    fed: Callable[..., Outcome], tmp_path: Path, verb: str, data: bytes, said: str
) -> None:
    output = tmp_path / {"fit": "a.ssplat", "ingest": "a.zarr"}[verb]
    done = fed(data, verb, "-", "-o", output, "-q")
    error, hint = done.err.splitlines()
    assert (done.code, done.out) == (3, "")
    assert error.startswith("error: standard input: ")
    assert said in error
    assert hint.startswith("hint: ")
    assert list(tmp_path.iterdir()) == []


def test_waiting_for_a_picture_can_be_interrupted(piped: Begin, tmp_path: Path) -> None:
    running = piped("ingest", "-", "-o", tmp_path / "a.zarr", "-q")
    running.write(PNG[:40_000])
    while not list(tmp_path.iterdir()):
        assert running.process.poll() is None
        time.sleep(0.05)
    running.process.send_signal(signal.SIGINT)
    assert running.process.wait(60) == 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("flags", "said"), [
    ((), "standard input: has no name to write beside"),
    (("-o", "{tmp}/a.ssplat", "--resume"), "standard input: is a pipe, which cannot be read again"),
])  # fmt: skip
def test_what_a_pipe_cannot_give_is_not_waited_for(
    command: Command, tmp_path: Path, flags: tuple[str, ...], said: str
) -> None:
    done = command("fit", "-", *(word.format(tmp=tmp_path) for word in flags))
    assert done.code == 2
    assert said in done.err
    assert "\nhint: " in done.err


@pytest.mark.parametrize("verb", ["info", "decode"])
def test_a_file_of_gaussians_does_not_come_through_a_pipe(command: Command, tmp_path: Path, verb: str) -> None:
    done = command(verb, "-", *(("-o", tmp_path / "a.png") if verb == "decode" else ()))
    assert done.code == 3
    assert "standard input cannot be read at any offset" in done.err
