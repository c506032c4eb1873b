"""Outputs that are there whole or not at all: written beside their place as ``NAME.*.part``, moved when finished.

The star is the number of the process and a counter, so that two runs never share a part and nothing that is there already is
ever taken for one.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smartsplat_large.errors import DiskFullError, OutputExistsError, UsageError

_NUMBERS = itertools.count()
# EFBIG is a full disk too as far as the user is concerned: the file system, or a quota, takes no more.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_destination(path: Path, *, overwrite: bool, folder: bool = False) -> None:
    """Do nothing if ``path`` may be written, as a folder (a zarr image) or as a file.

    Raises
    ------
    OutputExistsError
        It exists and ``overwrite`` is not set, or it is of the other kind, or a folder that is no zarr image.
    UsageError
        The folder it would lie in is missing or not writable.
    """
    try:
        # The longest name there will be, and the first question that a name may be too long for.
        _part(path).is_dir()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint="choose another name") from error
    if not path.parent.is_dir():
        if path.parts[0].endswith(":"):  # the rest of "https://", of which a path keeps one slash
            raise UsageError(f"{path}: is an address, and outputs are files", hint="write a file, and upload that")
        raise UsageError(f"{path}: there is no folder {path.parent}", hint=f"mkdir -p {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: the folder {path.parent} may not be written", hint="choose another folder")
    if path.is_dir() and folder and not is_zarr_folder(path):
        raise OutputExistsError(f"{path}: is a folder that holds no zarr image", hint="choose another name")
    if path.is_dir() and not folder:
        raise OutputExistsError(f"{path}: is a folder", hint="name a file inside it")
    if folder and path.exists() and not path.is_dir():
        raise OutputExistsError(f"{path}: is a file, and a zarr image is a folder", hint="choose another name")
    if path.exists() and not path.is_dir() and not path.is_file():
        # To be moved into place is to replace it: /dev/null would be gone from the machine.
        raise OutputExistsError(f"{path}: is a device or a pipe", hint="name a file, which can be put in place whole")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path}: exists already", hint="--overwrite replaces it")


def is_zarr_folder(path: Path) -> bool:
    """Whether ``path`` is a folder that holds a zarr array or group of version 2 or 3."""
    return any((path / marker).is_file() for marker in ("zarr.json", ".zgroup", ".zarray"))


@contextmanager
def part_file(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """The name to write to; on success it becomes ``path`` in one step, on any failure or interrupt it is removed.

    Its bytes are on the disk before it takes its name, and its name is when the block has ended: a power cut leaves the old
    file or the new one.

    Raises
    ------
    OutputExistsError, UsageError
        As :func:`check_destination`, before anything is written.
    DiskFullError
        The disk ran full inside the ``with`` block.
    """
    check_destination(path, overwrite=overwrite)
    part = _part(path)
    try:
        with disk_full_named(path):
            yield part
            await_on_disk(part)
            part.replace(path)
            await_on_disk(path.parent)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def part_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """As :func:`part_file`, for a folder that holds a zarr image; an old one goes only when the new one is whole."""
    check_destination(path, overwrite=overwrite, folder=True)
    part = _part(path)
    try:
        with disk_full_named(path):
            part.mkdir()
            yield part
            _swap(part, path)
    finally:
        _remove(part)


@contextmanager
def disk_full_named(path: Path) -> Iterator[None]:
    """Turns the operating system's word for a full disk into one that names the output.

    Raises
    ------
    DiskFullError
        The disk, or a quota, ran full inside the ``with`` block.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS) and _is_part_of(error.filename, path):
            raise UsageError(f"{path}: cannot be written: {error.strerror}", hint="choose another folder") from error
        if error.errno not in _FULL or isinstance(error, DiskFullError):
            raise
        free = shutil.disk_usage(path.parent).free
        raise DiskFullError(
            f"{path}: the disk is full ({free / 1e6:.0f} MB left)", hint="make room, or write to another disk"
        ) from error


def await_on_disk(path: Path) -> None:
    """Return when the bytes of a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _swap(part: Path, path: Path) -> None:
    """Put the folder ``part`` in the place of ``path``; an interrupt in between brings the old folder back."""
    taken = (path.with_name(f"{path.name}.{number}.old") for number in itertools.count())
    old = next(name for name in taken if not name.exists())
    try:
        if path.exists():
            path.rename(old)
        part.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    _remove(old)


def _is_part_of(name: object, path: Path) -> bool:
    return isinstance(name, str) and name.startswith(f"{path}.") and name.endswith(".part")


def _part(path: Path) -> Path:
    free = (path.parent / f"{path.name}.{os.getpid()}-{number}.part" for number in _NUMBERS)
    return next(name for name in free if not os.path.lexists(name))


def _remove(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)
