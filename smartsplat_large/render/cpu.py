"""The CPU renderer: numba kernels over raster tiles that are anchored to the image, not to the window."""

from __future__ import annotations

from typing import Any

import numpy as np

from smartsplat_large.array_types import Planes
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Window
from smartsplat_large.render.base import Gradients, box_variance
from smartsplat_large.render.cpu_kernels import backward, forward
from smartsplat_large.render.records import TILE_HEIGHT, TILE_WIDTH, bucket, chain, moment_count, project


class CpuRenderer:
    """Implements :class:`~smartsplat_large.render.base.Renderer` with numba; safe to call from several threads at once.

    One call uses one thread. Values are bit-identical for every split of an image into windows.
    """

    def forward(self, gaussians: Gaussians, window: Window, pitch: float = 1.0) -> Planes:
        out = np.empty((gaussians.channels, *window.shape), np.float32)
        records, peaks = project(*_columns(gaussians), pitch, box_variance(pitch))
        forward(records, peaks, *_raster(records, window), out, (0,) * gaussians.channels)
        return out

    def backward(self, gaussians: Gaussians, window: Window, d_planes: Planes, pitch: float = 1.0) -> Gradients:
        box = box_variance(pitch)
        records, peaks = project(*_columns(gaussians), pitch, box)
        n, channels = gaussians.color.shape
        moments = np.zeros((n, moment_count(channels)), np.float32)
        backward(records, peaks, *_raster(records, window), d_planes, (0,) * channels, moments)
        gradients = Gradients(np.empty((n, 2)), np.empty((n, 2)), np.empty(n), np.empty((n, channels)))
        chain(
            records, moments, gaussians.scale, gaussians.rotation, gaussians.color, pitch, box,
            gradients.xy, gradients.scale, gradients.rotation, gradients.color,
        )  # fmt: skip
        return gradients


def _columns(gaussians: Gaussians) -> tuple[Any, ...]:
    return gaussians.xy, gaussians.scale, gaussians.rotation, gaussians.color


def _raster(records: Any, window: Window) -> tuple[Any, Any, tuple[int, ...], int]:
    column, row = window.x // TILE_WIDTH, window.y // TILE_HEIGHT
    columns = -(-window.x_end // TILE_WIDTH) - column
    rows = -(-window.y_end // TILE_HEIGHT) - row
    start, ids = bucket(records, column, row, columns, rows)
    return start, ids, (window.x, window.y, window.x_end, window.y_end, column, row), columns
