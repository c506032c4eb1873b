"""Move budget to where the picture needs it: proposals from every block, one decision for the image."""

from __future__ import annotations

import math

from smartsplat_large.fitting.optimizer import AdamState
from smartsplat_large.fitting.refine import Proposals, exchange, propose
from smartsplat_large.pixels import to_planes
from smartsplat_large.streaming.sweep import Sweep
from smartsplat_large.streaming.workers import Workers


def relocate(sweep: Sweep, state: AdamState, share: float, workers: Workers) -> int:
    """Replace up to ``share`` of the Gaussians in ``state``; returns how many.

    ``sweep`` holds the Gaussians of ``state`` and the level whose residual decides.
    """
    limit = math.ceil(share * len(state))
    proposals = Proposals.concatenate(
        list(workers.map(propose_block, sweep, range(len(sweep.grid)), short=sweep.is_short))
    )
    index, accepted = exchange(sweep.gaussians, proposals, limit)
    if len(index):
        state.replace(index, accepted.gaussians(), sweep.source.meta.size)
    return len(index)


def propose_block(sweep: Sweep, index: int) -> Proposals:
    """The task of one block: its residual's best additions."""
    block = sweep.grid[index]
    pitch = 2.0**sweep.level
    target = to_planes(sweep.source.read(block.outer, sweep.level))
    rendered = sweep.renderer.forward(sweep.gaussians.take(sweep.members.of(index)), block.outer, pitch)
    spacing = math.sqrt(sweep.source.meta.size.pixels / len(sweep.gaussians))
    # A block may deserve far more than its share, but not more Gaussians again than four times what it has on average.
    count = math.ceil(4 * block.core.pixels * pitch**2 / spacing**2)
    return propose(target - rendered.clip(0, 1), block, pitch, spacing, count)
