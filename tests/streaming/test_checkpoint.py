"""Saved fits: the same end wherever they were cut, nothing half-written believed, nothing foreign taken over."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cut_fits import CONFIG, IDENTITY, Failing, Killed, Notes, Signalled, Steps, assert_identical, fit, opened

from smartsplat_large.errors import ClusterLostError, DiskFullError, Interrupted, SmartSplatError, UsageError
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.progress import Silent
from smartsplat_large.streaming import checkpoint as checkpoints
from smartsplat_large.streaming import state_store
from smartsplat_large.streaming.checkpoint import Checkpoint
from smartsplat_large.streaming.signals import uninterrupted
from smartsplat_large.streaming.state import Best, start_snapshot


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No power is cut here; some disks take a tenth of a second for every file."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def _signals() -> Iterator[None]:
    """Ctrl-C raises, even where the tests were started in the background and it would be ignored."""
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, usual)


@pytest.fixture(scope="module")
def whole() -> Best:
    """The fit without a cut."""
    return fit(None)


@pytest.mark.parametrize("at", [1, 6, 7, 12])
def test_a_fit_that_was_killed_goes_on_as_if_nothing_had_been(at: int, whole: Best, tmp_path: Path) -> None:
    """In every phase, beside relocations; commits after each step, so the last one is of the step before."""
    with pytest.raises(Killed):
        fit(opened(tmp_path / "state"), steps=Steps(at))
    steps = Steps()
    assert_identical(fit(opened(tmp_path / "state"), steps=steps, workers=3), whole)
    assert steps.taken == 12 - (at - 1)


@pytest.mark.parametrize("at", [8, 10, 11])
def test_the_number_of_gaussians_is_that_of_an_uninterrupted_fit(at: int, tmp_path: Path) -> None:
    """It changes at full size, after steps 9 and 10."""
    config = dataclasses.replace(CONFIG.replace(bytes=800), relocate_every=1, relocate_until=0.9)
    whole = fit(None, config, budget_bytes=800)
    assert len(whole.gaussians) != 90
    with pytest.raises(Killed):
        fit(opened(tmp_path / "state"), config, steps=Steps(at), budget_bytes=800)
    assert_identical(fit(opened(tmp_path / "state"), config, workers=3, budget_bytes=800), whole)


@pytest.mark.parametrize("at", [1, 4, 9, 13])
@pytest.mark.usefixtures("_signals")
def test_an_interrupt_commits_whatever_the_interval(at: int, whole: Best, tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="state of the fit is in") as caught:
        fit(opened(tmp_path / "state", interval_s=1e9), renderer=Signalled(at))
    assert "--resume" in caught.value.hint
    place = marker(tmp_path / "state")["commits"][0]["values"].get("place", {"taken": 0})
    steps = Steps()
    assert_identical(fit(opened(tmp_path / "state", interval_s=1e9), steps=steps), whole)
    assert steps.taken == 12 - place["taken"]


def test_a_fit_that_diverged_resumes_with_its_lower_rates(tmp_path: Path) -> None:
    wild = CONFIG.replace(gaussians=900, optimizer=dataclasses.replace(CONFIG.optimizer, lr_color=50.0, lr_scale=3.0))
    with pytest.raises(Killed):
        fit(opened(tmp_path / "state"), wild, steps=Steps(10))
    resumed, straight = fit(opened(tmp_path / "state"), wild), fit(None, wild)
    assert straight.lost
    assert_identical(resumed, straight)


def test_after_the_last_step_nothing_is_left_to_do(whole: Best, tmp_path: Path) -> None:
    fit(opened(tmp_path / "state"))
    steps = Steps()
    assert_identical(fit(opened(tmp_path / "state"), steps=steps), whole)
    assert steps.taken == 0


def test_a_short_fit_writes_nothing_and_a_finished_one_leaves_nothing(tmp_path: Path) -> None:
    fit(opened(tmp_path / "state", interval_s=30))
    assert list(tmp_path.iterdir()) == []
    checkpoint = opened(tmp_path / "state")
    fit(checkpoint)
    (tmp_path / "state" / "mine").touch()
    checkpoint.remove()
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["mine"]


def marker(folder: Path) -> dict[str, Any]:
    said = json.loads(json.loads((folder / "commit.json").read_text())["body"])
    assert isinstance(said, dict)
    return said


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize(
    ("harm", "name"),
    [(cut_short, "adam_mean/c/0/0"), (zeroed, "color/c/0/0"), (zeroed, "xy/zarr.json"), (Path.unlink, "zarr.json")],
)
def test_a_torn_commit_falls_back_to_the_one_before(
    harm: Callable[[Path], None], name: str, whole: Best, tmp_path: Path
) -> None:
    state, notes = tmp_path / "state", Notes()
    with pytest.raises(Killed):
        fit(opened(state), steps=Steps(8))
    last, before = marker(state)["commits"]
    assert last["values"]["place"]["taken"] == before["values"]["place"]["taken"] + 1
    harm(state / last["slot"] / name)
    steps = Steps()
    assert_identical(fit(opened(state, notes), steps=steps), whole)
    assert steps.taken == 12 - (8 - 2)
    assert f"the commit in {last['slot']} is damaged" in notes.said[0]


def test_without_a_whole_marker_or_commit_the_fit_starts_anew(whole: Best, tmp_path: Path) -> None:
    for name in ("commit.json", "?/zarr.json"):
        state, notes = tmp_path / "state", Notes()
        with pytest.raises(Killed):
            fit(opened(state), steps=Steps(6))
        for path in state.glob(name):
            cut_short(path)
        assert_identical(fit(opened(state, notes)), whole)
        assert "starts anew" in notes.said[-1]
        opened(state).remove()


def test_a_kill_in_the_middle_of_a_commit_leaves_the_one_before(
    whole: Best, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every place where something has just been written and is awaited on the disk."""
    sync, left = state_store.await_on_disk, [0]

    def fatal(path: Path) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        sync(path)

    for after in (100, 140):
        state = tmp_path / str(after)
        left[0] = after
        monkeypatch.setattr(state_store, "await_on_disk", fatal)
        with pytest.raises(Killed):
            fit(opened(state))
        monkeypatch.undo()
        assert_identical(fit(opened(state, interval_s=30)), whole)


