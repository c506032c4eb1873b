"""One block of one sweep: render what touches it, compare with the target, and pass the gradient back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from smartsplat_large.array_types import Index, Planes
from smartsplat_large.config import LossConfig
from smartsplat_large.fitting.loss import LossSums, block_loss
from smartsplat_large.gaussians import Gaussians, half_extent
from smartsplat_large.lattice import Block, BlockGrid
from smartsplat_large.render.base import Gradients, Renderer, box_variance


@dataclass(frozen=True, slots=True)
class Members:
    """Which Gaussians touch the outer window of which block, in order of their index."""

    start: Index
    ids: Index

    def of(self, block: int) -> Index:
        return self.ids[self.start[block] : self.start[block + 1]]


def members(gaussians: Gaussians, grid: BlockGrid, pitch: float = 1.0) -> Members:
    """Members of every block of a grid that is laid on the image seen at ``pitch``."""
    seen = np.sqrt(np.square(gaussians.scale, dtype=np.float64) + box_variance(pitch)).astype(np.float32)
    reach = half_extent(seen, gaussians.rotation) / pitch + (grid.halo + 1)
    return Members(*_assign(gaussians.xy / pitch, reach, grid.block, grid.columns, grid.rows))


@njit(cache=True, nogil=True, error_model="numpy")
def _assign(xy: Any, reach: Any, block: int, columns: int, rows: int) -> Any:
    n = len(xy)
    spans = np.empty((n, 4), np.int32)
    start = np.zeros(columns * rows + 1, np.int64)
    for i in range(n):
        for axis in range(2):
            count = columns if axis == 0 else rows
            first = np.floor((xy[i, axis] - reach[i, axis]) / block)
            last = np.floor((xy[i, axis] + reach[i, axis]) / block)
            spans[i, 2 * axis] = min(max(first, 0.0), float(count))
            spans[i, 2 * axis + 1] = min(max(last, -1.0), count - 1.0)
        for v in range(spans[i, 2], spans[i, 3] + 1):
            for u in range(spans[i, 0], spans[i, 1] + 1):
                start[v * columns + u + 1] += 1
    for b in range(columns * rows):
        start[b + 1] += start[b]
    ids = np.empty(start[-1], np.int64)
    position = start[:-1].copy()
    for i in range(n):
        for v in range(spans[i, 2], spans[i, 3] + 1):
            for u in range(spans[i, 0], spans[i, 1] + 1):
                ids[position[v * columns + u]] = i
                position[v * columns + u] += 1
    return start, ids


def block_gradients(
    renderer: Renderer,
    gaussians: Gaussians,
    target: Planes,
    block: Block,
    pitch: float,
    loss: LossConfig,
    image_samples: int,
) -> tuple[LossSums, Gradients]:
    """Loss of a block's core and the gradients by the Gaussians that touch its outer window.

    Summed over all blocks of an image this is the loss and the gradient of the whole image.
    """
    rendered = renderer.forward(gaussians, block.outer, pitch)
    sums, d_rendered = block_loss(rendered, target, block, loss, image_samples)
    return sums, renderer.backward(gaussians, block.outer, d_rendered, pitch)


def block_loss_only(
    renderer: Renderer, gaussians: Gaussians, target: Planes, block: Block, pitch: float, loss: LossConfig
) -> LossSums:
    """Loss of a block's core, without gradients."""
    return block_loss(renderer.forward(gaussians, block.outer, pitch), target, block, loss, 1)[0]
