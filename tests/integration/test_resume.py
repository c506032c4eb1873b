"""A fit that is killed again and again ends in the very file of one that was left alone."""

from __future__ import annotations

import errno
import itertools
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest

from smartsplat_large import atomic_output

from .conftest import Command, Start

SETTINGS = ("--preset", "fast", "--gaussians", 400, "--steps", 200, "--no-dashboard")
Scene = Callable[..., np.ndarray[Any, Any]]


@pytest.fixture
def expected(command: Command, image: Path, tmp_path: Path) -> bytes:
    """The file of a fit that was left alone."""
    assert command("fit", image, "-o", tmp_path / "whole.ssplat", *SETTINGS, "-q").code == 0
    return (tmp_path / "whole.ssplat").read_bytes()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("mode", ["exact", "blocked"])
def test_random_kills_do_not_change_the_file(
    mode: str, start: Start, command: Command, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    chosen = tmp_path_factory.mktemp("settings") / "mode.toml"
    chosen.write_text(f'mode = "{mode}"\nsteps_per_visit = 3\n')
    settings = (*SETTINGS, "--config", chosen)
    assert command("fit", image, "-o", tmp_path / "whole.ssplat", *settings, "-q").code == 0
    expected = (tmp_path / "whole.ssplat").read_bytes()
    # What a process that was killed leaves in its temporary folder is for the system to clear away.
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("of-the-killed")))
    monkeypatch.setenv("SMARTSPLAT_COMMIT_S", "0.03")
    out, state, moments = tmp_path / "a.ssplat", tmp_path / "a.ssplat.state", random.Random(1)
    for workers in (1, 2, 1):
        process = start("fit", image, "-o", out, *settings, "--resume", "--workers", workers)
        before = {path: path.stat().st_mtime_ns for path in state.glob("commit.json")}
        wait_until(
            lambda p=process, b=before: (
                p.poll() is not None
                or any(path.stat().st_mtime_ns != b.get(path) for path in state.glob("commit.json"))
            )
        )
        time.sleep(moments.uniform(0, 0.2))
        process.kill()
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL
        assert not out.exists()
    done = command("fit", image, "-o", out, *settings, "--resume")
    assert done.code == 0, done.err
    assert "starts anew" not in done.err
    assert out.read_bytes() == expected
    assert {path.name for path in tmp_path.iterdir()} == {"a.npy", "whole.ssplat", "a.ssplat"}


def test_an_interrupt_names_the_way_on(
    start: Start, command: Command, image: Path, expected: bytes, tmp_path: Path
) -> None:
    out = tmp_path / "a.ssplat"
    process = start("fit", image, "-o", out, *SETTINGS)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("solving colours"):
            break
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (5, ""), stderr
    assert stderr.splitlines()[-2:] == [
        f"error: interrupted; the state of the fit is in {out}.state",
        "hint: the same command with --resume goes on",
    ]
    assert {path.name for path in tmp_path.iterdir()} == {"a.npy", "whole.ssplat", "a.ssplat.state"}

    changed = command("fit", image, "-o", out, *SETTINGS, "--resume", "--seed", 7, "-q")
    assert changed.code == 2
    assert "is not of this fit: setting seed was 0, is 7" in changed.err
    assert "hint: " in changed.err

    again = command("fit", image, "-o", out, *SETTINGS, "--resume")
    assert again.code == 0, again.err
    assert re.search(r"going on after \d+ of 60 steps", again.err) or "encode" in again.err
    assert out.read_bytes() == expected
    assert not Path(f"{out}.state").exists()


