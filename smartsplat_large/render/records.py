"""Gaussians as the raster kernels want them: projected to output pixels, in Cholesky form, listed by raster tile.

A conic ``A dx^2 + 2 B dx dy + C dy^2`` is kept as ``A (dx + k dy)^2 + D dy^2`` with ``k = B / A`` and
``D = (A C - B^2) / A``. Both are computed from scale and rotation without cancellation, so needles of 1:1000 stay exact.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from smartsplat_large.bucketing import cell_span, list_by_cell
from smartsplat_large.gaussians import CUTOFF

TILE_WIDTH = 64
TILE_HEIGHT = 32

FLOOR = math.exp(-CUTOFF)
PEAK = 1 / (1 - FLOOR)

# Columns of the per-Gaussian record.
MX, MY, A, K, D, AMPLITUDE, REACH_X, REACH_Y = range(8)


@njit(cache=True, nogil=True, error_model="numpy")
def project(xy: Any, scale: Any, rotation: Any, pitch: float, box: float) -> Any:
    """One record a Gaussian, in output pixel indices (pixel centres at whole numbers)."""
    n = len(xy)
    records = np.empty((n, 8), np.float64)
    for i in range(n):
        sx, sy = np.float64(scale[i, 0]), np.float64(scale[i, 1])
        vx, vy = (sx * sx + box) / (pitch * pitch), (sy * sy + box) / (pitch * pitch)
        c, s = math.cos(rotation[i]), math.sin(rotation[i])
        ix, iy = 1 / vx, 1 / vy
        a = c * c * ix + s * s * iy
        d = ix * iy / a
        records[i, MX] = xy[i, 0] / pitch - 0.5
        records[i, MY] = xy[i, 1] / pitch - 0.5
        records[i, A] = a
        records[i, K] = c * s * (ix - iy) / a
        records[i, D] = d
        records[i, AMPLITUDE] = sx * sy / (math.sqrt(vx * vy) * pitch * pitch)
        records[i, REACH_X] = math.sqrt(2 * CUTOFF * (c * c * vx + s * s * vy))
        records[i, REACH_Y] = math.sqrt(2 * CUTOFF / d)
    return records


@njit(cache=True, nogil=True, error_model="numpy")
def bucket(records: Any, column: int, row: int, columns: int, rows: int) -> Any:
    """Which Gaussians touch which raster tile, in order of their index: ``ids[start[t] : start[t + 1]]``.

    Tiles are counted from tile ``(column, row)`` of the image, row by row.
    """
    spans = np.empty((len(records), 4), np.int32)
    for i in range(len(records)):
        mx, my, rx, ry = records[i, MX], records[i, MY], records[i, REACH_X], records[i, REACH_Y]
        spans[i, 0], spans[i, 1] = cell_span(mx - rx, mx + rx, TILE_WIDTH, column, columns)
        spans[i, 2], spans[i, 3] = cell_span(my - ry, my + ry, TILE_HEIGHT, row, rows)
    return list_by_cell(spans, columns, rows)


@njit(cache=True, nogil=True, error_model="numpy")
def chain(
    records: Any, sums: Any, scale: Any, rotation: Any, color: Any, pitch: float, box: float,
    d_xy: Any, d_scale: Any, d_rotation: Any, d_color: Any,
) -> None:  # fmt: skip
    """From sums over pixels to derivatives by the columns of :class:`Gaussians`."""
    for i in range(len(records)):
        a, k, d, amplitude = records[i, A], records[i, K], records[i, D], records[i, AMPLITUDE]
        gain = amplitude * PEAK
        su, suu, sy_, syy, suy = sums[i, 0], sums[i, 1], sums[i, 2], sums[i, 3], sums[i, 4]
        # d loss / d (A, k, D): the exponent is (A u^2 + D dy^2) / 2 with u = dx + k dy, and d G / d e = -exp(-e).
        d_a, d_k, d_d = -0.5 * suu * gain, -a * suy * gain, -0.5 * syy * gain
        d_xy[i, 0] = a * su * gain / pitch
        d_xy[i, 1] = (a * k * su + d * sy_) * gain / pitch
        sx, sy = np.float64(scale[i, 0]), np.float64(scale[i, 1])
        vx, vy = (sx * sx + box) / (pitch * pitch), (sy * sy + box) / (pitch * pitch)
        c, s = math.cos(rotation[i]), math.sin(rotation[i])
        ix, iy = 1 / vx, 1 / vy
        b = k * a
        aa = a * a
        d_ix = d_a * c * c + d_k * c * s * iy / aa + d_d * iy * iy * s * s / aa
        d_iy = d_a * s * s - d_k * c * s * ix / aa + d_d * ix * ix * c * c / aa
        d_rotation[i] = -2 * b * d_a + d_k * ((c * c - s * s) * (ix - iy) / a + 2 * k * k) + d_d * 2 * k * d
        d_amplitude = 0.0
        for ch in range(color.shape[1]):
            d_color[i, ch] = sums[i, 5 + ch] * gain
            d_amplitude += sums[i, 5 + ch] * color[i, ch] * PEAK
        # amplitude = sx sy / (sqrt(vx vy) pitch^2), v = (s^2 + box) / pitch^2
        p2 = pitch * pitch
        d_scale[i, 0] = -2 * sx / p2 * ix * ix * d_ix + d_amplitude * amplitude * (1 / sx - sx / (p2 * vx))
        d_scale[i, 1] = -2 * sy / p2 * iy * iy * d_iy + d_amplitude * amplitude * (1 / sy - sy / (p2 * vy))
