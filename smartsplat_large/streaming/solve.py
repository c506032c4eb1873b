"""Solve for all colours at once: under sum blending (SmartSplat eq. 4) they are a linear least-squares problem.

Preconditioned conjugate gradients on the normal equations ``G^T G c = G^T I``, streamed over blocks; ``G`` holds one
column of kernel values a Gaussian.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from smartsplat_large import columns
from smartsplat_large.array_types import Color, Planes
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
    diagonal = _diagonal(gaussians, level)

    def gather(color: Color, function: Callable[[SweepTask, Seen], Columns], out: Columns) -> None:
        with_color = dataclasses.replace(gaussians, color=color)
        sweep = prepare_sweep(source, renderer, with_color, block, level, _SQUARED, workers.spread)
        _gather(sweep, workers, function, out)

    def apply(colors: Columns, out: Columns) -> None:
        gather(_single(colors), correlate_rendering, out)
        for rows in columns.chunks(len(out)):
            out[rows] += _DAMPING * diagonal[rows] * colors[rows]

    colors, residual, direction, image = (columns.empty(gaussians.color.shape) for _ in range(4))
    gather(gaussians.color, correlate_target, residual)
    colors[:] = gaussians.color
    apply(colors, image)
    for rows in columns.chunks(len(colors)):
        residual[rows] -= image[rows]
        direction[rows] = residual[rows] / diagonal[rows]
    old = _dot(residual, direction)
    for _ in range(iterations):
        progress.advance()
        apply(direction, image)
        length = old / np.maximum(_dot(direction, image), 1e-30)
        for rows in columns.chunks(len(colors)):
            colors[rows] += length * direction[rows]
            residual[rows] -= length * image[rows]
            # From here on, the image holds the residual over the diagonal.
            image[rows] = residual[rows] / diagonal[rows]
        new = _dot(residual, image)
        for rows in columns.chunks(len(colors)):
            direction[rows] = image[rows] + new / np.maximum(old, 1e-30) * direction[rows]
        old = new
    return dataclasses.replace(gaussians, color=_single(colors))


def _diagonal(gaussians: Gaussians, level: int) -> Float64[np.ndarray, "n 1"]:
    """The energy of each kernel, the diagonal of ``G^T G``, or a little where it is less."""
    diagonal = columns.empty((len(gaussians), 1))
    for rows in columns.chunks(len(gaussians)):
        energy = np.pi * gaussians.scale[rows].prod(1, dtype=np.float64) / 4.0**level
        diagonal[rows] = np.maximum(energy, 0.1)[:, None]
    return diagonal


def _single(colors: Columns) -> Color:
    color = columns.empty(colors.shape, np.float32)
    color[:] = colors
    return color


def _dot(a: Columns, b: Columns) -> Float64[np.ndarray, " c"]:
    """Product of each channel."""
    total = np.zeros(a.shape[1])
    for rows in columns.chunks(len(a)):
        total += (a[rows] * b[rows]).sum(0)
    return total


def _gather(sweep: Sweep, workers: Workers, function: Callable[[SweepTask, Seen], Columns], out: Columns) -> None:
    out[:] = 0
    for block, part in enumerate(workers.map(function, sweep.task, sweep, pixels=sweep.block_pixels)):
        out[sweep.members.of(block)] += part


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
