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

from smartsplat_large import columns
from smartsplat_large.array_types import Moments
from smartsplat_large.config import LossConfig
from smartsplat_large.fitting.block import Members, block_loss_only, block_moments, members
from smartsplat_large.fitting.loss import LossSums
from smartsplat_large.fitting.ssim import HALO
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import BlockGrid
from smartsplat_large.render.base import BlockRenderer, Gradients, Projection, Spread, at_once
from smartsplat_large.source.base import ImageSource
from smartsplat_large.streaming.seen import Seen
from smartsplat_large.streaming.targets import Targets
from smartsplat_large.streaming.workers import Workers

_AT_ONCE = 2048
"""Gaussians whose gradients are made and used together."""


@dataclass(frozen=True, slots=True)
class SweepTask:
    """What the tasks of one sweep share: no Gaussians, no pixels."""

    targets: Targets
    renderer: BlockRenderer
    grid: BlockGrid
    loss: LossConfig
    channels: int

    @property
    def pitch(self) -> float:
        return 2.0**self.targets.level


@dataclass(frozen=True, slots=True)
class Sweep:
    """All Gaussians in front of all blocks: of each block, what it sees of them."""

    task: SweepTask
    gaussians: Gaussians
    projection: Projection
    members: Members

    def __len__(self) -> int:
        return len(self.task.grid)

    def __getitem__(self, block: int) -> Seen:
        task = self.task
        return Seen(block, task.renderer, task.pitch, self.members.of(block), self.gaussians, self.projection)

    @property
    def block_pixels(self) -> int:
        return self.task.grid.block**2


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
    task = sweep_task(targets, renderer, block, loss, gaussians.channels)
    projection = renderer.project(gaussians, task.pitch, spread, columns.empty)
    return Sweep(task, gaussians, projection, members(projection, task.grid))


def sweep_task(targets: Targets, renderer: BlockRenderer, block: int, loss: LossConfig, channels: int) -> SweepTask:
    """Lay the grid on the level of ``targets``."""
    size = targets.source.meta.size.at_level(targets.level)
    return SweepTask(targets, renderer, BlockGrid(size, block, HALO if loss.ssim else 0), loss, channels)


def fit_block(task: SweepTask, seen: Seen) -> tuple[LossSums, Moments]:
    """The task of one block: read its window, render, compare, pass the gradient back."""
    block = task.grid[seen.block]
    target = task.targets.read(block.outer)
    return block_moments(task.renderer, seen.projection, target, block, task.loss, task.grid.size)


def judge_block(task: SweepTask, seen: Seen) -> LossSums:
    """The task of one block when only the loss is wanted."""
    block = task.grid[seen.block]
    return block_loss_only(
        task.renderer, seen.projection, task.targets.read(block.outer), block, task.loss, task.grid.size
    )


@dataclass(frozen=True, slots=True)
class SweepGradients:
    """Gradients of the whole image, as moments that every block has handed in; added up row by row when they are used."""

    sweep: Sweep
    handed_in: Moments
    """Of every block, in the order of its members."""

    def __call__(self, rows: slice) -> Iterator[tuple[slice, Gradients]]:
        """Gradients of ``rows``, some after the other: so few that a cache still holds them when they are used."""
        sweep, members = self.sweep, self.sweep.members
        moments = np.zeros((rows.stop - rows.start, self.handed_in.shape[1]), np.float32)
        merge_all(moments, rows.start, members.start, members.ids, self.handed_in)
        yield from gradients_of(sweep.task, sweep.gaussians, sweep.projection, moments, rows)


def gradients_of(
    task: SweepTask, gaussians: Gaussians, projection: Projection, moments: Moments, rows: slice
) -> Iterator[tuple[slice, Gradients]]:
    """Gradients of ``rows``, some after the other, from their moments."""
    room = Gradients.empty(min(_AT_ONCE, len(moments)), task.channels)
    for start in range(rows.start, rows.stop, _AT_ONCE):
        few = slice(start, min(start + _AT_ONCE, rows.stop))
        theirs = moments[few.start - rows.start : few.stop - rows.start]
        gradients = room.first(len(theirs))
        task.renderer.gradients(gaussians, projection, theirs, task.pitch, few, gradients)
        yield few, gradients


def sweep_gradients(sweep: Sweep, workers: Workers) -> tuple[LossSums, SweepGradients]:
    """Loss and gradients of the whole image."""
    sums, members = LossSums(0.0, 0.0, 0.0, 0), sweep.members
    handed_in: Moments | None = None
    of_blocks = workers.map(fit_block, sweep.task, sweep, pixels=sweep.block_pixels)
    for block, (block_sums, moments) in enumerate(of_blocks):
        sums += block_sums
        tell(workers, sweep.task.grid, block, block_sums)
        if handed_in is None:
            handed_in = columns.empty((len(members.ids), moments.shape[1]), np.float32)
        handed_in[members.start[block] : members.start[block + 1]] = moments
    assert handed_in is not None
    return sums, SweepGradients(sweep, handed_in)


@njit(cache=True, nogil=True, error_model="numpy")
def merge_all(total: Any, first: int, start: Any, ids: Any, parts: Any) -> None:
    """:func:`merge`, for all blocks in their order: the ids of block ``b``, and its part, are ``[start[b], start[b + 1])``."""
    for b in range(len(start) - 1):
        merge(total, first, ids[start[b] : start[b + 1]], parts[start[b] : start[b + 1]])


@njit(cache=True, nogil=True, error_model="numpy")
def merge(total: Any, start: int, ids: Any, part: Any) -> None:
    """Add what a block says of the rows of ``total``, the first of which is row ``start`` of all; ``ids`` ascend."""
    first, end = np.searchsorted(ids, start), np.searchsorted(ids, start + len(total))
    for i in range(first, end):
        row = ids[i] - start
        for j in range(part.shape[1]):
            total[row, j] += part[i, j]


def sweep_loss(sweep: Sweep, workers: Workers) -> LossSums:
    """Loss of the whole image."""
    sums = LossSums(0.0, 0.0, 0.0, 0)
    of_blocks = workers.map(judge_block, sweep.task, sweep, pixels=sweep.block_pixels)
    for block, block_sums in enumerate(of_blocks):
        sums += block_sums
        tell(workers, sweep.task.grid, block, block_sums)
    return sums


def tell(workers: Workers, grid: BlockGrid, block: int, sums: LossSums) -> None:
    """Let those who watch know of a block that is done."""
    if workers.record is not None:
        workers.record.block_done(block + 1, len(grid), grid[block].core, grid.size, sums.squared / sums.samples)
