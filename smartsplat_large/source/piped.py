"""Pictures that come through a pipe: read once, from top to bottom, while they are still being written."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from smartsplat_large.array_types import Pixels
from smartsplat_large.errors import SourceError, UsageError
from smartsplat_large.lattice import Window
from smartsplat_large.source.base import Closing, ImageMeta, require_window

STDIN = "-"
"""The path that stands for standard input."""
_STDIN_NAME = "standard input"
_HEAD_BYTES = 16


def is_pipe(image: str | Path) -> bool:
    """Whether ``image`` is standard input or a named pipe, which can be read once only."""
    try:
        return str(image) == STDIN or stat.S_ISFIFO(Path(image).stat().st_mode)
    except (OSError, ValueError):
        return False


def pipe_name(image: str | Path) -> str:
    """What messages call it."""
    return _STDIN_NAME if str(image) == STDIN else str(image)


class PipeStream(io.BufferedReader):
    """The bytes of a pipe from the first on, whose ``head`` is known; waits for a writer, and for its first bytes.

    Raises
    ------
    SourceError
        It cannot be read, or nothing comes.
    UsageError
        Standard input is a terminal.
    """

    def __init__(self, image: str | Path) -> None:
        file = _open(image)
        try:
            pipe = _Pipe(file, pipe_name(image))
        except BaseException:
            file.close()
            raise
        self.head = pipe.head
        super().__init__(pipe)


class _Pipe(io.RawIOBase):
    """A file that begins again after its head was read."""

    def __init__(self, file: io.FileIO, name: str) -> None:
        self._file, self._name, self._again, self.head = file, name, b"", b""
        while len(self.head) < _HEAD_BYTES and (piece := self._read_some(_HEAD_BYTES - len(self.head))):
            self.head += piece
        if not self.head:
            raise SourceError(f"{name}: ended without a byte", hint="look at what should write to it")
        self._again = self.head

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._again[: len(buffer)] or self._read_some(len(buffer))
        self._again = self._again[len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _read_some(self, count: int) -> bytes:
        try:
            return self._file.read(count) or b""
        except OSError as error:
            raise SourceError(f"{self._name}: {error.strerror}", hint="look at what should write to it") from error


def _open(image: str | Path) -> io.FileIO:
    name = pipe_name(image)
    try:
        if str(image) != STDIN:
            return io.FileIO(os.fspath(image))
        if sys.__stdin__ is None:
            raise SourceError(f"{name}: is closed", hint="send a picture to it")
        if os.isatty(0):
            raise UsageError(f"{name}: is a terminal", hint="send a picture to it: | smartsplat-large ... -")
        return io.FileIO(0, closefd=False)
    except OSError as error:
        raise SourceError(f"{name}: {error.strerror}", hint="give a pipe that this user may read") from error


class PipedSource(Closing):
    """A picture whose ``bands`` can be had once; it travels to no worker."""

    def __init__(
        self, meta: ImageMeta, stream: PipeStream, strips: Callable[[int], Iterator[tuple[Window, Pixels]]]
    ) -> None:
        self.meta, self._stream = meta, stream
        self._strips: Callable[[int], Iterator[tuple[Window, Pixels]]] | None = strips

    def close(self) -> None:
        self._stream.close()

    def read(self, window: Window, level: int = 0) -> Pixels:
        """Raises :class:`SourceError`: a window takes a source that can be read again."""
        require_window(self.meta, window, level)
        raise self._passing()

    def bands(self, height: int) -> Iterator[tuple[Window, Pixels]]:
        """The whole picture, as it comes, as full-width strips of ``height`` rows from the top."""
        # Not kept: what the decoder holds is to go with the last strip, not when the source is closed.
        strips, self._strips = self._strips, None
        if strips is None:
            raise self._passing()
        return strips(height)

    def _passing(self) -> SourceError:
        return SourceError(f"{self.meta.name}: can be read once only, from its top", hint="ingest it first")
