"""Where the columns of all Gaussians lie: in memory or, where there are too many of them, in files that are mapped.

Code that makes a column of *all* Gaussians takes its room from here, and what it needs beside columns it makes for some rows
at a time (:func:`chunks`). Then :func:`mapped` is all that it takes to fit more Gaussians than memory holds. What is computed
does not depend on it.

A page of a mapped file counts as memory of this process from its first use on. So a thread looks on, and lets go of all of
them whenever they are more than was allowed: the system keeps their contents, in memory that nobody else wants or on the disk.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import tempfile
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from smartsplat_large.errors import DiskFullError

ROWS = 1 << 16
"""Rows of which temporary arrays are made at a time."""
_WORTH_MAPPING = 1 << 20
"""Bytes below which an array is kept in memory in any case."""
_LOOKS_EVERY_S = 0.01
_STATM = Path("/proc/self/statm")

Shape = int | tuple[int, ...]


def empty(shape: Shape, dtype: DTypeLike = np.float64) -> np.ndarray:
    """Room for a column of all Gaussians, not initialised.

    Raises
    ------
    DiskFullError
        The disk of the files does not hold it.
    """
    size = math.prod(shape if isinstance(shape, tuple) else (shape,)) * np.dtype(dtype).itemsize
    if _files is None or size < _WORTH_MAPPING:
        return np.empty(shape, dtype)
    return np.asarray(_files.lease(shape, np.dtype(dtype), size))


def zeros(shape: Shape, dtype: DTypeLike = np.float64) -> np.ndarray:
    """A column of all Gaussians, all of it zero."""
    if _files is None:
        return np.zeros(shape, dtype)
    column = empty(shape, dtype)
    for rows in chunks(len(column)):
        column[rows] = 0
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
    for rows in chunks(len(column)):
        found[rows] = column[rows]
    return found


def joined(parts: list[np.ndarray]) -> np.ndarray:
    """``np.concatenate`` of columns."""
    found = empty((sum(map(len, parts)), *parts[0].shape[1:]), np.result_type(*parts))
    start = 0
    for part in parts:
        for rows in chunks(len(part)):
            found[start + rows.start : start + rows.stop] = part[rows]
        start += len(part)
    return found


def chunks(count: int, rows: int = ROWS) -> Iterator[slice]:
    """Slices that part ``range(count)``, each of so few rows that temporary arrays of them do not matter."""
    return (slice(start, min(start + rows, count)) for start in range(0, count, rows))


@contextlib.contextmanager
def mapped(folder: Path, resident_bytes: int) -> Iterator[None]:
    """For the length of a ``with`` block, new columns are files in ``folder``, of which about so much is held in memory.

    The files have no names: they are gone when nobody refers to their columns, also where this process is killed.
    """
    global _files
    before, _files = _files, _Files(folder, resident_bytes)
    try:
        with _files:
            yield
    finally:
        _files = before


class _Files:
    """The mapped files of a run, and the thread that lets go of their pages. Those given back are used again."""

    def __init__(self, folder: Path, resident_bytes: int) -> None:
        self._folder, self._limit = folder, resident_bytes
        self._all: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
        self._free: list[mmap.mmap] = []
        self._lock = threading.RLock()  # a lease may end, by garbage collection, wherever memory is asked for
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="smartsplat-columns", daemon=True)

    def lease(self, shape: Shape, dtype: np.dtype[Any], size: int) -> _Lease:
        """Room in a file that was given back, or in a new one."""
        unit = max(mmap.PAGESIZE, 1 << (size.bit_length() - 4))
        size = -(-size // unit) * unit
        with self._lock:
            fitting = [file for file in self._free if size <= len(file) <= 2 * size]
            if fitting:
                file = min(fitting, key=len)
                self._free.remove(file)
            else:
                # The number of Gaussians has changed: those of before will not be wanted again.
                self._free.clear()
                file = self._new(size)
        return _Lease(file, shape, dtype, self._give_back)

    def _new(self, size: int) -> mmap.mmap:
        try:
            with tempfile.TemporaryFile(dir=self._folder) as file:
                _reserve(file.fileno(), size)
                mapping = mmap.mmap(file.fileno(), size)
        except OSError as error:
            raise DiskFullError(
                f"{self._folder}: no room for the Gaussians that memory does not hold: {error.strerror or error}",
                hint="--work FOLDER for another disk, or more --memory",
            ) from error
        self._all.add(mapping)
        return mapping

    def _give_back(self, file: mmap.mmap) -> None:
        with self._lock:
            if not self._ended.is_set():
                self._free.append(file)

    def _look_on(self) -> None:
        # Libraries are mapped files as well.
        others = _resident_of_files()
        while not self._ended.wait(_LOOKS_EVERY_S):
            if _resident_of_files() - others > self._limit:
                self._let_go()
                others = _resident_of_files()

    def _let_go(self) -> None:
        for mapping in list(self._all):
            mapping.madvise(mmap.MADV_DONTNEED)

    def __enter__(self) -> None:
        if _STATM.exists():
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            self._free.clear()


class _Lease:
    """What numpy makes an array of, and keeps as long as there is a view of it."""

    def __init__(self, file: mmap.mmap, shape: Shape, dtype: np.dtype[Any], give_back: Any) -> None:
        self._file = file
        whole = np.frombuffer(file, np.uint8)
        self.__array_interface__ = {
            "version": 3, "shape": shape if isinstance(shape, tuple) else (shape,), "typestr": dtype.str,
            "data": (whole.ctypes.data, False),
        }  # fmt: skip
        weakref.finalize(self, give_back, file).atexit = False


_files: _Files | None = None


def _reserve(descriptor: int, size: int) -> None:
    """Let a file have so many bytes, now: of a full disk, a mapping would tell by killing the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    piece = bytes(1 << 20)
    for start in range(0, size, len(piece)):
        os.write(descriptor, piece[: size - start])


def _resident_of_files() -> int:
    """Bytes of mapped files that count as memory of this process."""
    return int(_STATM.read_text().split()[2]) * mmap.PAGESIZE
