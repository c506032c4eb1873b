"""Where the columns of all Gaussians lie: in memory or, where there are too many of them, in files that are mapped.

Code that makes a column of *all* Gaussians takes its room from here, and what it needs beside columns it makes for some rows
at a time (:func:`chunks`). Then :func:`mapped` is all that it takes to fit more Gaussians than memory holds. What is computed
does not depend on it.

A page of a mapped file counts as memory of this process from its first use on. So a thread looks on, and lets go of all of
them whenever they are more than :data:`RESIDENT`: the system keeps their contents, in memory that nobody else wants or on the
disk. (It takes Linux to know how many there are. Elsewhere that is left to the system, which takes them when it needs memory.)
"""

from __future__ import annotations

import contextlib
import errno
import math
import mmap
import os
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike

from smartsplat_large.errors import DiskFullError

ROWS = 1 << 16
"""Rows of which temporary arrays are made at a time."""
RESIDENT = 16 << 20
"""Bytes of mapped files that may be in memory. What is let go is found again for so little that more of them save no time."""
UNSEEN = 64 << 20
"""What may come on top before the thread has its turn, on a busy machine."""
_WORTH_COUNTING = 1 << 20
"""Bytes below which an array is kept in memory in any case."""
_SELDOM_S, _OFTEN_S = 0.01, 0.0005
"""Between two looks at what is resident, when there is room left and when there is not."""
_KEPT_FREE = 64
"""A file that was given back is kept until so many more have been asked for."""
_LOOKED_BACK = 32
"""Of so many times that all was let go, the least that stayed is what is not of columns."""
_FASTEST = 1 << 33
"""Bytes a second that may become resident."""
_STATM = Path("/proc/self/statm")

Shape = int | tuple[int, ...]


def empty(shape: Shape, dtype: DTypeLike = np.float64) -> np.ndarray:
    """Room for a column of all Gaussians, not initialised.

    Raises
    ------
    DiskFullError
        The disk of the files does not hold it.
    """
    sides = shape if isinstance(shape, tuple) else (shape,)
    size = math.prod(sides) * np.dtype(dtype).itemsize
    if not _held or size < _WORTH_COUNTING:
        return np.empty(sides, dtype)
    return np.asarray(_held[-1].lease(sides, np.dtype(dtype), size))


def zeros(shape: Shape, dtype: DTypeLike = np.float64) -> np.ndarray:
    """A column of all Gaussians, all of it zero."""
    if not _held:
        return np.zeros(shape, dtype)
    column = empty(shape, dtype)
    column[:] = 0
    return column


def taken(column: np.ndarray, index: np.ndarray) -> np.ndarray:
    """``column[index]`` of nearly all rows, as a column of its own."""
    found = empty((len(index), *column.shape[1:]), column.dtype)
    for rows in chunks(len(index)):
        # numpy's take is up to twenty times as fast as its brackets where rows are short.
        found[rows] = column.take(index[rows], axis=0)
    return found


def copied(column: np.ndarray) -> np.ndarray:
    """A copy of a column."""
    found = empty(column.shape, column.dtype)
    found[:] = column
    return found


def joined(parts: list[np.ndarray]) -> np.ndarray:
    """``np.concatenate`` of columns."""
    found = empty((sum(map(len, parts)), *parts[0].shape[1:]), np.result_type(*parts))
    return np.concatenate(parts, out=found)


def true_rows(mask: np.ndarray) -> np.ndarray:
    """``np.flatnonzero`` of a column."""
    found = empty(int(np.count_nonzero(mask)), np.int64)
    start = 0
    for rows in chunks(len(mask)):
        some = np.flatnonzero(mask[rows])
        found[start : start + len(some)] = some + rows.start
        start += len(some)
    return found


def chunks(count: int, rows: int = ROWS) -> Iterator[slice]:
    """Slices that part ``range(count)``, each of so few rows that temporary arrays of them do not matter."""
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


@contextlib.contextmanager
def mapped(folder: Path, in_memory: int = 0, resident: int = RESIDENT) -> Iterator[None]:
    """For the length of a ``with`` block, columns of more than ``in_memory`` bytes together lie in files in ``folder``.

    Of these, about ``resident`` bytes are in memory. They have no names: they are gone when nobody refers to their columns,
    also where this process is killed. Of several blocks at a time, the one that began last counts.
    """
    held = _Held(folder, in_memory, resident)
    _held.append(held)
    try:
        with contextlib.closing(held):
            yield
    finally:
        _held.remove(held)


