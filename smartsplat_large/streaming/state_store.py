"""Where the state of a fit is kept: in a folder of a disk, or at an address.

Either has two zarr groups, ``a`` and ``b``, and a marker, which is replaced in one step. What only a disk needs is that bytes
and names are awaited (``fsync``); a store that keeps objects answers when it has an object whole.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smartsplat_large.atomic_output import await_on_disk
from smartsplat_large.errors import DiskFullError, SmartSplatError, UsageError
from smartsplat_large.memory import doubt_of_room
from smartsplat_large.places import Place, joined, shown
from smartsplat_large.remote import HINT, said
from smartsplat_large.remote_output import put, remove, writable_system
from smartsplat_large.remote_zarr import zarr_store

MARKER = "commit.json"
SLOTS = ("a", "b")


class StateStore(ABC):
    """Keeps a state. What cannot be written is an ``OSError``."""

    place: Place

    def __str__(self) -> str:
        return str(self.place)

    def doubt_of_room(self, most_bytes: int) -> str:
        """The end of a note that so much will lie here, where it may not fit; empty where it does, or that is not known."""
        return ""

    @abstractmethod
    def begin(self, slot: str | None = None) -> None:
        """Make the place, if it is not there; and in it an empty slot."""

    @abstractmethod
    def settle(self, slot: str) -> None:
        """Return when all of a slot is where no power cut takes it from."""

    @abstractmethod
    def replace_marker(self, text: str) -> None:
        """Put the marker in its place in one step; it is settled then."""

    @abstractmethod
    def marker(self) -> str | None:
        """The marker, if there is one that can be read.

        Raises
        ------
        UsageError
            Whether there is one cannot be found out.
        """

    @abstractmethod
    def discard(self, slot: str) -> None:
        """Remove a slot, as far as that can be done."""

    @abstractmethod
    def remove(self) -> None:
        """Remove slots and marker, the marker last, and the place if it is empty then; as far as that can be done."""

    @abstractmethod
    def writing(self) -> contextlib.AbstractContextManager[None]:
        """For the length of a ``with`` block, whatever cannot be written is an ``OSError``."""

    @abstractmethod
    def reading(self) -> contextlib.AbstractContextManager[None]:
        """For the length of a ``with`` block, that the place cannot be reached is a ``UsageError``."""

    def slot(self, name: str, *, read_only: bool) -> Any:
        """What zarr takes for a slot."""
        return zarr_store(joined(self.place, name), read_only=read_only)


class DiskStore(StateStore):
    """In a folder, whose own folder exists."""

    def __init__(self, place: Path) -> None:
        self.place: Path = place

    def doubt_of_room(self, most_bytes: int) -> str:
        # What lies here already will be replaced, a slot at a time.
        taken = sum(path.stat().st_size for path in self.place.rglob("*") if path.is_file())
        return doubt_of_room(self.place.parent, most_bytes - taken)

    def begin(self, slot: str | None = None) -> None:
        self.place.mkdir(exist_ok=True)
        if slot is not None and (self.place / slot).exists():
            shutil.rmtree(self.place / slot)

    def settle(self, slot: str) -> None:
        for place, _, files in os.walk(self.place / slot):
            for name in (*files, "."):
                await_on_disk(Path(place, name))

    def replace_marker(self, text: str) -> None:
        part = self.place / f"{MARKER}.part"
        part.write_text(text)
        await_on_disk(part)
        part.replace(self.place / MARKER)
        for folder in (self.place, self.place.parent):
            await_on_disk(folder)

    def marker(self) -> str | None:
        try:
            return (self.place / MARKER).read_text()
        except (OSError, ValueError):
            return None

    def discard(self, slot: str) -> None:
        shutil.rmtree(self.place / slot, ignore_errors=True)

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            for slot in SLOTS:
                self.discard(slot)
            # The marker last: without it, a run that is killed here would find its output in the way.
            for name in (f"{MARKER}.part", MARKER):
                (self.place / name).unlink(missing_ok=True)
            self.place.rmdir()

    def writing(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def reading(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()


class ObjectStore(StateStore):
    """At an address; a file there is whole or not there."""

    def __init__(self, place: str) -> None:
        self.place: str = place
        self._system, self._name = writable_system(place)

    def begin(self, slot: str | None = None) -> None:
        if slot is not None:
            self.discard(slot)

    def settle(self, slot: str) -> None:
        pass

    def replace_marker(self, text: str) -> None:
        with self.writing():
            put(joined(self.place, MARKER), text.encode())

    def marker(self) -> str | None:
        try:
            with self.reading():
                return bytes(self._system.cat_file(f"{self._name}/{MARKER}")).decode()
        except (FileNotFoundError, NotADirectoryError, UnicodeDecodeError):
            return None

    def discard(self, slot: str) -> None:
        remove(joined(self.place, slot))

    def remove(self) -> None:
        for name in (*SLOTS, MARKER):
            remove(joined(self.place, name))
        # Some kinds of address have folders.
        with contextlib.suppress(Exception):
            self._system.rmdir(self._name)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, MemoryError):
            raise
        except Exception as error:  # every plug-in has its own
            raise OSError(error.message if isinstance(error, SmartSplatError) else said(error)) from error

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, LookupError, ValueError, TypeError, MemoryError, DiskFullError):
            raise
        except Exception as error:
            raise UsageError(f"{shown(self.place)}: cannot be read: {said(error)}", hint=HINT) from error


def state_store(place: Place | None) -> StateStore | None:
    """The store at a path or an address; none at none."""
    if place is None:
        return None
    return DiskStore(place) if isinstance(place, Path) else ObjectStore(place)
