"""Which block of a grid owns which Gaussians, how far it must see, and who else shows there."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32
from numba import njit

from smartsplat_large import columns
from smartsplat_large.array_types import Index
from smartsplat_large.bucketing import cell_span
from smartsplat_large.fitting.optimizer import AdamState
from smartsplat_large.fitting.visit import Visit
from smartsplat_large.gaussians import CUTOFF, Gaussians
from smartsplat_large.lattice import BlockGrid, Window
from smartsplat_large.ordering import by_cell
from smartsplat_large.render.base import box_variance
from smartsplat_large.streaming.workers import Workers

GROWTH = 1.25
"""A window is this many times as wide as its Gaussians reach: they move and grow during a visit."""
_MARGIN = 2
"""Pixels beyond that."""

Boxes = Float32[np.ndarray, "n 4"]
"""``x, x_end, y, y_end`` of what each Gaussian covers, in pixels of a level."""
Homes = Int32[np.ndarray, "n"]
"""The block that owns each Gaussian; -1 for those that reach too far."""


@dataclass(slots=True)
class Territory:
    """The state of all Gaussians, parted among the blocks of a grid, whose halo is the :func:`cap`."""

    state: AdamState
    grid: BlockGrid
    pitch: float
    boxes: Boxes
    homes: Homes

    @classmethod
    def survey(
        cls, state: AdamState, grid: BlockGrid, pitch: float, workers: Workers, homes: Homes | None = None
    ) -> Territory:
        """Find out what every Gaussian covers and, unless it is known, who owns it."""
        boxes = columns.empty((len(state), 4), np.float32)
        found = columns.empty(len(state), np.int32) if homes is None else homes

        def look(rows: slice) -> None:
            boxes[rows] = covered(state.gaussians(rows), pitch)
            if homes is None:
                _settle(boxes[rows], GROWTH, float(_MARGIN), *_lines(grid), found[rows])

        workers.spread(look, len(state))
        return cls(state, grid, pitch, boxes, found)

    def group(self, number: int, beyond: int) -> Group:
        """The blocks of one colour that own anything; they see ``beyond`` pixels around their windows."""
        # Those without an owner come first.
        start, rows = by_cell(self.homes + 1, len(self.grid) + 1)
        blocks = [b for b in self.grid.group(number) if start[b + 1] < start[b + 2]]
        own = [rows[start[b + 1] : start[b + 2]] for b in blocks]
        windows = [self._window(b, rows) for b, rows in zip(blocks, own, strict=True)]
        return Group(self, own, windows, self._neighbours(blocks, windows, beyond))

    def _window(self, block: int, rows: Index) -> Window:
        """A block's core and all that its own Gaussians may come to cover, no farther than the cap."""
        x, y = (_grown(self.boxes[rows][:, axis : axis + 2]) for axis in (0, 2))
        reached = Window(x[0], y[0], x[1] - x[0], y[1] - y[0]).intersection(self.grid[block].outer)
        core = self.grid[block].core
        left, top = min(core.x, reached.x), min(core.y, reached.y)
        return Window(left, top, max(core.x_end, reached.x_end) - left, max(core.y_end, reached.y_end) - top)

    def _neighbours(self, blocks: list[int], windows: list[Window], beyond: int) -> list[Index]:
        """Rows of those that show in each window but belong to none of ``blocks``' own, in order."""
        slots = np.full(len(self.grid), -1, np.int32)
        slots[blocks] = np.arange(len(blocks))
        seen = [w.expanded(beyond + 1) for w in windows]
        edges = np.array([(w.x, w.x_end, w.y, w.y_end) for w in seen], np.float32).reshape(-1, 4)
        grid = self.grid
        start, ids = _overlapping(
            self.boxes, self.homes, edges, slots, grid.block, grid.shift, float(grid.halo + beyond + 1), grid.columns, grid.rows
        )  # fmt: skip
        return [ids[a:b] for a, b in itertools.pairwise(start)]


@dataclass(frozen=True, slots=True)
class Group:
    """Visits that may be made at the same time; each is put together when it is asked for."""

    territory: Territory
    own: list[Index]
    windows: list[Window]
    neighbours: list[Index]

    def __len__(self) -> int:
        return len(self.own)

    def __getitem__(self, number: int) -> Visit:
        state = self.territory.state
        neighbours = state.gaussians(self.neighbours[number])
        return Visit(self.windows[number], state.take(self.own[number]), neighbours)

    def put(self, states: list[AdamState]) -> None:
        """Replace what the visited blocks own, in their order."""
        for rows, part in zip(self.own, states, strict=True):
            self.territory.state.put(rows, part)
            self.territory.boxes[rows] = covered(part.gaussians(), self.territory.pitch)