class _Held:
    """The columns of a run, and the thread that lets go of pages. Files that are given back are used again."""

    def __init__(self, folder: Path, in_memory: int, resident: int) -> None:
        self._folder, self._left, self._resident = folder, in_memory, resident
        # A plain list: it can be copied while it grows.
        self._files: list[weakref.ref[mmap.mmap]] = []
        self._free: list[tuple[int, mmap.mmap]] = []
        self._leased = 0
        self._lock = threading.RLock()  # a lease may end, by garbage collection, wherever memory is asked for
        self._ended = threading.Event()
        self._onlooker: threading.Thread | None = None

    def lease(self, shape: tuple[int, ...], dtype: np.dtype[Any], size: int) -> _Lease:
        """Room in memory, in a file that was given back, or in a new one."""
        with self._lock:
            if size <= self._left:
                self._left -= size
                room: mmap.mmap | np.ndarray = np.empty(size, np.uint8)
            else:
                room = self._file(size)
        lease = _Lease(room, shape, dtype)
        weakref.finalize(lease, self._take_back, room).atexit = False
        return lease

    def _file(self, size: int) -> mmap.mmap:
        unit = max(mmap.PAGESIZE, 1 << (size.bit_length() - 4))
        size = -(-size // unit) * unit
        self._leased += 1
        fitting = [(len(file), at) for at, (_, file) in enumerate(self._free) if size <= len(file) <= 2 * size]
        if fitting:
            return self._free.pop(min(fitting)[1])[1]
        # What has not been wanted for long is of another number of Gaussians.
        self._free = [(since, file) for since, file in self._free if self._leased - since < _KEPT_FREE]
        return self._new(size)

    def _new(self, size: int) -> mmap.mmap:
        try:
            with tempfile.TemporaryFile(dir=self._folder) as opened:
                _reserve(opened.fileno(), size)
                file = mmap.mmap(opened.fileno(), size)
        except OSError as error:
            raise DiskFullError(
                f"{self._folder}: cannot take the Gaussians that memory does not hold: {error.strerror or error}",
                hint="--work FOLDER for another disk, or more --memory",
            ) from error
        self._files = [known for known in self._files if known() is not None]
        self._files.append(weakref.ref(file))
        if self._onlooker is None and _STATM.exists():
            self._onlooker = threading.Thread(target=self._look_on, name="smartsplat-columns", daemon=True)
            self._onlooker.start()
        return file

    def _take_back(self, room: mmap.mmap | np.ndarray) -> None:
        with self._lock:
            if isinstance(room, np.ndarray):
                self._left += room.nbytes
            elif not self._ended.is_set():
                self._free.append((self._leased, room))

    def _look_on(self) -> None:
        with _STATM.open("rb", buffering=0) as statm:
            # Libraries are mapped files as well. There may be more of them in time; but what is seen after letting go may
            # also be pages that came back before it was looked at.
            others, wait = deque([_resident_of_files(statm)], _LOOKED_BACK), _SELDOM_S
            while not self._ended.wait(wait):
                room = self._resident - (_resident_of_files(statm) - min(others))
                if room < 0:
                    self._let_go()
                    others.append(_resident_of_files(statm))
                    room = self._resident
                wait = min(max(room / _FASTEST, _OFTEN_S), _SELDOM_S)

    def _let_go(self) -> None:
        for known in list(self._files):
            if (file := known()) is not None:
                file.madvise(mmap.MADV_DONTNEED)

    def close(self) -> None:
        self._ended.set()
        if self._onlooker is not None:
            self._onlooker.join()
        with self._lock:
            self._free.clear()


class _Lease:
    """What numpy makes an array of, and keeps as long as there is a view of it."""

    def __init__(self, room: mmap.mmap | np.ndarray, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._room = room
        data = (np.frombuffer(room, np.uint8).ctypes.data, False)
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": dtype.str, "data": data}


_held: list[_Held] = []
"""Of the blocks of :func:`mapped` that are under way."""


def _reserve(descriptor: int, size: int) -> None:
    """Let a file have so many bytes, now: of a full disk, a mapping would tell by killing the process."""
    if hasattr(os, "posix_fallocate"):
        try:
            return os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
    piece, left = bytes(1 << 20), size
    while left:
        left -= os.write(descriptor, piece[:left])
    return None


def _resident_of_files(statm: BinaryIO) -> int:
    """Bytes of mapped files that count as memory of this process."""
    statm.seek(0)
    return int(statm.read().split()[2]) * mmap.PAGESIZE
