"""Solve for all colours at once: under sum blending (SmartSplat eq. 4) they are a linear least-squares problem.

Preconditioned conjugate gradients on the normal equations ``G^T G c = G^T I``, streamed over blocks; ``G`` holds one
column of kernel values a Gaussian.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from smartsplat_large.array_types import Planes
from smartsplat_large.config import LossConfig
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Window
from smartsplat_large.pixels import scaled
from smartsplat_large.progress import Progress
from smartsplat_large.render.base import BlockRenderer, Gradients, Projection
from smartsplat_large.source.base import ImageSource, read_planes
from smartsplat_large.streaming.seen import Seen
from smartsplat_large.streaming.sweep import Sweep, SweepTask, prepare_sweep
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
        weighted = residual / diagonal
        new = (residual * weighted).sum(0)
        direction = weighted + new / np.maximum(old, 1e-30) * direction
        old = new
    return Gaussians(gaussians.xy, gaussians.scale, gaussians.rotation, colors.astype(np.float32))


def _gather(sweep: Sweep, workers: Workers, function: Callable[[SweepTask, Seen], Columns]) -> Columns:
    total = np.zeros(sweep.gaussians.color.shape)
    for block, part in enumerate(workers.map(function, sweep.task, sweep, pixels=sweep.block_pixels)):
        total[sweep.members.of(block)] += part
    return total


def correlate_target(task: SweepTask, seen: Seen) -> Columns:
    """A block's part of ``G^T I``, the image above its background."""
    block = task.grid[seen.block]
    target = scaled(read_planes(task.targets.source, block.outer, task.targets.level))
    if task.renderer.background:
        target -= np.array(task.renderer.background, np.float32)[:, None, None]
    return products(task.renderer, seen.gaussians, seen.projection, block.outer, target, task.pitch)


def correlate_rendering(task: SweepTask, seen: Seen) -> Columns:
    """A block's part of ``G^T G c``."""
    block = task.grid[seen.block]
    black = np.zeros((task.channels, *block.outer.shape), np.float32)
    projection = seen.projection
    rendered = task.renderer.render(projection, block.outer, black)
    return products(task.renderer, seen.gaussians, projection, block.outer, rendered, task.pitch)


def products(
    renderer: BlockRenderer, gaussians: Gaussians, projection: Projection, window: Window, planes: Planes, pitch: float
) -> Columns:
    """``<planes, G>`` of each of ``gaussians``, which ``projection`` has at ``pitch``, and each channel, over a window."""
    moments = renderer.correlate(projection, window, planes)
    gradients = Gradients.empty(len(gaussians), gaussians.channels)
    renderer.gradients(gaussians, projection, moments, pitch, slice(0, len(gaussians)), gradients)
    return gradients.color
