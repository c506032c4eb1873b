"""Saved states at an address: gone on from, and found out if damaged, as those of a disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from cut_fits import IDENTITY, Killed, Notes, Steps, assert_identical, fit

from smartsplat_large import columns
from smartsplat_large.errors import DiskFullError, UsageError
from smartsplat_large.streaming import checkpoint as checkpoints
from smartsplat_large.streaming.checkpoint import Checkpoint


@pytest.fixture
def store() -> Iterator[str]:
    """An address that is empty before and after."""
    yield "memory://fits/state"
    assert not fsspec.filesystem("memory").exists("/fits/state")


def at(url: str, notes: Notes | None = None, *, resume: bool = True) -> Checkpoint:
    checkpoint = Checkpoint(url, IDENTITY, notes or Notes(), interval_s=0.0)
    checkpoint.open("memory://fits/out", resume=resume)
    return checkpoint


def test_a_state_in_a_store_is_gone_on_from(store: str) -> None:
    with pytest.raises(Killed):
        fit(at(store), steps=Steps(7))
    system = fsspec.filesystem("memory")
    assert {Path(path).name for path in system.ls("/fits/state", detail=False)} == {"a", "b", "commit.json"}
    steps, checkpoint = Steps(), at(store)
    assert_identical(fit(checkpoint, steps=steps), fit(None))
    assert steps.taken == 12 - 6
    checkpoint.remove()


def test_a_damaged_state_in_a_store_is_found_out(store: str) -> None:
    with pytest.raises(Killed):
        fit(at(store), steps=Steps(7))
    system, notes = fsspec.filesystem("memory"), Notes()
    first, second = (
        entry["slot"] for entry in json.loads(json.loads(system.cat("/fits/state/commit.json"))["body"])["commits"]
    )
    system.rm(f"/fits/state/{first}", recursive=True)
    assert at(store, notes).take_resumed() is not None
    system.pipe_file(next(path for path in system.find(f"/fits/state/{second}") if "/c/" in path), b"something else")
    assert at(store, notes).take_resumed() is None
    assert notes.said[-1].endswith("no commit is whole; the fit starts anew")
    at(store).remove()


def test_a_store_that_fails_is_said_and_its_last_commit_stays(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, notes = type(fsspec.filesystem("memory")), Notes()
    put, left = kind.pipe_file, [30]

    def denied(self: Any, path: str, value: bytes, **options: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise RuntimeError("the bucket is gone")
        put(self, path, value, **options)

    monkeypatch.setattr(kind, "pipe_file", denied)
    fit(at(store, notes))
    (said,) = (note for note in notes.said if "cannot be saved" in note)
    assert "the bucket is gone" in said
    assert said.endswith("the last commit stays")
    monkeypatch.undo()
    assert at(store).take_resumed() is not None
    at(store).remove()


def test_a_store_out_of_reach_is_no_empty_one(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", unreachable)
    with pytest.raises(UsageError, match="memory://fits/state: cannot be read: PermissionError: not yours"):
        at(store)


def test_a_full_disk_here_is_no_damage_there(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> np.ndarray:
        raise DiskFullError("no room")

    with pytest.raises(Killed):
        fit(at(store), steps=Steps(7))
    with monkeypatch.context() as patch:
        patch.setattr(columns, "empty", full)
        with pytest.raises(DiskFullError, match="no room"):
            at(store).take_resumed()
    assert at(store).take_resumed() is not None
    at(store).remove()


def test_an_output_in_a_store_is_known_after_a_kill(store: str) -> None:
    parts = [b"the output, ", b"in parts"]
    with pytest.raises(Killed), at(store).delivering(parts):
        raise Killed
    assert not fsspec.filesystem("memory").exists("/fits/state")
    with at(store).delivering(parts):
        fsspec.filesystem("memory").pipe_file("/fits/out", b"".join(parts))
    assert checkpoints.is_delivered(store, "memory://fits/out")
    again = at(store)
    assert again.delivered
    fsspec.filesystem("memory").pipe_file("/fits/out", b"something else.. .. ")
    assert not checkpoints.is_delivered(store, "memory://fits/out")
    again.remove()
