"""The pixels a fit aims at, block by block, as planes; kept in memory as far as they fit."""

from __future__ import annotations

import threading
import uuid
from typing import Any

from smartsplat_large.array_types import WholePlanes
from smartsplat_large.lattice import Window
from smartsplat_large.source.base import ImageSource, read_planes


class Targets:
    """Windows of one pyramid level. What was read once is kept, up to ``kept_bytes``.

    It travels without that; each process where it arrives keeps up to ``kept_elsewhere`` bytes, of the latest that arrived.
    Safe to use from several threads: at worst two of them read the same window.
    """

    def __init__(self, source: ImageSource, level: int, kept_bytes: int = 0, kept_elsewhere: int = 0) -> None:
        self.source, self.level = source, level
        self._shelf = _Shelf(kept_bytes)
        self._token, self._elsewhere = uuid.uuid4().hex, kept_elsewhere

    def read(self, window: Window) -> WholePlanes:
        """The planes of ``window``; not to be changed."""
        kept = self._shelf.kept.get(window)
        if kept is not None:
            return kept
        planes = read_planes(self.source, window, self.level)
        self._shelf.put(window, planes)
        return planes

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self.source, self.level, self._token, self._elsewhere)


class _Shelf:
    """Windows, as many as there is room for."""

    def __init__(self, room_bytes: int, token: str = "") -> None:
        self.kept: dict[Window, WholePlanes] = {}
        self.token = token
        self._room = room_bytes
        self._lock = threading.Lock()

    def put(self, window: Window, planes: WholePlanes) -> None:
        with self._lock:
            if planes.nbytes <= self._room and window not in self.kept:
                self._room -= planes.nbytes
                self.kept[window] = planes

    def clear(self) -> None:
        """Give all of it up, for good."""
        with self._lock:
            self._room = 0
            self.kept = {}


_latest = _Shelf(0)
_turn = threading.Lock()


def _arrived(source: ImageSource, level: int, token: str, room_bytes: int) -> Targets:
    targets = Targets(source, level)
    if room_bytes:
        targets._shelf = _latest_shelf(token, room_bytes)
    return targets


def _latest_shelf(token: str, room_bytes: int) -> _Shelf:
    """The one of a token. There is one in a process: that of another token is cleared."""
    global _latest
    with _turn:
        if _latest.token != token:
            _latest.clear()
            _latest = _Shelf(room_bytes, token)
        return _latest


def forget() -> None:
    """Give up what this process keeps of :class:`Targets` that arrived."""
    _latest_shelf("", 0)
