"""Move budget to where the picture needs it: proposals from every block, one decision for the image."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from smartsplat_large import columns
from smartsplat_large.array_types import Index, Planes
from smartsplat_large.fitting.block import members
from smartsplat_large.fitting.refine import BestProposals, Proposals, exchange, propose, reach, removal_cost
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import BlockGrid
from smartsplat_large.pixels import scaled
from smartsplat_large.streaming.seen import Seen
from smartsplat_large.streaming.solve import Columns, products
from smartsplat_large.streaming.sweep import Sweep, SweepTask
from smartsplat_large.streaming.workers import Workers

_RICHEST = 6
"""A block may deserve far more newcomers than its share of them, but not more than so many times as many."""


def relocations(sweep: Sweep, share: float, growth: int, workers: Workers) -> tuple[Index, Gaussians]:
    """Rows of up to ``share`` of the Gaussians, and those to put in their places: ``growth`` more, or fewer if below 0.

    The level of ``sweep`` is the one whose residual decides. The result does not depend on the number of workers: blocks are
    merged in their order, and equal gains or costs are taken in order of what was found first, or of row.
    """
    spacing = math.sqrt(sweep.task.targets.source.meta.size.pixels / len(sweep.gaussians))
    wide, tried = _widened(sweep, spacing), share + max(growth, 0) / len(sweep.gaussians)
    limit = math.ceil(share * len(sweep.gaussians))
    projection = columns.zeros(sweep.gaussians.color.shape)
    found = BestProposals(limit + max(growth, 0), sweep.gaussians.channels)
    of_blocks = workers.map(propose_block, _Task(wide.task, tried, spacing), wide, pixels=wide.block_pixels)
    for block, (proposals, part) in enumerate(of_blocks):
        found.add(proposals)
        projection[wide.members.of(block)] += part
    cost = removal_cost(sweep.gaussians, projection)
    index, accepted = exchange(cost, found.all, limit, growth)
    return index, accepted.gaussians()


@dataclasses.dataclass(frozen=True, slots=True)
class _Task:
    """What the tasks of all blocks share."""

    sweep: SweepTask
    share: float
    spacing: float


def _widened(sweep: Sweep, spacing: float) -> Sweep:
    """The same sweep, with blocks that see as far as the widest Gaussian that is tried."""
    task = sweep.task
    grid = BlockGrid(task.grid.size, task.grid.block, reach(task.pitch, spacing))
    task = dataclasses.replace(task, grid=grid)
    return dataclasses.replace(sweep, task=task, members=members(sweep.projection, grid))


def propose_block(task: _Task, seen: Seen) -> tuple[Proposals, Columns]:
    """The task of one block: its residual's best additions, and its part of each member's ``<r, G>`` at full size."""
    sweep, block, pitch = task.sweep, task.sweep.grid[seen.block], task.sweep.pitch
    visible = seen.projection
    rendered = sweep.renderer.render(visible, block.outer)
    residual: Planes = scaled(sweep.targets.read(block.outer))
    residual -= rendered.clip(0, 1, out=rendered)
    count = math.ceil(_RICHEST * task.share * block.core.pixels * pitch**2 / task.spacing**2)
    proposals = propose(residual, block, pitch, task.spacing, count)
    core = np.ascontiguousarray(residual[(slice(None), *block.core.slices(block.outer))])
    projection = products(sweep.renderer, seen.gaussians, visible, block.core, core, pitch)
    return proposals, projection * pitch**2
