"""The CPU renderer: numba kernels over raster tiles that are anchored to the image, not to the window."""

from __future__ import annotations

from typing import Any

import numpy as np

from smartsplat_large.array_types import Moments, Pixels, Planes
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Window
from smartsplat_large.render import cpu_kernels, records
from smartsplat_large.render.base import Gradients, PointwiseLoss, Projection, Room, Spread, at_once, box_variance
from smartsplat_large.render.records import TILE_HEIGHT, TILE_WIDTH


class CpuRenderer:
    """Implements :class:`~smartsplat_large.render.base.BlockRenderer` with numba; several threads may call it at once.

    One call uses one thread. Values are bit-identical for every split of an image into windows.
    """

    background: tuple[float, ...] = ()
    side = 0

    def __init__(self, background: tuple[float, ...] = ()) -> None:
        self.background = background

    def forward(self, gaussians: Gaussians, window: Window, pitch: float = 1.0, base: Planes | None = None) -> Planes:
        return self.render(self.project(gaussians, pitch), window, base)

    def pixels(self, gaussians: Gaussians, window: Window, dtype: np.dtype[Any], pitch: float = 1.0) -> Pixels:
        projection = self.project(gaussians, pitch)
        out = np.empty((*window.shape, gaussians.channels), dtype)
        raster, background = _raster(projection, window), self._planes(projection)
        brightest = np.float32(np.iinfo(dtype).max)
        cpu_kernels.pixels(projection.records, projection.peaks, raster, brightest, out, background)
        return out

    def backward(self, gaussians: Gaussians, window: Window, d_planes: Planes, pitch: float = 1.0) -> Gradients:
        projection = self.project(gaussians, pitch)
        moments = self.correlate(projection, window, d_planes)
        gradients = Gradients.empty(*gaussians.color.shape)
        self.gradients(gaussians, projection, moments, pitch, slice(0, len(gaussians)), gradients)
        return gradients

    def project(
        self, gaussians: Gaussians, pitch: float, spread: Spread = at_once, room: Room = np.empty
    ) -> Projection:
        count, channels = gaussians.color.shape
        out = room((count, records.COLUMNS), np.float64), room((count, channels), np.float32)
        columns = (gaussians.xy, gaussians.scale, gaussians.rotation, gaussians.color)
        spread(lambda rows: records.project(*columns, pitch, box_variance(pitch), rows.start, rows.stop, *out), count)
        return Projection(*out)

    def tiles(self, projection: Projection, window: Window) -> tuple[Any, Any]:
        """The Gaussians of each raster tile: those of tile ``t`` are ``ids[start[t] : start[t + 1]]``."""
        return _raster(projection, window)[:2]

    def render(self, projection: Projection, window: Window, base: Planes | None = None) -> Planes:
        out = np.empty((projection.peaks.shape[1], *window.shape), np.float32)
        raster, background = _raster(projection, window), self._planes(projection)
        cpu_kernels.forward(projection.records, projection.peaks, raster, _given(base), out, background)
        return out

    def correlate(self, projection: Projection, window: Window, d_planes: Planes) -> Moments:
        moments = _no_moments(projection)
        raster, background = _raster(projection, window), self._planes(projection)
        cpu_kernels.backward(projection.records, projection.peaks, raster, d_planes, background, moments)
        return moments

    def descend(
        self, projection: Projection, window: Window, loss: PointwiseLoss, base: Planes | None = None
    ) -> tuple[float, float, Moments]:
        moments = _no_moments(projection)
        absolute, squared = cpu_kernels.descend(
            projection.records, projection.peaks, _raster(projection, window), loss.target,
            float(np.iinfo(loss.target.dtype).max), np.float32(loss.l1), np.float32(loss.l2), _given(base),
            self._planes(projection), moments,
        )  # fmt: skip
        return absolute, squared, moments

    def gradients(
        self, gaussians: Gaussians, projection: Projection, moments: Moments, pitch: float, rows: slice, out: Gradients
    ) -> None:
        records.chain(
            projection.records, moments, gaussians.scale, gaussians.rotation, gaussians.color, pitch,
            box_variance(pitch), rows.start, rows.stop, out.xy, out.scale, out.rotation, out.color,
        )  # fmt: skip

    def _planes(self, projection: Projection) -> tuple[np.float32, ...]:
        """The background, a number a channel: so a kernel is told how many there are, see :mod:`.cpu_kernels`."""
        channels = int(projection.peaks.shape[1])
        return tuple(np.float32(value) for value in self.background or (0.0,) * channels)


_NOTHING = np.zeros((0, 0, 0), np.float32)


def _given(base: Planes | None) -> Planes:
    """Planes without a pixel stand for no base, so that there is one compiled kernel for both."""
    return _NOTHING if base is None else base


def _no_moments(projection: Projection) -> Moments:
    count, channels = projection.peaks.shape
    return np.zeros((count, records.moment_count(channels)), np.float32)


def _raster(projection: Projection, window: Window) -> tuple[Any, Any, tuple[int, ...], int]:
    """The Gaussians of each raster tile, and where window and tiles lie."""
    column, row = window.x // TILE_WIDTH, window.y // TILE_HEIGHT
    columns = -(-window.x_end // TILE_WIDTH) - column
    rows = -(-window.y_end // TILE_HEIGHT) - row
    start, ids = records.bucket(projection.records, column, row, columns, rows)
    return start, ids, (window.x, window.y, window.x_end, window.y_end, column, row), columns
