"""Bytes of a file at given offsets, and errors that name it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from smartsplat_large.codec.remote_file import RemoteFile, is_url
from smartsplat_large.errors import SplatFileError


class ByteFile:
    """A file open for reading. Reads at an offset and keeps no position, so that threads may share it."""

    def __init__(self, path: Path) -> None:
        """Open ``path``.

        Raises
        ------
        SplatFileError
            It is missing, no file but a folder or a pipe, or may not be read.
        """
        self.path = path
        self._descriptor = -1
        hint = "name an existing .ssplat file"
        try:
            kind = path.stat().st_mode
            if stat.S_ISDIR(kind):
                raise self.error("is a folder", hint)
            if not stat.S_ISREG(kind):
                raise self.error("is a device or a pipe, which cannot be read at any offset", hint)
            self._descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            said = "standard input cannot be read at any offset" if str(path) == "-" else error.strerror
            raise self.error(f"cannot be read: {said}", hint) from error
        self.size_bytes = os.fstat(self._descriptor).st_size

    def error(self, message: str, hint: str | None = None) -> SplatFileError:
        """An error about this file."""
        return SplatFileError(f"{self.path}: {message}", hint=hint)

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; fewer only at the end of the file.

        Raises
        ------
        SplatFileError
            The disk says no.
        ValueError
            The file is closed.
        """
        if self._descriptor < 0:
            raise ValueError(f"{self.path} is closed")
        length = max(0, min(length, self.size_bytes - offset))
        parts = []
        while length > 0:
            try:
                part = os.pread(self._descriptor, length, offset)
            except OSError as error:
                raise self.error(f"cannot be read at byte {offset}: {error.strerror}") from error
            if not part:
                break
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Give the file back. Harmless when repeated."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


def open_bytes(path: str | Path) -> ByteFile | RemoteFile:
    """The file at ``path``, or at the address that it is. Raises as :class:`ByteFile` and :class:`RemoteFile` do."""
    return RemoteFile(str(path)) if is_url(path) else ByteFile(Path(path))
