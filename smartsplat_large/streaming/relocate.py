"""Move budget to where the picture needs it: proposals from every block, one decision for the image."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from smartsplat_large.array_types import Index, Planes
from smartsplat_large.fitting.block import members
from smartsplat_large.fitting.refine import Proposals, exchange, propose, reach, removal_cost
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import BlockGrid
from smartsplat_large.pixels import scaled
from smartsplat_large.streaming.solve import Columns
from smartsplat_large.streaming.sweep import Sweep
from smartsplat_large.streaming.workers import Workers

_RICHEST = 6
"""A block may deserve far more newcomers than its share of them, but not more than so many times as many."""


def relocations(sweep: Sweep, share: float, growth: int, workers: Workers) -> tuple[Index, Gaussians]:
    """Rows of up to ``share`` of the Gaussians, and those to put in their places: ``growth`` more, or fewer if below 0.

    The level of ``sweep`` is the one whose residual decides. The result does not depend on the number of workers: blocks are
    merged in their order, and equal gains or costs are taken in order of position or row.
    """
    task = _Task(_widened(sweep), share + max(growth, 0) / len(sweep.gaussians))
    projection = np.zeros(sweep.gaussians.color.shape)
    found = []
    for proposals, ids, part in workers.map(propose_block, task, range(len(task.sweep.grid)), short=sweep.is_short):
        found.append(proposals)
        projection[ids] += part
    cost = removal_cost(sweep.gaussians, projection)
    limit = math.ceil(share * len(sweep.gaussians))
    index, accepted = exchange(cost, Proposals.concatenate(found), limit, growth)
    return index, accepted.gaussians()


@dataclasses.dataclass(frozen=True, slots=True)
class _Task:
    """What the tasks of all blocks share."""

    sweep: Sweep
    share: float

    @property
    def spacing(self) -> float:
        return math.sqrt(self.sweep.source.meta.size.pixels / len(self.sweep.gaussians))


def _widened(sweep: Sweep) -> Sweep:
    """The same sweep, with blocks that see as far as the widest Gaussian that is tried."""
    pitch = 2.0**sweep.level
    halo = reach(pitch, math.sqrt(sweep.source.meta.size.pixels / len(sweep.gaussians)))
    grid = BlockGrid(sweep.grid.size, sweep.grid.block, halo)
    return dataclasses.replace(sweep, grid=grid, members=members(sweep.projection, grid))


def propose_block(task: _Task, index: int) -> tuple[Proposals, Index, Columns]:
    """The task of one block: its residual's best additions, and its part of each member's ``<r, G>`` at full size."""
    sweep, block, pitch = task.sweep, task.sweep.grid[index], 2.0**task.sweep.level
    ids = sweep.members.of(index)
    seen = sweep.projection.take(ids)
    residual: Planes = scaled(sweep.targets.read(block.outer))
    residual -= sweep.renderer.render(seen, block.outer).clip(0, 1)
    count = math.ceil(_RICHEST * task.share * block.core.pixels * pitch**2 / task.spacing**2)
    proposals = propose(residual, block, pitch, task.spacing, count)
    core = np.ascontiguousarray(residual[(slice(None), *block.core.slices(block.outer))])
    projection = sweep.renderer.backward(sweep.gaussians.take(ids), block.core, core, pitch).color
    return proposals, ids, projection * pitch**2
