"""One sweep: every block of the image once, gradients and losses summed in block order.

The sum is that of the whole image, whatever the number of workers and the order in which blocks finish: *exact* streamed
mode. Only a block's pixels need be in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from smartsplat_large.array_types import Index, Moments
from smartsplat_large.config import LossConfig
from smartsplat_large.fitting.block import Members, block_loss_only, block_moments, members
from smartsplat_large.fitting.loss import LossSums
from smartsplat_large.fitting.ssim import HALO
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import BlockGrid
from smartsplat_large.render.base import BlockRenderer, Gradients, Projection, Spread, at_once
from smartsplat_large.source.base import ImageSource
from smartsplat_large.streaming.targets import Targets
from smartsplat_large.streaming.workers import Workers

_LONG_BLOCK = 512
_AT_ONCE = 2048
"""Gaussians whose gradients are made and used together."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What all blocks of one sweep share; it travels to the workers."""

    targets: Targets
    renderer: BlockRenderer
    gaussians: Gaussians
    projection: Projection
    members: Members
    grid: BlockGrid
    loss: LossConfig

    @property
    def source(self) -> ImageSource:
        return self.targets.source

    @property
    def level(self) -> int:
        return self.targets.level

    @property
    def is_short(self) -> bool:
        """Whether a block is a matter of milliseconds."""
        return self.grid.block < _LONG_BLOCK

    @property
    def image_samples(self) -> int:
        return self.grid.size.pixels * self.gaussians.channels


def prepare_sweep(
    source: ImageSource | Targets,
    renderer: BlockRenderer,
    gaussians: Gaussians,
    block: int,
    level: int,
    loss: LossConfig,
    spread: Spread = at_once,
) -> Sweep:
    """Lay the grid on ``level`` and find out which Gaussians touch which block."""
    targets = source if isinstance(source, Targets) else Targets(source, level)
    grid = BlockGrid(targets.source.meta.size.at_level(level), block, HALO if loss.ssim else 0)
    projection = renderer.project(gaussians, 2.0**level, spread)
    return Sweep(targets, renderer, gaussians, projection, members(projection, grid), grid, loss)


def fit_block(sweep: Sweep, index: int) -> tuple[LossSums, Index, Moments]:
    """The task of one block: read its window, render, compare, pass the gradient back."""
    block = sweep.grid[index]
    ids = sweep.members.of(index)
    sums, moments = block_moments(
        sweep.renderer,
        sweep.projection.take(ids),
        sweep.targets.read(block.outer),
        block,
        sweep.loss,
        sweep.image_samples,
    )
    return sums, ids, moments


def judge_block(sweep: Sweep, index: int) -> LossSums:
    """The task of one block when only the loss is wanted."""
    block = sweep.grid[index]
    projection = sweep.projection.take(sweep.members.of(index))
    return block_loss_only(sweep.renderer, projection, sweep.targets.read(block.outer), block, sweep.loss)


@dataclass(frozen=True, slots=True)
class SweepGradients:
    """Gradients of the whole image, as moments that every block has handed in; added up row by row when they are used."""

    sweep: Sweep
    parts: list[tuple[Index, Moments]]

    def __call__(self, rows: slice) -> Iterator[tuple[slice, Gradients]]:
        """Gradients of ``rows``, some after the other: so few that a cache still holds them when they are used."""
        sweep = self.sweep
        moments = np.zeros((rows.stop - rows.start, self.parts[0][1].shape[1]), np.float32)
        for ids, part in self.parts:
            _merge(moments, rows.start, ids, part)
        room = Gradients.empty(min(_AT_ONCE, len(moments)), sweep.gaussians.channels)
        for start in range(rows.start, rows.stop, _AT_ONCE):
            few = slice(start, min(start + _AT_ONCE, rows.stop))
            theirs = moments[few.start - rows.start : few.stop - rows.start]
            gradients = room.first(len(theirs))
            sweep.renderer.gradients(sweep.gaussians, sweep.projection, theirs, 2.0**sweep.level, few, gradients)
            yield few, gradients


def sweep_gradients(sweep: Sweep, workers: Workers) -> tuple[LossSums, SweepGradients]:
    """Loss and gradients of the whole image."""
    sums, parts = LossSums(0.0, 0.0, 0.0, 0), []
    of_blocks = workers.map(fit_block, sweep, range(len(sweep.grid)), short=sweep.is_short)
    for block, (block_sums, ids, moments) in enumerate(of_blocks):
        sums += block_sums
        _tell(workers, sweep.grid, block, block_sums)
        parts.append((ids, moments))
    return sums, SweepGradients(sweep, parts)


@njit(cache=True, nogil=True, error_model="numpy")
def _merge(total: Any, start: int, ids: Any, part: Any) -> None:
    """Add what a block says of the rows of ``total``, the first of which is row ``start`` of all; ``ids`` ascend."""
    first, end = np.searchsorted(ids, start), np.searchsorted(ids, start + len(total))
    for i in range(first, end):
        row = ids[i] - start
        for j in range(part.shape[1]):
            total[row, j] += part[i, j]


def sweep_loss(sweep: Sweep, workers: Workers) -> LossSums:
    """Loss of the whole image."""
    sums = LossSums(0.0, 0.0, 0.0, 0)
    of_blocks = workers.map(judge_block, sweep, range(len(sweep.grid)), short=sweep.is_short)
    for block, block_sums in enumerate(of_blocks):
        sums += block_sums
        _tell(workers, sweep.grid, block, block_sums)
    return sums


def _tell(workers: Workers, grid: BlockGrid, block: int, sums: LossSums) -> None:
    if workers.record is not None:
        workers.record.block_done(block + 1, len(grid), grid[block].core, grid.size, sums.squared / sums.samples)
