"""The pixels a fit aims at, block by block, as planes; kept in memory as far as they fit."""

from __future__ import annotations

from typing import Any

from smartsplat_large.array_types import WholePlanes
from smartsplat_large.lattice import Window
from smartsplat_large.pixels import to_whole_planes
from smartsplat_large.source.base import ImageSource


class Targets:
    """Windows of one pyramid level. What was read once is kept, up to ``kept_bytes``; travels to workers without that.

    Safe to use from several threads: at worst two of them read the same window.
    """

    def __init__(self, source: ImageSource, level: int, kept_bytes: int = 0) -> None:
        self.source, self.level = source, level
        self._room = kept_bytes
        self._kept: dict[Window, WholePlanes] = {}

    def read(self, window: Window) -> WholePlanes:
        """The planes of ``window``; not to be changed."""
        kept = self._kept.get(window)
        if kept is not None:
            return kept
        planes = to_whole_planes(self.source.read(window, self.level))
        if planes.nbytes <= self._room:
            self._room -= planes.nbytes
            self._kept[window] = planes
        return planes

    def __reduce__(self) -> tuple[Any, ...]:
        return Targets, (self.source, self.level)
