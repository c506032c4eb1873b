"""One sweep: every block of the image once, gradients and losses summed in block order.

The sum is that of the whole image, whatever the number of workers and the order in which blocks finish: *exact* streamed
mode. Only a block's pixels are ever in memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from smartsplat_large.array_types import Index
from smartsplat_large.config import LossConfig
from smartsplat_large.fitting.block import Members, block_gradients, block_loss_only, members
from smartsplat_large.fitting.loss import HALO, LossSums
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import BlockGrid
from smartsplat_large.pixels import to_planes
from smartsplat_large.render.base import Gradients, Renderer
from smartsplat_large.source.base import ImageSource
from smartsplat_large.streaming.workers import Workers

_LONG_BLOCK = 512


@dataclass(frozen=True, slots=True)
class Sweep:
    """What all blocks of one sweep share; it travels to the workers."""

    source: ImageSource
    renderer: Renderer
    gaussians: Gaussians
    members: Members
    grid: BlockGrid
    level: int
    loss: LossConfig

    @property
    def is_short(self) -> bool:
        """Whether a block is a matter of milliseconds."""
        return self.grid.block < _LONG_BLOCK

    @property
    def image_samples(self) -> int:
        return self.grid.size.pixels * self.gaussians.channels


def prepare_sweep(
    source: ImageSource, renderer: Renderer, gaussians: Gaussians, block: int, level: int, loss: LossConfig
) -> Sweep:
    """Lay the grid on ``level`` and find out which Gaussians touch which block."""
    grid = BlockGrid(source.meta.size.at_level(level), block, HALO if loss.ssim else 0)
    return Sweep(source, renderer, gaussians, members(gaussians, grid, 2.0**level), grid, level, loss)


def fit_block(sweep: Sweep, index: int) -> tuple[LossSums, Index, Gradients]:
    """The task of one block: read its window, render, compare, pass the gradient back."""
    block = sweep.grid[index]
    ids = sweep.members.of(index)
    target = to_planes(sweep.source.read(block.outer, sweep.level))
    sums, gradients = block_gradients(
        sweep.renderer, sweep.gaussians.take(ids), target, block, 2.0**sweep.level, sweep.loss, sweep.image_samples
    )
    return sums, ids, gradients


def judge_block(sweep: Sweep, index: int) -> LossSums:
    """The task of one block when only the loss is wanted."""
    block = sweep.grid[index]
    target = to_planes(sweep.source.read(block.outer, sweep.level))
    gaussians = sweep.gaussians.take(sweep.members.of(index))
    return block_loss_only(sweep.renderer, gaussians, target, block, 2.0**sweep.level, sweep.loss)


def sweep_gradients(sweep: Sweep, workers: Workers) -> tuple[LossSums, Gradients]:
    """Loss and gradients of the whole image."""
    n, channels = sweep.gaussians.color.shape
    total = Gradients(np.zeros((n, 2)), np.zeros((n, 2)), np.zeros(n), np.zeros((n, channels)))
    sums = LossSums(0.0, 0.0, 0.0, 0)
    for block_sums, ids, part in workers.map(fit_block, sweep, range(len(sweep.grid)), short=sweep.is_short):
        sums += block_sums
        total.xy[ids] += part.xy
        total.scale[ids] += part.scale
        total.rotation[ids] += part.rotation
        total.color[ids] += part.color
    return sums, total


def sweep_loss(sweep: Sweep, workers: Workers) -> LossSums:
    """Loss of the whole image."""
    return sum(
        workers.map(judge_block, sweep, range(len(sweep.grid)), short=sweep.is_short), LossSums(0.0, 0.0, 0.0, 0)
    )
