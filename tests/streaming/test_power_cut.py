"""A power cut at any moment of a save, or while the output is put in its place: the state before or the one after."""

from __future__ import annotations

import os
import random
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smartsplat_large.atomic_output import await_on_disk
from smartsplat_large.codec import write_atomic
from smartsplat_large.progress import Silent
from smartsplat_large.streaming.checkpoint import Checkpoint
from smartsplat_large.streaming.state import Snapshot

IDENTITY = {"version": "1", "state format": 1, "image": {}, "settings": {}, "plan": {}}
PARTS = [b"the output, " * 40, b"in two parts"]
CHANGES = ("replace", "rename", "unlink", "rmdir", "mkdir")


class Disk:
    """A folder as a power cut would leave it: bytes and names that were synced are there, any others may be.

    A file that was not synced may be empty, cut short, full of zeros or whole; a change of a name may be there or not,
    whatever became of others.
    """

    def __init__(self, root: Path, images: Path, seed: int) -> None:
        self.root, self.images, self.random = root, images, random.Random(seed)
        self.moment: Any = None
        """What the test does at the time; nothing is cut while it is None."""
        self.left: list[tuple[Any, Path]] = []
        """What cuts have left, each with its moment."""
        # zarr has threads of its own.
        self._lock = threading.RLock()
        self._synced: dict[int, bytes] = {}
        self._names: dict[int, dict[str, int]] = {}
        self._held: dict[int, int] = {}
        self._top = root.stat().st_ino

    def sync(self, handle: int) -> None:
        """In the place of ``os.fsync``."""
        with self._lock:
            self._cut()
            found = os.fstat(handle)
            if stat.S_ISDIR(found.st_mode):
                self._names[found.st_ino] = {name: self._hold(name, handle) for name in os.listdir(handle)}
            else:
                self._synced[found.st_ino] = os.pread(handle, found.st_size, 0)
                # An open file keeps its number, so that a later one cannot be taken for it.
                self._held.setdefault(found.st_ino, os.dup(handle))
            self._cut()

    def watch(self, change: Callable[..., Any]) -> Callable[..., Any]:
        """``change``, with a cut before it and one after it."""

        def carry_out(*arguments: Any, **options: Any) -> Any:
            with self._lock:
                self._cut()
                done = change(*arguments, **options)
                self._cut()
            return done

        return carry_out

    def _cut(self) -> None:
        """Keep what a power cut would leave now: the least of it, and some of the rest."""
        moment, self.moment = self.moment, None
        if moment is None:
            return
        for least in (True, False, False):
            image = self.images / str(len(self.left))
            image.mkdir()
            self._restore(self._top, self.root, image, least)
            self.left.append((moment, image))
        self.moment = moment

    def close(self) -> None:
        for handle in self._held.values():
            os.close(handle)

    def _hold(self, name: str, folder: int) -> int:
        handle = os.open(name, os.O_RDONLY, dir_fd=folder)
        number = os.fstat(handle).st_ino
        if number in self._held:
            os.close(handle)
        else:
            self._held[number] = handle
        return number

    def _restore(self, number: int, now: Path | None, image: Path, least: bool) -> None:
        before = self._names.get(number, {})
        after = {path.name: path.stat().st_ino for path in now.iterdir()} if now is not None else {}
        for name in sorted({*before, *after}):
            old, new = before.get(name), after.get(name)
            chosen = old if old == new or least else self.random.choice((old, new))
            if chosen is None:
                continue
            current = now / name if now is not None and chosen == new else None
            handle = self._held.get(chosen)
            mode = (current.stat() if handle is None else os.fstat(handle)).st_mode
            if stat.S_ISDIR(mode):
                (image / name).mkdir()
                self._restore(chosen, current, image / name, least)
            else:
                written = current.read_bytes() if handle is None else os.pread(handle, os.fstat(handle).st_size, 0)
                (image / name).write_bytes(self._bytes(self._synced.get(chosen, b""), written, least))

    def _bytes(self, synced: bytes, written: bytes, least: bool) -> bytes:
        if least or synced == written:
            return synced
        return self.random.choice((synced, written, written[: len(written) // 2], bytes(len(written))))


@pytest.fixture(params=range(3))
def disk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """One under ``tmp_path``, whose power may be cut before and after whatever changes a name or syncs."""
    for name in ("root", "images"):
        (tmp_path / name).mkdir()
    made = Disk(tmp_path / "root", tmp_path / "images", request.param)
    monkeypatch.setattr(os, "fsync", made.sync)
    for name in CHANGES:
        monkeypatch.setattr(os, name, made.watch(getattr(os, name)))
    yield made
    made.close()


def opened(root: Path, *, resume: bool = True) -> Checkpoint:
    checkpoint = Checkpoint(root / "out.state", IDENTITY, Silent(), interval_s=0)
    checkpoint.open(root / "out", resume=resume)
    return checkpoint


def state(number: int) -> Snapshot:
    r = np.random.default_rng(number)
    return Snapshot("descent", {"xy": r.random((50, 2)), "color": r.random((50, 3), np.float32)}, {"number": number})


def resumed(root: Path) -> int | None:
    """The number of the state that is taken over, all of whose arrays must be those it was saved with."""
    found = opened(root).take_resumed()
    if found is None:
        return None
    number = int(found.values["number"])
    for name, array in state(number).arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
    return number


def commit(checkpoint: Checkpoint, number: int) -> None:
    checkpoint.hold(lambda: state(number))
    assert checkpoint.commit()


def test_a_cut_while_saving_leaves_the_state_before_or_after(disk: Disk) -> None:
    checkpoint, seen = opened(disk.root, resume=False), set()
    for number in (1, 2, 3):
        disk.moment = number
        commit(checkpoint, number)
        disk.moment = None
    for number, image in disk.left:
        found = resumed(image)
        assert found in (number - 1 or None, number)
        seen.add((number, found))
    assert seen == {(1, None), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3)}


def test_a_cut_at_the_end_leaves_the_output_or_the_state(disk: Disk) -> None:
    checkpoint, whole, seen = opened(disk.root, resume=False), b"".join(PARTS), set()
    for number in (1, 2):
        commit(checkpoint, number)
    disk.moment = "writing"
    with checkpoint.delivering(PARTS):
        write_atomic(disk.root / "out", PARTS)
    disk.moment = "removing"
    checkpoint.remove()
    disk.moment = None
    for moment, image in disk.left:
        if not (image / "out").exists():
            assert resumed(image) == 2
            seen.add((moment, "state"))
            continue
        assert (image / "out").read_bytes() == whole
        # What is left is to verify it, until the marker goes: that is the end.
        delivered = opened(image).delivered
        assert delivered == (image / "out.state" / "commit.json").exists()
        seen.add((moment, "delivered" if delivered else "over"))
    assert seen == {("writing", "state"), ("writing", "delivered"), ("removing", "delivered"), ("removing", "over")}
    assert [path.name for path in disk.root.iterdir()] == ["out"]


def test_a_cut_leaves_an_old_output_or_the_new_one(disk: Disk) -> None:
    (disk.root / "out").write_bytes(b"the old one")
    for path in (disk.root / "out", disk.root):
        await_on_disk(path)
    disk.moment = "writing"
    write_atomic(disk.root / "out", PARTS, overwrite=True)
    assert {(image / "out").read_bytes() for _, image in disk.left} == {b"the old one", b"".join(PARTS)}


def test_the_disk_finds_out_who_does_not_sync(disk: Disk) -> None:
    """The double itself: a file that is renamed without being synced may be torn."""
    (disk.root / "part").write_bytes(b"some bytes")
    disk.moment = "writing"
    os.replace(disk.root / "part", disk.root / "out")  # noqa: PTH105
    await_on_disk(disk.root)
    assert b"" in {path.read_bytes() for _, image in disk.left for path in image.glob("out")}
