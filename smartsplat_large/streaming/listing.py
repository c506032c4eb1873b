"""All files of a zarr hierarchy, known by name, size and time of change; none of them is opened."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from smartsplat_large.errors import SourceError
from smartsplat_large.places import is_http
from smartsplat_large.remote import file_system, stamp_of

_NOT_OF_THE_IMAGE = re.compile(
    r"smartsplat-(\w{8}|\w{12})"  # a working copy
    r"|.+\.ssplat(\..+)?"  # an output, its parts, the state of its fit
    r"|\.(?!z).*"  # what file systems and their browsers leave behind; hidden names of zarr are .zarray and the like
)


@dataclass(frozen=True, slots=True)
class Listing:
    """What is kept of a list of files."""

    count: int
    total_bytes: int
    digest: str
    """Of relative names, sizes and stamps, in order."""


class _Entry(NamedTuple):
    name: str
    inside: str | None
    """What to list it by, of a folder."""
    size_bytes: int
    stamp: str


_Lister: TypeAlias = Callable[[str], Iterable[_Entry]]


def list_folder(folder: Path) -> Listing:
    """Every file below a folder, also behind links, but nothing that a fit may have written there.

    Raises
    ------
    SourceError
        It cannot be listed. A folder in it that this user may not list counts as empty.
    """
    try:
        return _summary(_files(partial(_on_disk, linked={os.path.realpath(folder)}), str(folder)))
    except OSError as error:
        raise SourceError(f"{error.filename}: {error.strerror}", hint="check the disk") from error


def list_address(url: str) -> Listing | None:
    """The same at an address, by the store's own marks; None where the store does not tell what it holds."""
    if is_http(url):
        return None
    try:
        system, name = file_system(url)
        system.invalidate_cache()
        found = _summary(_files(partial(_in_store, system), name))
    except MemoryError:
        raise
    except Exception:  # every plug-in has its own for that it cannot, or that the user may not
        return None
    return found if found.count else None


def _summary(files: Iterable[tuple[str, int, str]]) -> Listing:
    digest, count, total = hashlib.blake2b(digest_size=16), 0, 0
    for name, size_bytes, stamp in files:
        digest.update(f"{name}\0{size_bytes}\0{stamp}\0".encode(errors="backslashreplace"))
        count, total = count + 1, total + size_bytes
    return Listing(count, total, digest.hexdigest())


def _files(entries: _Lister, folder: str, below: str = "") -> Iterator[tuple[str, int, str]]:
    """Relative name, size and stamp of each file; the names of one folder, and of those it is in, are held at a time."""
    for name, inside, size_bytes, stamp in entries(folder):
        if _NOT_OF_THE_IMAGE.fullmatch(name):
            continue
        if inside is None:
            yield below + name, size_bytes, stamp
        else:
            yield from _files(entries, inside, f"{below}{name}/")


def _on_disk(folder: str, linked: set[str]) -> Iterator[_Entry]:
    """What is in a folder, by name; a folder that is linked to counts where it is met first, so that circles end."""
    with contextlib.suppress(FileNotFoundError, PermissionError):
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            path = Path(folder, name)
            found = _status(path)
            is_folder = stat.S_ISDIR(found.st_mode)
            if is_folder and path.is_symlink():
                target = os.path.realpath(path)
                if target in linked:
                    continue
                linked.add(target)
            yield _Entry(name, str(path) if is_folder else None, found.st_size, str(found.st_mtime_ns))


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError:  # a link that leads nowhere
        return path.lstat()


def _in_store(system: Any, folder: str) -> Iterator[_Entry]:
    # Not find(), which would hold the list of a terabyte's files at once; and what is cached of a listing would stay.
    found = system.ls(folder, detail=True)
    system.invalidate_cache()
    for info in sorted(found, key=lambda info: str(info["name"])):
        place = str(info["name"]).rstrip("/")
        if place == folder.rstrip("/"):  # an empty object that stands for the folder
            continue
        is_folder = info.get("type") == "directory"
        yield _Entry(place.rpartition("/")[2], place if is_folder else None, int(info.get("size") or 0), stamp_of(info))
