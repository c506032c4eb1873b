"""One block of one sweep: render what touches it, compare with the target, and pass the gradient back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32
from numba import njit

from smartsplat_large import columns
from smartsplat_large.array_types import Index, Moments, WholePlanes
from smartsplat_large.bucketing import cell_span, count_by_cell, fill_by_cell
from smartsplat_large.config import LossConfig
from smartsplat_large.fitting import block_cuda
from smartsplat_large.fitting.loss import LossSums, block_loss
from smartsplat_large.lattice import Block, BlockGrid, Size
from smartsplat_large.render.base import BlockRenderer, PointwiseLoss, Projection
from smartsplat_large.render.cuda import CudaRenderer
from smartsplat_large.render.records import MX, MY, REACH_X, REACH_Y

Spans = Int32[np.ndarray, "n 4"]


@dataclass(frozen=True, slots=True)
class Members:
    """Which Gaussians touch the outer window of which block, in order of their index."""

    start: Index
    ids: Int32[np.ndarray, "m"]

    def of(self, block: int) -> Int32[np.ndarray, "k"]:
        return self.ids[self.start[block] : self.start[block + 1]]


def members(projection: Projection, grid: BlockGrid) -> Members:
    """Members of every block of a grid that is laid on the image at the pitch of ``projection``."""
    return members_by(spans(projection, grid), grid)


def members_by(spans: Spans, grid: BlockGrid) -> Members:
    """Members of every block, where it is known which blocks each Gaussian touches."""
    start = count_by_cell(spans, grid.columns, grid.rows)
    ids = columns.empty(int(start[-1]), np.int32)
    fill_by_cell(spans, grid.columns, start, ids)
    return Members(start, ids)


def spans(projection: Projection, grid: BlockGrid, widened: float = 1.0, beyond: float = 0.0) -> Spans:
    """The blocks whose outer windows each Gaussian touches: first and last column, first and last row, or none.

    As if it were ``widened`` times as wide, and ``beyond`` pixels more.
    """
    margin = float(grid.halo + 1) + beyond
    found: Spans = columns.empty((len(projection.records), 4), np.int32)
    _spans(projection.records, widened, margin, grid.block, grid.columns, grid.rows, found)
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def _spans(records: Any, widened: float, margin: float, block: int, columns: int, rows: int, spans: Any) -> None:
    for i in range(len(records)):
        x, y = records[i, MX] + 0.5, records[i, MY] + 0.5
        rx, ry = widened * records[i, REACH_X] + margin, widened * records[i, REACH_Y] + margin
        spans[i, 0], spans[i, 1] = cell_span(x - rx, x + rx, block, 0, columns)
        spans[i, 2], spans[i, 3] = cell_span(y - ry, y + ry, block, 0, rows)


def block_moments(
    renderer: BlockRenderer,
    projection: Projection,
    target: WholePlanes,
    block: Block,
    loss: LossConfig,
    image: Size,
) -> tuple[LossSums, Moments]:
    """Loss of a block's core and the moments of its gradient for the Gaussians of ``projection``.

    Summed over all blocks of an image this is the loss and the gradient of the whole image.
    """
    if isinstance(renderer, CudaRenderer):
        return block_cuda.block_moments(renderer, projection, target, block, loss, image)
    if loss.ssim:
        rendered = renderer.render(projection, block.outer)
        sums, d_rendered = block_loss(rendered, target, block, loss, image)
        return sums, renderer.correlate(projection, block.outer, d_rendered)
    rows, columns = block.core.slices(block.outer)
    core = np.ascontiguousarray(target[:, rows, columns])
    absolute, squared, moments = renderer.descend(projection, block.core, pointwise_loss(core, loss, image))
    return LossSums(absolute, squared, 0.0, core.size), moments


def block_loss_only(
    renderer: BlockRenderer, projection: Projection, target: WholePlanes, block: Block, loss: LossConfig, image: Size
) -> LossSums:
    """Loss of a block's core, without gradients."""
    if isinstance(renderer, CudaRenderer):
        return block_cuda.block_loss_only(renderer, projection, target, block, loss, image)
    return block_loss(renderer.render(projection, block.outer), target, block, loss, image)[0]


def pointwise_loss(target: WholePlanes, loss: LossConfig, image: Size) -> PointwiseLoss:
    """The terms of ``loss`` without SSIM, as a mean over a whole ``image`` of as many channels."""
    samples = image.pixels * len(target)
    return PointwiseLoss(target, loss.l1 / samples, 2 * loss.l2 / samples)
