"""Files that lie elsewhere, to be read: ``http(s)://`` by ranges, every other address through fsspec."""

from __future__ import annotations

import http.client
import io
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from smartsplat_large.errors import BadInputError, MissingDependencyError, UsageError
from smartsplat_large.places import is_http, shown

HEAD_BYTES = 1024
"""Fetched with the length of the file, in one request: header and often index are in it."""
ATTEMPTS = 3
PAUSE_S = 0.5
TIMEOUT_S = 30.0
HINT = "check the address, or download the file"
RIGHTS = "check your credentials, and what they allow"
_STAMPS = (
    "ETag", "etag", "md5Hash", "md5", "sha", "hex", "blob_id", "mtime", "LastModified", "last_modified", "updated", "modified",
    "modificationTime", "modify", "created",
)  # fmt: skip
"""What stores call that by which a file that was replaced is known; the surest first."""
_PLUGINS = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}


def file_system(url: str) -> tuple[Any, str]:
    """fsspec's file system for an address that is not ``http(s)://``, and what it calls the place.

    Raises
    ------
    MissingDependencyError
        Its plug-in is not installed.
    UsageError
        There is no such kind of address, or it cannot be reached as it is set up.
    """
    import fsspec  # only for such an address: it takes a while to import

    kind = url.partition("://")[0]
    try:
        system, name = fsspec.core.url_to_fs(url, **({"auto_mkdir": True} if kind in ("file", "local") else {}))
    except ImportError as error:
        hint = f"pip install {_PLUGINS[kind]}" if kind in _PLUGINS else f"the fsspec plug-in for {kind}://"
        raise MissingDependencyError(f"{url}: {said(error)}", hint=hint) from error
    except Exception as error:  # every plug-in has its own
        known = kind in fsspec.available_protocols()
        what = "cannot be reached" if known else f"{kind}:// is no kind of address that is known"
        raise UsageError(f"{url}: {what} ({said(error)})", hint="check the address") from error
    return system, name


def has_answered(error: BadInputError) -> bool:
    """Whether what a :class:`RemoteFile` failed of is not that nobody is there, who would only be waited for again."""
    cause = error.__cause__
    return isinstance(cause, urllib.error.HTTPError) or not isinstance(cause, urllib.error.URLError | TimeoutError)


def stamp_of(info: Mapping[str, Any]) -> str:
    """Of what fsspec tells about a file, that which is another once it is replaced; empty if there is none."""
    return next((str(info[name]) for name in _STAMPS if info.get(name)), "")


def said(error: BaseException) -> str:
    """An error of some library in one line."""
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def is_denied(error: Exception) -> bool:
    """Whether an error says that the user may not."""
    return isinstance(error, PermissionError) or "credentials" in str(error).lower()


