"""One block of one sweep: render what touches it, compare with the target, and pass the gradient back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int32
from numba import njit

from smartsplat_large.array_types import Index, Planes
from smartsplat_large.bucketing import cell_span, list_by_cell
from smartsplat_large.config import LossConfig
from smartsplat_large.fitting.loss import LossSums, block_loss
from smartsplat_large.gaussians import Gaussians, half_extent
from smartsplat_large.lattice import Block, BlockGrid
from smartsplat_large.render.base import Gradients, Renderer, box_variance


@dataclass(frozen=True, slots=True)
class Members:
    """Which Gaussians touch the outer window of which block, in order of their index."""

    start: Index
    ids: Int32[np.ndarray, "m"]

    def of(self, block: int) -> Int32[np.ndarray, "k"]:
        return self.ids[self.start[block] : self.start[block + 1]]


def members(gaussians: Gaussians, grid: BlockGrid, pitch: float = 1.0) -> Members:
    """Members of every block of a grid that is laid on the image seen at ``pitch``."""
    seen = np.sqrt(np.square(gaussians.scale, dtype=np.float64) + box_variance(pitch)).astype(np.float32)
    reach = half_extent(seen, gaussians.rotation) / pitch + (grid.halo + 1)
    return Members(*_assign(gaussians.xy / pitch, reach, grid.block, grid.columns, grid.rows))


@njit(cache=True, nogil=True, error_model="numpy")
def _assign(xy: Any, reach: Any, block: int, columns: int, rows: int) -> Any:
    spans = np.empty((len(xy), 4), np.int32)
    for i in range(len(xy)):
        x, y, rx, ry = xy[i, 0], xy[i, 1], reach[i, 0], reach[i, 1]
        spans[i, 0], spans[i, 1] = cell_span(x - rx, x + rx, block, 0, columns)
        spans[i, 2], spans[i, 3] = cell_span(y - ry, y + ry, block, 0, rows)
    return list_by_cell(spans, columns, rows)


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