def test_a_full_disk_is_said_once_and_does_no_harm(
    whole: Best, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, left, notes = state_store.await_on_disk, [200], Notes()

    def full(path: Path) -> None:
        left[0] -= 1
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        sync(path)

    monkeypatch.setattr(state_store, "await_on_disk", full)
    checkpoint = opened(tmp_path / "state", notes, resume=False)
    assert_identical(fit(checkpoint), whole)
    assert [note for note in notes.said if "No space left on device" in note] == notes.said
    assert len(notes.said) == 1
    assert "the last commit stays" in notes.said[0]
    left[0] = 1_000_000
    assert_identical(fit(opened(tmp_path / "state", interval_s=30)), whole)
    checkpoint.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_has_room_again_is_written_to_again(
    whole: Best, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was being written when it ran full."""
    for full in range(40, 200, 13):
        sync, calls, notes = state_store.await_on_disk, [0], Notes()

        def filled(path: Path, sync=sync, calls=calls, full=full) -> None:
            calls[0] += 1
            if calls[0] == full:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            sync(path)

        monkeypatch.setattr(state_store, "await_on_disk", filled)
        state = tmp_path / str(full)
        with pytest.raises(Killed):
            fit(opened(state, notes, resume=False), steps=Steps(11))
        monkeypatch.undo()
        monkeypatch.setattr(os, "fsync", lambda handle: None)
        assert ["again" in note for note in notes.said] == [False, True]
        steps = Steps()
        assert_identical(fit(opened(state, interval_s=30), steps=steps), whole)
        assert steps.taken == 12 - 10


@pytest.mark.parametrize(("error", "way_out"), [(ClusterLostError, "start a cluster"), (DiskFullError, "make room")])
def test_what_can_be_mended_saves_the_state_and_says_so(
    error: type[SmartSplatError], way_out: str, whole: Best, tmp_path: Path
) -> None:
    checkpoint = opened(tmp_path / "state", interval_s=1e9)
    with pytest.raises(error, match=r"so it is; the state of the fit is in .*state$") as caught, checkpoint:
        fit(checkpoint, steps=Failing(5, error("so it is")))
    assert caught.value.hint == f"{way_out + (', or leave out --scheduler' if error is ClusterLostError else '')}; " + (
        "the same command with --resume goes on"
    )
    steps = Steps()
    assert_identical(fit(opened(tmp_path / "state"), steps=steps), whole)
    assert steps.taken == 12 - 5


def test_a_large_state_is_saved_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, saved = [0.0], []
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    checkpoint = opened(tmp_path / "state", interval_s=30)

    def publish(*_: object) -> None:
        saved.append(clock[0])
        clock[0] += 6

    monkeypatch.setattr(checkpoint, "_publish", publish)
    monkeypatch.setattr(checkpoints, "_write", lambda *_: {})
    checkpoint.hold(lambda: start_snapshot("sampled", Gaussians.empty(3)))
    for second in range(400):
        clock[0] = max(clock[0], float(second))
        checkpoint.commit_if_due()
    assert saved == [30, 156, 282]


def test_a_place_that_cannot_be_written_leaves_nothing(whole: Best, tmp_path: Path) -> None:
    notes = Notes()
    (tmp_path / "state").write_text("a file")
    assert_identical(fit(opened(tmp_path / "state", notes, resume=False)), whole)
    assert len(notes.said) == 1
    assert "the fit goes on without" in notes.said[0]
    assert (tmp_path / "state").read_text() == "a file"


def test_without_resume_the_state_is_said_and_replaced(whole: Best, tmp_path: Path) -> None:
    state, notes = tmp_path / "state", Notes()
    with pytest.raises(Killed):
        fit(opened(state), steps=Steps(5))
    steps = Steps()
    assert_identical(fit(opened(state, notes, resume=False), steps=steps), whole)
    assert steps.taken == 12
    assert "--resume would go on" in notes.said[0]
    assert marker(state)["commits"][0]["stage"] == "fitted"


def test_nothing_to_resume_is_said(tmp_path: Path) -> None:
    notes = Notes()
    opened(tmp_path / "state", notes)
    assert "nothing to resume" in notes.said[0]


def test_room_is_announced_where_it_is_much(tmp_path: Path) -> None:
    notes = Notes()
    for count in (1_000_000, 10_000_000):
        opened(tmp_path / "state", notes, resume=False).announce(count, 3)
    assert len(notes.said) == 1
    assert "2.76 GiB" in notes.said[0]


def test_a_state_that_may_not_fit_is_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes, state = Notes(), tmp_path / "state"
    free = 2 * 148 * 1000 - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=1 << 40, free=free))
    opened(state, notes, resume=False).announce(1000, 3)
    (note,) = notes.said
    assert note.endswith("; 289.06 KiB are free, so it may not fit")
    (state / "a").mkdir(parents=True)
    (state / "a" / "0").write_bytes(bytes(1))
    opened(state, notes, resume=False).announce(1000, 3)
    assert len(notes.said) == 1, "what lies there will be replaced"


def test_the_announced_room_is_the_measured_one(tmp_path: Path) -> None:
    fit(opened(tmp_path / "state"), CONFIG.replace(gaussians=5000, steps=2))
    assert sum(path.stat().st_size for path in (tmp_path / "state").rglob("c/**/*") if path.is_file()) <= 2 * 5000 * 144


def test_arrays_of_several_chunks_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_CHUNK_ROWS", 7)
    r = np.random.default_rng(0)
    f32 = np.float32
    many = Gaussians(
        r.random((30, 2)), r.random((30, 2)).astype(f32), r.random(30).astype(f32), r.random((30, 1)).astype(f32)
    )
    checkpoint = opened(tmp_path / "state")
    checkpoint.hold(lambda: start_snapshot("sampled", many))
    assert checkpoint.commit()
    back = opened(tmp_path / "state").resumed_gaussians
    assert back is not None
    for column in ("xy", "scale", "rotation", "color"):
        np.testing.assert_array_equal(getattr(back, column), getattr(many, column))


def test_what_has_changed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        fit(opened(tmp_path / "state"), steps=Steps(3))
    other = Checkpoint(tmp_path / "state", IDENTITY | {"settings": {"seed": 1}}, Silent())
    with pytest.raises(UsageError, match="setting seed was not set, is 1") as caught:
        other.open(tmp_path / "out", resume=True)
    notes = Notes()
    Checkpoint(tmp_path / "state", IDENTITY | {"settings": {"seed": 1}}, notes).open(tmp_path / "out", resume=False)
    assert "is the state of another fit" in notes.said[0]
    assert caught.value.hint is not None
    assert "without --resume" in caught.value.hint


def test_an_interrupt_after_the_end_names_no_state(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path / "state")
    fit(checkpoint)
    with pytest.raises(KeyboardInterrupt) as caught, checkpoint:  # noqa: PT012
        checkpoint.remove()
        raise KeyboardInterrupt
    assert caught.type is KeyboardInterrupt


@pytest.mark.usefixtures("_signals")
def test_signals_wait_for_the_end_of_a_change() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        done.append("all of it")
    assert done == ["all of it"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
