"""Solve for all colours at once: under sum blending (SmartSplat eq. 4) they are a linear least-squares problem.

Preconditioned conjugate gradients on the normal equations ``G^T G c = G^T I``, streamed over blocks; ``G`` holds one
column of kernel values a Gaussian.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from smartsplat_large.array_types import Index
from smartsplat_large.config import LossConfig
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.pixels import to_planes
from smartsplat_large.progress import Progress
from smartsplat_large.render.base import BlockRenderer
from smartsplat_large.source.base import ImageSource
from smartsplat_large.streaming.sweep import Sweep, prepare_sweep
from smartsplat_large.streaming.workers import Workers

_DAMPING = 0.02
"""Added to every diagonal entry, relative to it: keeps colours of Gaussians that nearly coincide from running away."""

_SQUARED = LossConfig(l1=0, l2=1, ssim=0)

Columns = Float64[np.ndarray, "n c"]


def solve_colors(
    source: ImageSource,
    renderer: BlockRenderer,
    gaussians: Gaussians,
    block: int,
    level: int,
    iterations: int,
    workers: Workers,
    progress: Progress,
) -> Gaussians:
    """``gaussians`` with better colours, after some iterations from the colours they have."""

    def apply(colors: Columns) -> Columns:
        with_colors = Gaussians(gaussians.xy, gaussians.scale, gaussians.rotation, colors.astype(np.float32))
        sweep = prepare_sweep(source, renderer, with_colors, block, level, _SQUARED, workers.spread)
        image: Columns = _gather(sweep, workers, correlate_rendering) + _DAMPING * diagonal * colors
        return image

    energy = np.pi * gaussians.scale.prod(1, dtype=np.float64) / 4.0**level
    diagonal = np.maximum(energy, 0.1)[:, None]
    base = prepare_sweep(source, renderer, gaussians, block, level, _SQUARED, workers.spread)
    colors = gaussians.color.astype(np.float64)
    residual = _gather(base, workers, correlate_target) - apply(colors)
    direction = residual / diagonal
    old = (residual * direction).sum(0)
    for _ in range(iterations):
        progress.advance()
        image = apply(direction)
        length = old / np.maximum((direction * image).sum(0), 1e-30)
        colors += length * direction
        residual -= length * image
        scaled = residual / diagonal
        new = (residual * scaled).sum(0)
        direction = scaled + new / np.maximum(old, 1e-30) * direction
        old = new
    return Gaussians(gaussians.xy, gaussians.scale, gaussians.rotation, colors.astype(np.float32))


def _gather(sweep: Sweep, workers: Workers, task: Callable[[Sweep, int], tuple[Index, Columns]]) -> Columns:
    total = np.zeros(sweep.gaussians.color.shape)
    for ids, part in workers.map(task, sweep, range(len(sweep.grid)), short=sweep.is_short):
        total[ids] += part
    return total


def correlate_target(sweep: Sweep, index: int) -> tuple[Index, Columns]:
    """A block's part of ``G^T I``, the image above its background."""
    block = sweep.grid[index]
    ids = sweep.members.of(index)
    target = to_planes(sweep.source.read(block.outer, sweep.level))
    if sweep.renderer.background:
        target -= np.array(sweep.renderer.background, np.float32)[:, None, None]
    return ids, sweep.renderer.backward(sweep.gaussians.take(ids), block.outer, target, 2.0**sweep.level).color


def correlate_rendering(sweep: Sweep, index: int) -> tuple[Index, Columns]:
    """A block's part of ``G^T G c``."""
    block = sweep.grid[index]
    ids = sweep.members.of(index)
    black = np.zeros((sweep.gaussians.channels, *block.outer.shape), np.float32)
    rendered = sweep.renderer.render(sweep.projection.take(ids), block.outer, black)
    return ids, sweep.renderer.backward(sweep.gaussians.take(ids), block.outer, rendered, 2.0**sweep.level).color
