"""Bytes of a file on a disk, and of a file anywhere."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from smartsplat_large.codec.readable import Readable
from smartsplat_large.errors import SplatFileError
from smartsplat_large.places import is_url
from smartsplat_large.remote import RemoteFile


class ByteFile(Readable):
    """A file on a disk, open for reading."""

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

    def read(self, offset: int, length: int) -> bytes:
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
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


class RemoteByteFile(Readable):
    """A file at an address."""

    def __init__(self, url: str) -> None:
        """Find ``url``. Raises as :class:`RemoteFile` does, a :class:`SplatFileError` where nothing can be read there."""
        self.path = url
        self._file = RemoteFile(url, SplatFileError)
        self.size_bytes = self._file.size_bytes

    def read(self, offset: int, length: int) -> bytes:
        return self._file.read(offset, length)

    def close(self) -> None:
        self._file.close()


def open_bytes(path: str | Path) -> Readable:
    """The file at ``path``, or at the address that it is; raises as :class:`ByteFile` and :class:`RemoteByteFile` do."""
    return RemoteByteFile(str(path)) if is_url(path) else ByteFile(Path(path))
