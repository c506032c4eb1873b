"""A file read at any offset by several threads at once.

Reads are positioned (``pread``) instead of mapped: a file that was cut short then is an error where a mapping would end
the process with a bus error, and no page of the file counts as this process's memory.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smartsplat_large.errors import SourceError


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

    def read_rows(self, offset: int, stride: int, rows: int, row_bytes: int) -> NDArray[np.uint8]:
        """``(rows, row_bytes)``: from each of ``rows`` rows, ``stride`` bytes apart, the bytes at ``offset``."""
        if stride == row_bytes or rows == 1:
            return np.frombuffer(self.read(offset, rows * row_bytes), np.uint8).reshape(rows, row_bytes)
        out = np.empty((rows, row_bytes), np.uint8)
        for row in range(rows):
            out[row] = np.frombuffer(self.read(offset + row * stride, row_bytes), np.uint8)
        return out
