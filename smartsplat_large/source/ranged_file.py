"""A file read at any offset by several threads at once, also one at an address.

On a disk, reads are positioned (``pread``) instead of mapped: a file that was cut short then is an error where a mapping
would end the process with a bus error, and no page of the file counts as this process's memory.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smartsplat_large.errors import SourceError
from smartsplat_large.places import Place
from smartsplat_large.remote import RemoteFile, RemoteReader

_HEADER_BYTES = 64 << 10
"""Fetched at a time of a header or directory."""
_MOST_REQUEST_BYTES = 16 << 20
_WORTH_A_REQUEST_BYTES = 256 << 10
"""So many bytes take about as long as asking for them."""


class RangedFile:
    """Positioned reads from one file; picklable (opened again from its path)."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        self._lock = threading.Lock()
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise SourceError(f"{name}: {error.strerror}", hint="give an image file that this user may read") from error

    def __reduce__(self) -> tuple[object, ...]:
        return (RangedFile, (self.path, self.name))

    def __del__(self) -> None:
        # A copy that travelled to a worker is dropped there without being closed.
        self.close()

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    @property
    def size_bytes(self) -> int:
        return os.fstat(self._descriptor).st_size

    def read(self, offset: int, count: int) -> bytes:
        """``count`` bytes from ``offset`` on.

        Raises
        ------
        SourceError
            The file is shorter, or cannot be read.
        """
        try:
            data = b"".join(self._pieces(offset, count))
        except (OSError, ValueError, OverflowError) as error:
            raise SourceError(f"{self.name}: reading at byte {offset}: {error}", hint="check the disk") from error
        if len(data) < count:
            raise SourceError(
                f"{self.name}: ends early: {count} bytes wanted at byte {offset}, {len(data)} there",
                hint="the file was cut short; copy or download it again",
            )
        return data

    def _pieces(self, offset: int, count: int) -> list[bytes]:
        pieces: list[bytes] = []
        while count and (piece := self._read_some(offset, count)):
            pieces.append(piece)
            offset, count = offset + len(piece), count - len(piece)
        return pieces

    def _read_some(self, offset: int, count: int) -> bytes:
        if hasattr(os, "pread"):
            return os.pread(self._descriptor, count, offset)
        with self._lock:
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            return os.read(self._descriptor, count)

    def read_each(self, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """As :meth:`read`, of each ``(offset, count)``."""
        return (self.read(offset, count) for offset, count in ranges)

    def read_rows(self, offset: int, stride: int, rows: int, row_bytes: int) -> NDArray[np.uint8]:
        """``(rows, row_bytes)``: from each of ``rows`` rows, ``stride`` bytes apart, the bytes at ``offset``."""
        if stride == row_bytes or rows == 1:
            return np.frombuffer(self.read(offset, rows * row_bytes), np.uint8).reshape(rows, row_bytes)
        out = np.empty((rows, row_bytes), np.uint8)
        for row in range(rows):
            out[row] = np.frombuffer(self.read(offset + row * stride, row_bytes), np.uint8)
        return out


class RemoteRangedFile(RangedFile):
    """The same of a file at an address, with few requests: what lies close together comes in one."""

    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name
        self._file = RemoteFile(url, SourceError)

    def __reduce__(self) -> tuple[object, ...]:
        return (RemoteRangedFile, (self.url, self.name))

    def close(self) -> None:
        if hasattr(self, "_file"):
            self._file.close()

    @property
    def size_bytes(self) -> int:
        return self._file.size_bytes

    def _read_some(self, offset: int, count: int) -> bytes:
        return self._file.read(offset, count)

    def read_each(self, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        for first, end in _close_together(ranges):
            part = ranges[first:end]
            start = part[0][0]
            data = memoryview(self.read(start, part[-1][0] + part[-1][1] - start))
            yield from (bytes(data[offset - start : offset - start + count]) for offset, count in part)

    def read_rows(self, offset: int, stride: int, rows: int, row_bytes: int) -> NDArray[np.uint8]:
        out = np.empty((rows, row_bytes), np.uint8)
        each = self.read_each([(offset + row * stride, row_bytes) for row in range(rows)])
        for row, data in enumerate(each):
            out[row] = np.frombuffer(data, np.uint8)
        return out


def _close_together(ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Runs of ``ranges``, by the first and the one after the last, that cost less in one request than apart."""
    first = 0
    for index in range(1, len(ranges) + 1):
        if index < len(ranges):
            (before, count), (offset, length) = ranges[index - 1], ranges[index]
            between = offset - before - count
            joined = offset + length - ranges[first][0]
            if 0 <= between <= _WORTH_A_REQUEST_BYTES and joined <= _MOST_REQUEST_BYTES:
                continue
        yield first, index
        first = index


def ranged_file(place: Place, name: str) -> RangedFile:
    """The file at a path or an address. Raises :class:`SourceError` where it cannot be read."""
    return RangedFile(place, name) if isinstance(place, Path) else RemoteRangedFile(place, name)


def opened(place: Place, request_bytes: int = _HEADER_BYTES) -> io.BufferedReader:
    """The file at a path or an address, with a position; of the latter, so many bytes are fetched at a time."""
    if isinstance(place, Path):
        return place.open("rb")
    return RemoteReader.buffered(RemoteFile(place, SourceError), request_bytes)
