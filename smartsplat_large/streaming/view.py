"""Windows of a file, at any zoom, from only the blocks that touch them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from smartsplat_large.array_types import Pixels
from smartsplat_large.codec import SplatFile
from smartsplat_large.gaussians import CUTOFF, Gaussians
from smartsplat_large.lattice import Size, Window
from smartsplat_large.render.base import Renderer, box_variance
from smartsplat_large.streaming.workers import Workers

_TASK_WIDTH = 2048
_WORTH_LEAVING = 0.75
"""More than this share of a batch is not worth copying."""


@dataclass(frozen=True, slots=True)
class View:
    """A file seen at ``pitch`` level-0 pixels per pixel. Picklable; safe to read from several threads."""

    file: SplatFile
    renderer: Renderer
    pitch: float = 1.0
    skip_damage: bool = False
    """Render damaged blocks as if they were empty (they are noted in ``file.damage``) instead of raising."""

    @property
    def size(self) -> Size:
        """Size of the whole picture at this pitch: as many pixels as touch it."""
        full = self.file.header.size
        return Size(*(max(1, math.ceil(side / self.pitch - 1e-9)) for side in (full.width, full.height)))

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return np.dtype(np.uint8 if self.file.header.bits == 8 else np.uint16)

    def read(self, window: Window) -> Pixels:
        """One window, in pixels of this view, as stored pixels; the same bits whatever the window."""
        # The pixel box widens every Gaussian; the file's blocks know only their width at full size.
        margin = math.ceil(math.sqrt(2 * CUTOFF * box_variance(self.pitch))) + 1
        touched = to_full_size(window, self.pitch)
        gaussians = self.file.gaussians(touched, margin=margin, on_damage="skip" if self.skip_damage else "raise")
        # A block is larger than a strip is high: projecting all of it for every strip would take a third of the time.
        return self.renderer.pixels(near(gaussians, window, self.pitch), window, self.dtype, self.pitch)

    def bands(self, window: Window, height: int, workers: Workers) -> Iterator[Pixels]:
        """``window`` as strips of its full width, from the top, ``height`` rows each (the last may have fewer)."""
        across = -(-window.width // _TASK_WIDTH)
        down = -(-window.height // height)
        shared = BandTasks(self, window, height, across)
        parts: list[Pixels] = []
        for pixels in workers.map(read_part, shared, range(across * down)):
            parts.append(pixels)
            if len(parts) == across:
                yield np.concatenate(parts, axis=1) if across > 1 else parts[0]
                parts = []


@dataclass(frozen=True, slots=True)
class BandTasks:
    """What the tasks of a decoding share."""

    view: View
    window: Window
    height: int
    across: int


def read_part(tasks: BandTasks, index: int) -> Pixels:
    """The task of one part of a strip."""
    row, column = divmod(index, tasks.across)
    x, y = tasks.window.x + column * _TASK_WIDTH, tasks.window.y + row * tasks.height
    return tasks.view.read(Window(x, y, _TASK_WIDTH, tasks.height).intersection(tasks.window))


def to_full_size(window: Window, pitch: float) -> Window:
    """The level-0 pixels that a window at ``pitch`` covers, in whole pixels."""
    x, y = math.floor(window.x * pitch), math.floor(window.y * pitch)
    return Window(x, y, math.ceil(window.x_end * pitch) - x, math.ceil(window.y_end * pitch) - y)


def from_full_size(window: Window, pitch: float, size: Size) -> Window:
    """The pixels at ``pitch`` that a level-0 window touches, inside ``size``; at least one."""
    x, y = math.floor(window.x / pitch), math.floor(window.y / pitch)
    x_end, y_end = math.ceil(window.x_end / pitch - 1e-9), math.ceil(window.y_end / pitch - 1e-9)
    return Window(x, y, max(1, x_end - x), max(1, y_end - y)).clipped(size)


def near(gaussians: Gaussians, window: Window, pitch: float) -> Gaussians:
    """Those that may show in ``window``, in their order; ``gaussians`` itself where that is nearly all of them."""
    kept = _near(
        gaussians.xy, gaussians.scale, window.x, window.y, window.x_end, window.y_end, pitch, box_variance(pitch)
    )
    return gaussians.take(kept) if len(kept) < _WORTH_LEAVING * len(gaussians) else gaussians


@njit(cache=True, nogil=True, error_model="numpy")
def _near(xy: Any, scale: Any, x: int, y: int, x_end: int, y_end: int, pitch: float, box: float) -> Any:
    kept = np.empty(len(xy), np.int64)
    count = 0
    for i in range(len(xy)):
        longest = np.float64(max(scale[i, 0], scale[i, 1]))
        # A circle around the ellipse, and a pixel for rounding.
        reach = math.sqrt(2 * CUTOFF * (longest * longest + box)) + pitch
        left, top = xy[i, 0] - x * pitch, xy[i, 1] - y * pitch
        right, bottom = x_end * pitch - xy[i, 0], y_end * pitch - xy[i, 1]
        if min(min(left, top), min(right, bottom)) > -reach:
            kept[count] = i
            count += 1
    return kept[:count]