class RemoteFile:
    """A file at an address. One request a read, at most; safe to use from several threads."""

    def __init__(self, url: str, failure: type[BadInputError]) -> None:
        """Find ``url``, its length, and its ``stamp``: what is another once the file is replaced, or nothing.

        Raises
        ------
        BadInputError
            Nothing can be read there: a ``failure``, as whenever reading fails.
        MissingDependencyError
            A package for this kind of address is not installed.
        """
        self.url = url
        self.failure, self._open = failure, True
        self._store: _HttpStore | _FsspecStore = _HttpStore(self) if is_http(url) else _FsspecStore(self)
        self._head, self.size_bytes, self.stamp = self._store.head()

    def error(self, message: str, hint: str | None = HINT) -> BadInputError:
        """An error that names the file."""
        return self.failure(f"{shown(self.url)}: {message}", hint=hint)

    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; fewer only at the end of the file."""
        if not self._open:
            raise ValueError(f"{shown(self.url)} is closed")
        end = min(offset + length, self.size_bytes)
        if end <= offset:
            return b""
        known = self._head[offset:end]
        return known + self._store.fetch(offset + len(known), end) if offset + len(known) < end else known

    def close(self) -> None:
        self._open = False


class RemoteReader(io.RawIOBase):
    """A remote file with a position, for libraries that want one; to be buffered."""

    def __init__(self, file: RemoteFile) -> None:
        self.file, self._at = file, 0

    @classmethod
    def buffered(cls, file: RemoteFile, request_bytes: int) -> io.BufferedReader:
        """One request for so many bytes at a time."""
        return io.BufferedReader(cls(file), request_bytes)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self.file.size_bytes)[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self.file.read(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def http_range(url: str, wanted: str) -> tuple[bytes, Any]:
    """Body and headers of one range of the form ``0-99`` or ``-100``; a connection that fails is tried again.

    Raises
    ------
    FileNotFoundError, PermissionError, OSError
        The server has no such file, does not give it, or fails. An ``HTTPError`` is one of these.
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes={wanted}"})
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                if response.status != 206:
                    raise io.UnsupportedOperation("the server does not send parts of files")
                return response.read(), response.headers
        except io.UnsupportedOperation:
            raise
        except urllib.error.HTTPError as error:
            error.close()  # it holds the connection
            if error.code < 500 or attempt == ATTEMPTS:
                raise
        except http.client.HTTPException as error:
            if attempt == ATTEMPTS:
                raise OSError(said(error)) from error
        except OSError:
            if attempt == ATTEMPTS:
                raise
        time.sleep(PAUSE_S * attempt)
    raise AssertionError("the last attempt returns or raises")


class _HttpStore:
    """Range requests of the standard library: nothing to install."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file

    def head(self) -> tuple[bytes, int, str]:
        """The first bytes, the length of the file, and its stamp."""
        try:
            data, headers = http_range(self._file.url, f"0-{HEAD_BYTES - 1}")
        except urllib.error.HTTPError as error:
            if error.code == 416:  # not one byte to send
                return b"", 0, ""
            raise self._failed("cannot be fetched", error) from error
        except OSError as error:
            raise self._failed("cannot be fetched", error) from error
        total = headers.get("Content-Range", "").rpartition("/")[2]
        if not total.isdigit():
            raise self._file.error("the server does not tell the file's length", "download the file")
        return data, int(total), headers.get("ETag") or headers.get("Last-Modified") or ""

    def fetch(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` to before ``end``."""
        try:
            return http_range(self._file.url, f"{start}-{end - 1}")[0]
        except OSError as error:
            raise self._failed(f"cannot be fetched at byte {start}", error) from error

    def _failed(self, what: str, error: OSError) -> BadInputError:
        if isinstance(error, io.UnsupportedOperation):
            return self._file.error(str(error), "download the file")
        if isinstance(error, urllib.error.HTTPError):
            hint = "check who may read it" if error.code in (401, 403) else HINT
            return self._file.error(f"{what}: {error.code} {error.reason}", hint)
        return self._file.error(f"{what}: {getattr(error, 'reason', error)}")


class _FsspecStore:
    """Whatever fsspec and its plug-ins know: ``s3://``, ``gs://``, ``memory://``, ..."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        try:
            self._system, self._name = file_system(file.url)
        except UsageError as error:
            raise file.failure(error.message, hint=error.hint) from error

    def head(self) -> tuple[bytes, int, str]:
        """The first bytes, the length of the file, and its stamp."""
        try:
            info = self._system.info(self._name)
        except FileNotFoundError as error:
            raise self._file.error("cannot be found: there is no such file") from error
        except Exception as error:  # every plug-in has its own
            raise self._failed("cannot be found", error) from error
        if info.get("type") == "directory" or info.get("size") is None:
            raise self._file.error("is a folder, or has no length")
        size = int(info["size"])
        return self.fetch(0, min(HEAD_BYTES, size)) if size else b"", size, stamp_of(info)

    def fetch(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` to before ``end``."""
        try:
            return bytes(self._system.cat_file(self._name, start=start, end=end))
        except Exception as error:
            raise self._failed(f"cannot be fetched at byte {start}", error) from error

    def _failed(self, what: str, error: Exception) -> BadInputError:
        return self._file.error(f"{what}: {said(error)}", RIGHTS if is_denied(error) else HINT)
