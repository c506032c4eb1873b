"""How a file parts an image: square blocks of Gaussians, and one block for those that reach too far."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from smartsplat_large.codec.payload import Frame, Scope
from smartsplat_large.codec.quantize import MAX_OCTAVE, BoolColumn, FloatColumn, IntColumn
from smartsplat_large.lattice import BlockGrid, Size, Window

WIDE = 0
"""Number of the wide block; the blocks of the grid follow, row by row."""
GRID_DEPTH = 3
"""A coarse cell of the grid is 8 leaf cells a side: about 20 Gaussians."""
SINGLE_BLOCK_COUNT = 6144
"""Files with no more Gaussians than this have the wide block alone."""
BLOCK_SPACINGS = 64
"""Side of a block in mean spacings: 4096 Gaussians."""
MIN_BLOCK_EXPONENT = 8
MAX_LAYERS = 4
LAYER_SHARES = (1 / 8, 1 / 2)
"""The strongest eighth of the Gaussians is the first layer, the strongest half is done with the second, nearly."""
LAYERED_COUNT = 1024
"""Files with fewer Gaussians than this have one layer."""
LEAF_RANGE = (-6, 24)


@dataclass(frozen=True, slots=True)
class Layout:
    """Geometry of the blocks. ``block_exponent`` 0: there is no grid, only the wide block."""

    size: Size
    leaf: int
    """Exponent of the leaf cell's side: ``2**leaf`` pixels."""
    block_exponent: int
    wide: Frame
    least_octaves: tuple[int, ...] = (1,)
    """Of each layer, falling; a Gaussian is in the first layer whose least octave it has."""

    @property
    def layers(self) -> int:
        """Number of layers."""
        return len(self.least_octaves)

    @property
    def block(self) -> int:
        """Side of a block in pixels; 0 without a grid."""
        return 1 << self.block_exponent if self.block_exponent else 0

    @property
    def grid(self) -> BlockGrid | None:
        return BlockGrid(self.size, self.block) if self.block_exponent else None

    @property
    def block_cells(self) -> int:
        """Coarse cells of the largest block of the grid."""
        sides = (min(self.block, side) for side in (self.size.width, self.size.height))
        return math.prod(math.ceil(math.ldexp(side, -(self.leaf + GRID_DEPTH))) for side in sides)

    @property
    def blocks(self) -> int:
        """Number of blocks, the wide one included."""
        return 1 + (len(self.grid) if self.grid else 0)

    def window(self, number: int) -> Window:
        """The pixels whose Gaussians a block holds; the whole image for the wide block."""
        return self.grid[number - 1].core if self.grid and number else self.size.window

    def frame(self, number: int) -> Frame:
        """The cells of a block."""
        if number == WIDE:
            return self.wide
        core = self.window(number)
        side = self.leaf + GRID_DEPTH
        x, y = (math.floor(math.ldexp(v, -self.leaf)) for v in (core.x, core.y))
        columns, rows = (math.ceil(math.ldexp(v, -side)) for v in (core.width, core.height))
        return Frame(x, y, columns, rows, GRID_DEPTH)

    def scope(self, number: int, layer: int, channels: int) -> Scope:
        """What the payload of a block and layer holds."""
        upper = self.least_octaves[layer - 1] if layer else MAX_OCTAVE + 1
        return Scope(self.frame(number), self.leaf, channels, layer, self.least_octaves[layer], upper)

    def layer_of(self, octave: IntColumn) -> IntColumn:
        """The layer of each Gaussian."""
        return np.asarray(sum((octave < least).astype(np.int64) for least in self.least_octaves[:-1]) + 0 * octave)

    def touching(self, window: Window) -> list[int]:
        """The blocks whose Gaussians may show in ``window``, in ascending order; always the wide one first."""
        if not self.grid or window.is_empty:
            return [WIDE]
        reach = window.expanded(self.block // 2)
        left, top = max(reach.x, 0) >> self.block_exponent, max(reach.y, 0) >> self.block_exponent
        right = min((reach.x_end - 1) >> self.block_exponent, self.grid.columns - 1)
        bottom = min((reach.y_end - 1) >> self.block_exponent, self.grid.rows - 1)
        return [WIDE] + [
            1 + row * self.grid.columns + column
            for row in range(top, bottom + 1)
            for column in range(left, right + 1)
        ]  # fmt: skip

    def assign(self, xy: Float64[np.ndarray, "n 2"], reach: FloatColumn) -> IntColumn:
        """Number of the block of each Gaussian: that of its centre, or the wide one if it reaches half a block."""
        if not self.grid:
            return np.zeros(len(xy), np.int64)
        column, row = (np.floor(np.ldexp(xy, -self.block_exponent)).astype(np.int64)).T
        wide = ~inside(xy, self.size) | (reach > self.block / 2)
        return np.where(wide, WIDE, 1 + row * self.grid.columns + column)


def inside(xy: Float64[np.ndarray, "n 2"], size: Size) -> BoolColumn:
    """Whether a centre lies in the image."""
    return np.asarray(((xy >= 0) & (xy < (size.width, size.height))).all(axis=1))


def plan_layout(size: Size, count: int) -> Layout:
    """The layout for about ``count`` Gaussians; its wide frame is the image until :func:`wide_frame`."""
    spacing = math.sqrt(size.pixels / count)
    leaf = min(max(round(math.log2(0.6 * spacing)), LEAF_RANGE[0]), LEAF_RANGE[1])
    exponent = 0
    if count > SINGLE_BLOCK_COUNT:
        exponent = max(round(math.log2(BLOCK_SPACINGS * spacing)), MIN_BLOCK_EXPONENT, leaf + GRID_DEPTH)
    return Layout(size, leaf, exponent, image_frame(size, leaf, GRID_DEPTH))


def with_layers(layout: Layout, octaves: Int64[np.ndarray, "o"]) -> Layout:
    """``layout`` with as many layers as its Gaussians' octaves allow; ``octaves`` says how many have each."""
    at_least = octaves[::-1].cumsum()[::-1]
    count = int(at_least[0])
    if count < LAYERED_COUNT:
        return layout
    # Whole octaves: a border lies where one ends, at or before the share wanted.
    borders = {int(np.flatnonzero(at_least > int(share * count))[-1]) + 1 for share in LAYER_SHARES}
    real = {least for least in borders if 1 < least <= np.flatnonzero(octaves)[-1]}
    return dataclasses.replace(layout, least_octaves=(*sorted(real, reverse=True), 1))


def image_frame(size: Size, leaf: int, depth: int) -> Frame:
    """The frame that covers the image."""
    columns, rows = (math.ceil(math.ldexp(v, -(leaf + depth))) for v in (size.width, size.height))
    return Frame(0, 0, columns, rows, depth)


def wide_frame(layout: Layout, cell: Int64[np.ndarray, "n 2"]) -> Frame:
    """A frame around the image, or around more where centres lie outside, with about 16 Gaussians a coarse cell.

    Raises
    ------
    ValueError
        The centres are too far apart to be numbered: billions of cells, far beyond any image.
    """
    edge = image_frame(layout.size, layout.leaf, 0)
    low = np.minimum(cell.min(axis=0, initial=0), 0)
    high = np.maximum(cell.max(axis=0, initial=0) + 1, (edge.columns, edge.rows))
    span = (high - low).astype(np.float64)
    wanted = max(len(cell) / 16.0, 1.0)
    depth = max(0, math.ceil(math.log2(math.sqrt(float(span.prod()) / wanted))))
    if (low == 0).all() and (high == (edge.columns, edge.rows)).all():
        return image_frame(layout.size, layout.leaf, depth)
    columns, rows = (-(-(high - low) >> depth)).tolist()
    frame = Frame(int(low[0]), int(low[1]), int(columns), int(rows), depth)
    if not frame.is_codable:
        raise ValueError(f"centres from {low} to {high} cells of 2^{layout.leaf} pixels are too far apart")
    return frame