def covered(gaussians: Gaussians, pitch: float) -> Boxes:
    """The boxes outside which Gaussians are zero, seen at ``pitch``."""
    boxes = np.empty((len(gaussians), 4), np.float32)
    _cover(gaussians.xy, gaussians.scale, gaussians.rotation, pitch, box_variance(pitch), boxes)
    return boxes


def _grown(spans: Any) -> tuple[int, int]:
    middle, half = (spans[:, 0] + spans[:, 1]) / 2, (spans[:, 1] - spans[:, 0]) / 2
    half = GROWTH * half + _MARGIN
    return math.floor((middle - half).min()), math.ceil((middle + half).max())


def _lines(grid: BlockGrid) -> tuple[int, ...]:
    return grid.block, grid.shift, grid.halo, grid.columns, grid.rows, grid.size.width, grid.size.height


@njit(cache=True, nogil=True, error_model="numpy")
def _cover(xy: Any, scale: Any, rotation: Any, pitch: float, box: float, boxes: Any) -> None:
    for i in range(len(xy)):
        vx = (np.float64(scale[i, 0]) ** 2 + box) / (pitch * pitch)
        vy = (np.float64(scale[i, 1]) ** 2 + box) / (pitch * pitch)
        c, s = math.cos(rotation[i]), math.sin(rotation[i])
        x, y = xy[i, 0] / pitch, xy[i, 1] / pitch
        rx = math.sqrt(2 * CUTOFF * (c * c * vx + s * s * vy))
        ry = math.sqrt(2 * CUTOFF * (s * s * vx + c * c * vy))
        boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3] = x - rx, x + rx, y - ry, y + ry


@njit(cache=True, nogil=True, error_model="numpy")
def _settle(
    boxes: Any, growth: float, margin: float, block: int, shift: int, halo: int, columns: int, rows: int,
    width: int, height: int, homes: Any,
) -> None:  # fmt: skip
    """The block of each centre (the nearest one, for a centre outside the image), if it sees all of the Gaussian."""
    for i in range(len(boxes)):
        column = _cell(boxes[i, 0], boxes[i, 1], growth, margin, block, shift, halo, columns, width)
        row = _cell(boxes[i, 2], boxes[i, 3], growth, margin, block, shift, halo, rows, height)
        homes[i] = row * columns + column if row >= 0 and column >= 0 else -1


@njit(cache=True, nogil=True, error_model="numpy")
def _cell(
    low: float, high: float, growth: float, margin: float, block: int, shift: int, halo: int, count: int, side: int
) -> int:
    """The cell along one axis; -1 where its outer window does not hold what lies inside the image."""
    middle, half = (low + high) / 2, (high - low) / 2 * growth + margin
    cell = int(min(max(math.floor((middle + shift) / block), 0.0), count - 1.0))
    first, last = cell * block - shift - halo, (cell + 1) * block - shift + halo
    fits = max(middle - half, 0.0) >= max(first, 0) and min(middle + half, float(side)) <= min(last, side)
    return cell if fits else -1


@njit(cache=True, nogil=True, error_model="numpy")
def _overlapping(
    boxes: Any, homes: Any, windows: Any, slots: Any, block: int, shift: int, reach: float, columns: int, rows: int
) -> Any:
    """For each window, the boxes that meet it and are not its block's own: ``ids[start[w] : start[w + 1]]``."""
    start = np.zeros(len(windows) + 1, np.int64)
    ids = np.empty(0, np.int32)
    position = start[:-1].copy()
    for fill in range(2):
        for i in range(len(boxes)):
            x, x_end, y, y_end = boxes[i, 0], boxes[i, 1], boxes[i, 2], boxes[i, 3]
            left, right = cell_span(x - reach + shift, x_end + reach + shift, block, 0, columns)
            top, bottom = cell_span(y - reach + shift, y_end + reach + shift, block, 0, rows)
            for row in range(top, bottom + 1):
                for column in range(left, right + 1):
                    cell = row * columns + column
                    w = slots[cell]
                    if w < 0 or homes[i] == cell:
                        continue
                    if x < windows[w, 1] and x_end > windows[w, 0] and y < windows[w, 3] and y_end > windows[w, 2]:
                        if fill:
                            ids[position[w]] = i
                            position[w] += 1
                        else:
                            start[w + 1] += 1
        if not fill:
            for w in range(len(windows)):
                start[w + 1] += start[w]
            ids = np.empty(start[-1], np.int32)
            position = start[:-1].copy()
    return start, ids
