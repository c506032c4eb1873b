"""zarr hierarchies in folders and at addresses: what to give to zarr."""

from __future__ import annotations

import contextlib
import functools
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smartsplat_large.errors import OutputExistsError
from smartsplat_large.places import Place, joined
from smartsplat_large.remote import file_system, http_range
from smartsplat_large.remote_output import exists, remove

MARKERS = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
"""Files of which at least one lies in every zarr group or array."""


def zarr_store(place: Place, *, read_only: bool) -> Any:
    """The store of a folder, or of an address."""
    if isinstance(place, Path):
        return str(place)
    from fsspec import FSMap
    from zarr.storage import FsspecStore

    if place.startswith(("http://", "https://")):
        return FsspecStore.from_mapper(FSMap(place, _http_system()), read_only=True)
    # Found by ourselves: what fails there has a name and a way out.
    system, name = file_system(place)
    return FsspecStore.from_mapper(FSMap(name, system), read_only=read_only)


@contextlib.contextmanager
def new_zarr(url: str, *, overwrite: bool) -> Iterator[None]:
    """Leave to write a zarr hierarchy to an address, inside the ``with`` block; on any failure nothing is left there.

    Raises
    ------
    OutputExistsError
        Something is there, and may not be overwritten, or is no zarr hierarchy. To be overwritten, it goes at once.
    UsageError, MissingDependencyError
        It cannot be written.
    """
    if exists(url):
        if not any(exists(joined(url, marker)) for marker in MARKERS):
            raise OutputExistsError(f"{url}: is there, and holds no zarr image", hint="choose another name")
        if not overwrite:
            raise OutputExistsError(f"{url}: exists already", hint="--overwrite replaces it")
        remove(url)
    try:
        yield
    except BaseException:
        remove(url)
        raise


@functools.cache
def _http_system() -> Any:
    """The standard library's ranges as a file system of fsspec, whose own takes a package more."""
    from fsspec import AbstractFileSystem

    class HttpSystem(AbstractFileSystem):  # type: ignore[misc]
        """Reads whole files and parts of them."""

        protocol = ("http", "https")

        def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any) -> bytes:
            first = start or 0
            wanted = str(first) if first < 0 else f"{first}-{'' if end is None else end - 1}"
            try:
                return http_range(path, wanted)[0]
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    raise FileNotFoundError(path) from error
                raise

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return path

    return HttpSystem()
