"""Bytes of a file that lies elsewhere: ``http(s)://`` by ranges, every other address through fsspec."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from typing import Any

from smartsplat_large.codec.readable import Readable
from smartsplat_large.errors import MissingDependencyError

HEAD_BYTES = 1024
"""Fetched with the length of the file, in one request: header and often index are in it."""
ATTEMPTS = 3
PAUSE_S = 0.5
TIMEOUT_S = 30.0
_HINT = "check the address, or download the file"


def is_url(path: object) -> bool:
    """Whether ``path`` names a place outside the file system."""
    return isinstance(path, str) and "://" in path


class RemoteFile(Readable):
    """A file at an address. One request a read, at most."""

    def __init__(self, url: str) -> None:
        """Find ``url`` and its length.

        Raises
        ------
        SplatFileError
            Nothing can be read there.
        MissingDependencyError
            A package for this kind of address is not installed.
        """
        self.path: str = url
        self._open = True
        http = url.startswith(("http://", "https://"))
        self._store: _HttpStore | _FsspecStore = _HttpStore(self) if http else _FsspecStore(self)
        self._head, self.size_bytes = self._store.head()

    def read(self, offset: int, length: int) -> bytes:
        if not self._open:
            raise ValueError(f"{self.path} is closed")
        end = min(offset + length, self.size_bytes)
        if end <= offset:
            return b""
        known = self._head[offset:end]
        return known + self._store.fetch(offset + len(known), end) if offset + len(known) < end else known

    def close(self) -> None:
        self._open = False


class _HttpStore:
    """Range requests of the standard library: nothing to install."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file

    def head(self) -> tuple[bytes, int]:
        """The first bytes, and the length of the file."""
        try:
            data, headers = self._request(0, HEAD_BYTES)
        except urllib.error.HTTPError as error:
            if error.code == 416:  # not one byte to send
                return b"", 0
            raise self._file.error(f"cannot be fetched: {error.code} {error.reason}", _HINT) from error
        total = headers.get("Content-Range", "").rpartition("/")[2]
        if not total.isdigit():
            raise self._file.error("the server does not tell the file's length", "download the file")
        return data, int(total)

    def fetch(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` to before ``end``."""
        try:
            return self._request(start, end)[0]
        except urllib.error.HTTPError as error:
            raise self._file.error(f"cannot be fetched at byte {start}: {error.code} {error.reason}", _HINT) from error

    def _request(self, start: int, end: int) -> tuple[bytes, Any]:
        """Body and headers of one range; a connection that fails is tried again."""
        request = urllib.request.Request(self._file.path, headers={"Range": f"bytes={start}-{end - 1}"})
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                    if response.status != 206:
                        raise self._file.error("the server does not send parts of files", "download the file")
                    return response.read(), response.headers
            except urllib.error.HTTPError as error:
                if error.code < 500 or attempt == ATTEMPTS:
                    raise
            except (OSError, http.client.HTTPException) as error:
                if attempt == ATTEMPTS:
                    reason = getattr(error, "reason", error)
                    raise self._file.error(f"cannot be fetched at byte {start}: {reason}", _HINT) from error
            time.sleep(PAUSE_S * attempt)
        raise AssertionError("the last attempt returns or raises")


class _FsspecStore:
    """Whatever fsspec and its plug-ins know: ``s3://``, ``gs://``, ``memory://``, ..."""

    def __init__(self, file: RemoteFile) -> None:
        import fsspec  # only for such an address: it takes a while to import

        self._file = file
        kind = file.path.partition("://")[0]
        try:
            self._system, self._name = fsspec.core.url_to_fs(file.path)
        except ImportError as error:
            raise MissingDependencyError(f"{file.path}: {error}", hint=f"the fsspec plug-in for {kind}://") from error
        except ValueError as error:
            raise file.error(f"{kind}:// is no kind of address that is known ({error})", _HINT) from error

    def head(self) -> tuple[bytes, int]:
        """The first bytes, and the length of the file."""
        try:
            info = self._system.info(self._name)
        except Exception as error:  # every plug-in has its own
            raise self._file.error(f"cannot be found: {type(error).__name__}: {error}", _HINT) from error
        if info.get("type") == "directory" or info.get("size") is None:
            raise self._file.error("is a folder, or has no length", _HINT)
        size = int(info["size"])
        return self.fetch(0, min(HEAD_BYTES, size)) if size else b"", size

    def fetch(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` to before ``end``."""
        try:
            return bytes(self._system.cat_file(self._name, start=start, end=end))
        except Exception as error:
            raise self._file.error(
                f"cannot be fetched at byte {start}: {type(error).__name__}: {error}", _HINT
            ) from error
