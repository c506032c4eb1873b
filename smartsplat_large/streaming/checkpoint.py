"""The saved state of a fit, so that a run that was killed at any moment goes on from its last commit.

Beside the output, or at an address, lie two zarr groups, ``a`` and ``b``, written in turn, and ``commit.json``, the marker,
which is replaced in one step once a group is whole and on the disk. What a marker does not name is never read; the group
that it names is not touched until the next marker has taken its place. Checksums of all arrays stand in the marker, so a
group that a power cut left incomplete is found out, and the commit before it is used.

The marker also knows the output, by its checksum, before it is put in its place: a run that was killed after that need only
verify it. Whatever a marker's fate, the output is whole or absent, by :mod:`~smartsplat_large.atomic_output`.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np

from smartsplat_large import columns
from smartsplat_large.codec.byte_file import open_bytes
from smartsplat_large.errors import ClusterLostError, DiskFullError, Interrupted, SplatFileError, UsageError
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.memory import GiB, MiB, format_bytes
from smartsplat_large.native_threads import zarr_alone
from smartsplat_large.places import Place
from smartsplat_large.progress import Progress
from smartsplat_large.streaming.fingerprint import Fingerprint, differences
from smartsplat_large.streaming.signals import uninterrupted
from smartsplat_large.streaming.state import Snapshot
from smartsplat_large.streaming.state_store import SLOTS, StateStore, state_store

INTERVAL_S = 30.0
INTERVAL_VARIABLE = "SMARTSPLAT_COMMIT_S"
"""Environment variable: seconds between commits, for tests."""

_PIECE_BYTES = 8 * MiB
_CHUNK_ROWS = 1 << 18
"""Rows that are copied at once: some MiB."""
_WORTH_SAYING = GiB
_MOST_SHARE = 0.05
"""Of the time of a fit that goes into commits, at most, beside those at landmarks."""
_RESUME = "the same command with --resume goes on"


class Checkpoint:
    """Commits what it holds from time to time, and in any case when an interrupt ends its ``with`` block.

    Without a place it does nothing. When commits happen has no influence on the fit.
    """

    def __init__(
        self, place: Place | None, identity: Fingerprint, progress: Progress, *, interval_s: float | None = None
    ) -> None:
        self.store = state_store(place)
        self._identity, self._progress = identity, progress
        usual = float(os.environ.get(INTERVAL_VARIABLE, INTERVAL_S))
        self._interval_s = usual if interval_s is None else interval_s
        self._began = self._last = time.monotonic()
        self._took_s = 0.0
        self._held: Callable[[], Snapshot] | None = None
        self._commits: list[dict[str, Any]] = []
        self._resumed: Snapshot | None = None
        self._output: dict[str, int] | None = None
        self._failing = False
        self.delivered = False
        """Whether the output is in its place, as far as the marker knows."""

    @classmethod
    def none(cls, progress: Progress) -> Self:
        """One that keeps nothing."""
        return cls(None, {}, progress)

    def open(self, output: Place, *, resume: bool) -> None:
        """Look for an earlier run, and with ``resume`` take over its last whole commit; say what was found.

        Where that run had put ``output`` in its place, it is ``delivered``, and there is nothing to go on from.

        Raises
        ------
        UsageError
            The earlier run was of another image, of other settings, or of another version of the program.
        """
        if self.store is None:
            return
        marker = _read_marker(self.store)
        if marker is None:
            if resume:
                self._progress.note(f"{self.store}: there is nothing to resume; the fit starts anew")
            return
        changed = differences(marker["identity"], self._identity)
        if not resume:
            found = (
                "is the state of another fit, which this one replaces" if changed else "--resume would go on from here"
            )
            self._progress.note(f"{self.store}: {found}; this fit starts anew")
            return
        if changed:
            raise UsageError(
                f"{self.store}: is not of this fit: {'; '.join(changed)}",
                hint="give the image and the settings of the interrupted run, or start anew without --resume",
            )
        self.delivered = _is_of(marker, output)
        if self.delivered:
            self._progress.note(f"{output}: was written before the interruption; it is verified")
        else:
            self._take_over(marker["commits"])

    def _take_over(self, commits: list[dict[str, Any]]) -> None:
        assert self.store is not None
        for number, entry in enumerate(commits):
            self._resumed = _read(self.store, entry)
            if self._resumed is not None:
                self._commits = commits[number:]
                return
            self._progress.note(f"{self.store}: the commit in {entry['slot']} is damaged and is not used")
        self._progress.note(f"{self.store}: no commit is whole; the fit starts anew")

    @property
    def resumed_gaussians(self) -> Gaussians | None:
        """Those of the state to go on from, which make sampling needless."""
        return None if self._resumed is None else self._resumed.gaussians

    def take_resumed(self) -> Snapshot | None:
        """The state to go on from, if there is one; handed out once, so that nothing keeps its arrays alive here."""
        resumed, self._resumed = self._resumed, None
        return resumed

    def announce(self, count: int, channels: int) -> None:
        """Say how much room two commits of at most ``count`` Gaussians will take, where that is much, or more than there is.

        A fit goes on without.
        """
        best, moments, owner = 28 + 4 * channels, 2 * 4 * (5 + channels), 4
        most = len(SLOTS) * count * (best + 16 + 4 * (3 + channels) + moments + owner)
        doubt = "" if self.store is None else self.store.doubt_of_room(most)
        if self.store is not None and (doubt or most > _WORTH_SAYING):
            self._progress.note(f"{self.store}: the state of the fit will take up to {format_bytes(most)} there{doubt}")

    def hold(self, state: Callable[[], Snapshot]) -> None:
        """From now on commit what ``state`` returns at that time; it must be whole whenever a signal may arrive."""
        self._held = state

    def commit_if_due(self, *, landmark: bool = False) -> None:
        """Commit if the last one is long enough ago; at a landmark of a long fit in any case."""
        is_long = time.monotonic() - self._began >= self._interval_s
        if self._held is not None and (is_long if landmark else self.is_due):
            self.commit()

    @property
    def is_due(self) -> bool:
        """Whether the last commit is long enough ago."""
        return self.store is not None and time.monotonic() - self._last >= self.pause_s

    @property
    def pause_s(self) -> float:
        """Between two commits: longer after one that took long, but none where every step is to be saved."""
        return max(self._interval_s, self._took_s / _MOST_SHARE) if self._interval_s else 0.0

    def commit(self) -> bool:
        """Write the state that is held, if it is not there yet; returns whether it is there now.

        A disk that is full, or any other failure to write, is said once; the next commit that is due tries again.
        """
        if self.store is None or self._held is None:
            return False
        failure = None
        with uninterrupted():
            snapshot, began = self._held(), time.monotonic()
            if self._is_committed(snapshot):
                return True
            used = self._commits[0]["slot"] if self._commits else SLOTS[1]
            slot = next(name for name in SLOTS if name != used)
            try:
                with self.store.writing():
                    self._publish([_write(self.store, slot, snapshot), *self._commits[:1]])
            except OSError as error:
                failure = error.strerror or str(error)
                self.store.discard(slot)
            self._last = time.monotonic()
            self._took_s = self._last - began
        self._tell(failure)
        return failure is None

    def _is_committed(self, snapshot: Snapshot) -> bool:
        last = self._commits[0] if self._commits else {}
        return last.get("stage") == snapshot.stage and last.get("values") == dict(snapshot.values)

    def _publish(self, commits: list[dict[str, Any]]) -> None:
        """Replace the marker: these are the commits, the last one first."""
        assert self.store is not None
        body = json.dumps({"identity": self._identity, "commits": commits, "output": self._output})
        self.store.begin()
        self.store.replace_marker(json.dumps({"crc32": zlib.crc32(body.encode()), "body": body}))
        self._commits = commits

    def _tell(self, failure: str | None) -> None:
        """Say that commits fail, or that they do no longer; once each."""
        assert self.store is not None
        if failure is not None and not self._commits and _stored(self.store) is None:
            self.store.remove()
        if self._failing == (failure is not None):
            return
        self._failing = not self._failing
        if failure is None:
            self._progress.note(f"{self.store}: the state is saved again")
        else:
            kept = "; the last commit stays" if self._commits else ""
            self._progress.note(f"{self.store}: the state cannot be saved ({failure}); the fit goes on without{kept}")

    @contextlib.contextmanager
    def delivering(self, parts: Sequence[bytes | memoryview]) -> Iterator[None]:
        """For the length of a ``with`` block that puts the output, of these ``parts``, in its place: the marker knows it.

        Where the marker cannot be written, a run that is killed later finds its output in the way, and no more.
        """
        if self.store is None:
            yield
            return
        crc = 0
        for part in parts:
            crc = zlib.crc32(part, crc)
        self._output = {"bytes": sum(map(len, parts)), "crc32": crc}
        with uninterrupted(), contextlib.suppress(OSError):
            self._publish(self._commits)
        try:
            yield
        except BaseException:
            if not self._commits:
                self.store.remove()
            raise
        self.delivered = _stored(self.store) is not None

    def remove(self) -> None:
        """The fit is over: leave nothing behind. What others have put into the folder stays."""
        store, self.store, self._held, self._commits = self.store, None, None, []
        if store is not None:
            store.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Of any other end, what is held may be half changed.
        if not isinstance(error, KeyboardInterrupt | ClusterLostError | DiskFullError):
            return
        # Another one must not keep the first from being told.
        with contextlib.suppress(KeyboardInterrupt):
            if not self.delivered:
                self.commit()
        if not self._commits and not self.delivered:
            return
        where = f"the state of the fit is in {self.store}"
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(f"interrupted; {where}", hint=_RESUME) from error
        way_out = "make room" if isinstance(error, DiskFullError) else "start a cluster, or leave out --scheduler"
        raise type(error)(f"{error.message}; {where}", hint=f"{way_out}; {_RESUME}") from error


def _write(store: StateStore, slot: str, snapshot: Snapshot) -> dict[str, Any]:
    """Write a group and see it settled; returns what the marker has to know of it."""
    import zarr

    store.begin(slot)
    arrays = {}
    group = zarr.create_group(store=store.slot(slot, read_only=False), zarr_format=3)
    for name, array in snapshot.arrays.items():
        chunks = (min(_CHUNK_ROWS, max(len(array), 1)), *array.shape[1:])
        stored = group.create_array(name, shape=array.shape, chunks=chunks, dtype=array.dtype, compressors=None)
        for rows in columns.chunks(len(array), _CHUNK_ROWS):
            with zarr_alone:
                stored[rows] = array[rows]
        arrays[name] = {"shape": list(array.shape), "dtype": array.dtype.str, "crc32": _crc(array)}
    store.settle(slot)
    return {"slot": slot, "stage": snapshot.stage, "values": dict(snapshot.values), "arrays": arrays}


def _read(store: StateStore, entry: dict[str, Any]) -> Snapshot | None:
    """The state of a commit; None if it is not whole.

    Raises
    ------
    UsageError
        It cannot be reached.
    DiskFullError
        There is no room for it here.
    """
    import zarr

    arrays = {}
    try:
        with store.reading():
            group = zarr.open_group(store=store.slot(entry["slot"], read_only=True), mode="r")
            for name, wanted in entry["arrays"].items():
                stored = group[name]
                # Before room is made for it: what is damaged may have any shape.
                if (list(stored.shape), stored.dtype.str) != (wanted["shape"], wanted["dtype"]):
                    return None
                arrays[name] = _columns_of(stored)
                if _crc(arrays[name]) != wanted["crc32"]:
                    return None
    except (UsageError, DiskFullError):
        raise
    except (OSError, LookupError, ValueError, TypeError):
        return None
    return Snapshot(entry["stage"], arrays, entry["values"])


def _columns_of(stored: Any) -> np.ndarray:
    found = columns.empty(stored.shape, stored.dtype)
    for rows in columns.chunks(len(found), _CHUNK_ROWS):
        with zarr_alone:
            found[rows] = stored[rows]
    return found


def is_delivered(place: Place, output: Place) -> bool:
    """Whether ``output`` is there and is the one that a run with its state at ``place`` has put there."""
    store = state_store(place)
    marker = None if store is None else _read_marker(store)
    return marker is not None and _is_of(marker, output)


def _is_of(marker: dict[str, Any], output: Place) -> bool:
    """Whether ``output`` is the file that the marker knows, byte for byte."""
    known, crc, at = marker.get("output"), 0, 0
    if known is None:
        return False
    try:
        with contextlib.closing(open_bytes(output)) as file:
            while file.size_bytes == known["bytes"] and (piece := file.read(at, _PIECE_BYTES)):
                crc, at = zlib.crc32(piece, crc), at + len(piece)
    except SplatFileError:
        return False
    return bool({"bytes": at, "crc32": crc} == known)


def _read_marker(store: StateStore) -> dict[str, Any] | None:
    """What the marker says; None if there is none, or none that is whole."""
    try:
        marker = json.loads(store.marker() or "")
        body: str = marker["body"]
        if zlib.crc32(body.encode()) != marker["crc32"]:
            return None
        said: dict[str, Any] = json.loads(body)
    except UsageError:
        raise
    except (LookupError, ValueError, TypeError, AttributeError):
        return None
    return said


def _stored(store: StateStore) -> str | None:
    """The marker; none where that cannot be found out."""
    with contextlib.suppress(UsageError):
        return store.marker()
    return None


def _crc(array: np.ndarray) -> int:
    crc = 0
    for rows in columns.chunks(len(array), _CHUNK_ROWS):
        crc = zlib.crc32(np.ascontiguousarray(array[rows]).data, crc)
    return crc
