"""Files that are written elsewhere, through fsspec, and folders for those that pass."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smartsplat_large.errors import OutputExistsError, SmartSplatError, UsageError
from smartsplat_large.places import Place, is_http, joined, shown
from smartsplat_large.remote import RIGHTS, file_system, is_denied, said


def exists(url: str) -> bool:
    """Whether there is a file or a folder.

    Raises
    ------
    UsageError, MissingDependencyError
        It cannot be found out.
    """
    system, name = writable_system(url)
    with writing_named(url):
        system.invalidate_cache()
        return bool(system.exists(name))


def check_address(url: str, *, overwrite: bool) -> None:
    """Do nothing if a file may be written there, as far as can be told without writing.

    Raises
    ------
    OutputExistsError
        Something is there already, and may not be overwritten.
    UsageError, MissingDependencyError
        It cannot be found out, or the address takes no files.
    """
    if exists(url) and not overwrite:
        raise OutputExistsError(f"{shown(url)}: exists already", hint="--overwrite replaces it")


@contextlib.contextmanager
def passing_folder(inside: Place | None) -> Iterator[Any]:
    """A new folder for passing files, by default in the temporary one; it goes with all that is in it when the block ends.

    Raises
    ------
    UsageError, MissingDependencyError
        It cannot be made there.
    """
    if isinstance(inside, str):
        folder = joined(inside, f"smartsplat-{uuid.uuid4().hex[:12]}")
        try:
            # Said now, not when the image has been read.
            put(joined(folder, "begun"), b"")
            yield folder
        finally:
            remove(folder)
        return
    try:
        made = tempfile.TemporaryDirectory(prefix="smartsplat-", dir=inside)
    except OSError as error:
        raise UsageError(f"{inside}: {error.strerror}", hint="name a folder that may be written") from error
    with made as name:
        yield Path(name)


def put(url: str, data: bytes) -> None:
    """Write a file in one go: a store that keeps objects has the old one or the new one, never half.

    Raises
    ------
    UsageError, MissingDependencyError
        It cannot be written.
    """
    system, name = writable_system(url)
    with writing_named(url):
        system.pipe_file(name, data)


def remove(place: Place) -> None:
    """Remove a file, or at an address a folder and all that is in it, if it is there; what cannot be removed stays."""
    if isinstance(place, Path):
        with contextlib.suppress(OSError):
            place.unlink()
        return
    system, name = writable_system(place)
    with contextlib.suppress(Exception):
        system.invalidate_cache()
        system.rm(name, recursive=True)


@contextlib.contextmanager
def writing_named(place: Place) -> Iterator[None]:
    """Turns what a store fails with, inside a ``with`` block that writes to an address, into one line that names it.

    Raises
    ------
    UsageError
        It cannot be written.
    """
    try:
        yield
    except SmartSplatError:
        raise
    except Exception as error:  # every plug-in has its own
        if isinstance(place, Path) or isinstance(error, MemoryError):
            raise
        raise UsageError(
            f"{shown(place)}: cannot be written: {said(error)}",
            hint=RIGHTS if is_denied(error) else "check the address",
        ) from error


def writable_system(url: str) -> tuple[Any, str]:
    """As :func:`file_system`, of an address that files may be written to."""
    if is_http(url):
        raise UsageError(f"{shown(url)}: a web server takes no files", hint="s3://, gs://, or a folder")
    return file_system(url)