def test_a_state_that_finds_no_room_does_not_end_the_fit(
    start: Start, image: Path, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMARTSPLAT_COMMIT_S", "0")
    # A limit on the size of files, between that of the output and that of an array of the state.
    wrapper = ("sh", "-c", 'ulimit -f 10; exec "$0" "$@"')
    process = start("fit", image, "-o", tmp_path / "a.ssplat", *SETTINGS, wrapper=wrapper)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert stderr.count("the state cannot be saved (File too large); the fit goes on without") == 1
    assert (tmp_path / "a.ssplat").read_bytes() == expected
    assert {path.name for path in tmp_path.iterdir()} == {"a.npy", "whole.ssplat", "a.ssplat"}


def test_another_image_is_not_gone_on_with(
    start: Start, command: Command, image: Path, scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.ssplat"

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("smartsplat_large.api.encode_within", interrupted)
    assert command("fit", image, "-o", out, *SETTINGS, "-q").code == 5
    monkeypatch.undo()
    np.save(image, 255 - scene(260, 300, 3))
    done = command("fit", image, "-o", out, *SETTINGS, "--resume", "-q")
    assert done.code == 2
    assert "the image has changed: its " in done.err
    anew = command("fit", image, "-o", out, *SETTINGS)
    assert anew.code == 0
    assert "is the state of another fit, which this one replaces; this fit starts anew" in anew.err
    assert not Path(f"{out}.state").exists()


def test_a_fit_that_is_killed_while_it_is_verified_is_only_verified(
    start: Start, command: Command, image: Path, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:  # fmt: skip
    out, state = tmp_path / "a.ssplat", tmp_path / "a.ssplat.state"
    temporary = str(tmp_path_factory.mktemp("of-the-killed"))
    monkeypatch.setenv("TMPDIR", temporary)
    process = start("fit", image, "-o", out, *SETTINGS)
    wait_until(out.exists)
    process.kill()
    process.communicate(timeout=30)
    if process.returncode == 0:
        pytest.skip("the fit was faster than its end")
    assert out.read_bytes() == expected
    assert {path.name for path in state.iterdir()} == {"commit.json"}

    changed = command("fit", image, "-o", out, *SETTINGS, "--resume", "--seed", 7)
    assert changed.code == 2
    assert "setting seed was 0, is 7" in changed.err
    done = command("fit", image, "-o", out, *SETTINGS, "--resume", "--json")
    assert done.code == 0, done.err
    assert [line.split(":")[0] for line in done.err.splitlines()] == [str(out), "verify"]
    assert done.json["bytes"] == len(expected)
    assert out.read_bytes() == expected
    assert not state.exists()
    again = command("fit", image, "-o", out, *SETTINGS, "--resume")
    assert again.code == 2
    assert "exists already" in again.err


def test_an_output_that_is_not_the_one_that_was_written_is_in_the_way(
    command: Command, image: Path, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "a.ssplat"
    monkeypatch.setattr("smartsplat_large.api._verified", interrupted)
    assert command("fit", image, "-o", out, *SETTINGS).code == 5
    monkeypatch.undo()
    out.write_bytes(bytes(len(expected)))
    assert "exists already" in command("fit", image, "-o", out, *SETTINGS, "--resume").err
    out.unlink()
    assert command("fit", image, "-o", out, *SETTINGS, "--resume").code == 0
    assert out.read_bytes() == expected


def test_a_disk_without_room_for_the_output_keeps_the_state(
    command: Command, image: Path, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, sync = tmp_path / "a.ssplat", atomic_output.await_on_disk

    def full(path: Path) -> None:
        if path.suffix == ".part":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        sync(path)

    monkeypatch.setattr(atomic_output, "await_on_disk", full)
    done = command("fit", image, "-o", out, *SETTINGS)
    monkeypatch.undo()
    assert done.code == 4
    error, hint = done.err.splitlines()[-2:]
    assert re.fullmatch(
        rf"error: {out}: the disk is full \(\d+ MB left\); the state of the fit is in {out}\.state", error
    )
    assert hint == "hint: make room; the same command with --resume goes on"
    assert not out.exists()
    again = command("fit", image, "-o", out, *SETTINGS, "--resume")
    assert again.code == 0
    assert not re.search("^(drawing points|solving colours|fit):", again.err, re.MULTILINE)
    assert out.read_bytes() == expected
    assert {path.name for path in tmp_path.iterdir()} == {"a.npy", "whole.ssplat", "a.ssplat"}


def test_a_scheduler_that_goes_away_ends_the_fit_and_not_its_state(
    start: Start,
    command: Command,
    image: Path,
    expected: bytes,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    distributed = pytest.importorskip("distributed")
    out = tmp_path / "a.ssplat"
    with (
        dask.config.set({"temporary-directory": str(tmp_path_factory.mktemp("dask"))}),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, protocol="tcp://", host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
    ):  # fmt: skip
        process = start("fit", image, "-o", out, *SETTINGS, "--scheduler", cluster.scheduler_address)
        assert process.stderr is not None
        seen = list(itertools.takewhile(lambda line: not line.startswith("solving colours"), process.stderr))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 5, (seen, err)
    error, hint = err.splitlines()[-2:]
    assert error.startswith("error: the dask cluster at tcp://127.0.0.1:")
    assert error.endswith(f"; the state of the fit is in {out}.state")
    assert hint == "hint: start a cluster, or leave out --scheduler; the same command with --resume goes on"
    assert "Traceback" not in err
    again = command("fit", image, "-o", out, *SETTINGS, "--resume")
    assert again.code == 0, again.err
    assert out.read_bytes() == expected
