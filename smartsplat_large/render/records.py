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

# Columns of the per-Gaussian record, two cache lines of float64.
MX, MY, A, K, D, SHEAR, DECAY, LOSS, REACH_X, REACH_Y, SLOPE, PER_C, RIM, COLUMNS = *range(13), 16
"""Centre; ``A``, ``k``, ``D``; ``A k``; ``exp(-C)`` and ``exp(-C) - 1``; half
width and half height; and of the rim as a function of x: slope of its middle, ``1 / C``, and ``(A - B^2 / C)``."""


def moment_count(channels: int) -> int:
    """Floats of a Gaussian's moments: five of shape and place and one a channel, and at least a vector of eight."""
    return max(8, 5 + channels)


@njit(cache=True, nogil=True, error_model="numpy")
def project(
    xy: Any,
    scale: Any,
    rotation: Any,
    color: Any,
    pitch: float,
    box: float,
    begin: int,
    end: int,
    records: Any,
    peaks: Any,
) -> None:
    """Gaussians in output pixels (pixel centres at whole numbers): a record each, and their colours at the peak."""
    channels = color.shape[1]
    for i in range(begin, end):
        sx, sy = np.float64(scale[i, 0]), np.float64(scale[i, 1])
        vx, vy = (sx * sx + box) / (pitch * pitch), (sy * sy + box) / (pitch * pitch)
        cos, sin = math.cos(rotation[i]), math.sin(rotation[i])
        ix, iy = 1 / vx, 1 / vy
        a, c = cos * cos * ix + sin * sin * iy, sin * sin * ix + cos * cos * iy
        k, d = cos * sin * (ix - iy) / a, ix * iy / a
        record = records[i]
        record[MX], record[MY] = xy[i, 0] / pitch - 0.5, xy[i, 1] / pitch - 0.5
        record[A], record[K], record[D], record[SHEAR] = a, k, d, a * k
        record[DECAY], record[LOSS] = math.exp(-c), math.expm1(-c)
        record[REACH_X] = math.sqrt(2 * CUTOFF * (cos * cos * vx + sin * sin * vy))
        record[REACH_Y] = math.sqrt(2 * CUTOFF / d)
        record[SLOPE], record[PER_C], record[RIM] = -a * k / c, 1 / c, ix * iy / c
        amplitude = sx * sy / (math.sqrt(vx * vy) * pitch * pitch)
        for ch in range(channels):
            peaks[i, ch] = amplitude * color[i, ch]


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
    records: Any, moments: Any, scale: Any, rotation: Any, color: Any, pitch: float, box: float, begin: int, end: int,
    d_xy: Any, d_scale: Any, d_rotation: Any, d_color: Any,
) -> None:  # fmt: skip
    """From the moments a backward pass adds up to derivatives by the columns of :class:`Gaussians`, for some rows.

    Moments and derivatives are those of the rows ``[begin, end)`` alone.

    With ``w`` the gradient of a pixel times the Gaussian's uncut contribution to it, the moments of a Gaussian are the sums
    over pixels of ``w u``, ``w u^2``, ``w y``, ``w y^2``, ``w u y`` (``u = x + k y`` from its centre), and of the
    kernel times the gradient for each channel.
    """
    for i in range(begin, end):
        row = i - begin
        a, k, d = records[i, A], records[i, K], records[i, D]
        su, suu, sy_, syy, suy = moments[row, 0], moments[row, 1], moments[row, 2], moments[row, 3], moments[row, 4]
        # d loss / d (A, k, D): the exponent is (A u^2 + D dy^2) / 2 with u = dx + k dy, and d G / d e = -exp(-e).
        d_a, d_k, d_d = -0.5 * suu, -a * suy, -0.5 * syy
        d_xy[row, 0] = a * su / pitch
        d_xy[row, 1] = (a * k * su + d * sy_) / pitch
        sx, sy = np.float64(scale[i, 0]), np.float64(scale[i, 1])
        vx, vy = (sx * sx + box) / (pitch * pitch), (sy * sy + box) / (pitch * pitch)
        c, s = math.cos(rotation[i]), math.sin(rotation[i])
        ix, iy = 1 / vx, 1 / vy
        b = k * a
        aa = a * a
        d_ix = d_a * c * c + d_k * c * s * iy / aa + d_d * iy * iy * s * s / aa
        d_iy = d_a * s * s - d_k * c * s * ix / aa + d_d * ix * ix * c * c / aa
        d_rotation[row] = -2 * b * d_a + d_k * ((c * c - s * s) * (ix - iy) / a + 2 * k * k) + d_d * 2 * k * d
        amplitude = sx * sy / (math.sqrt(vx * vy) * pitch * pitch)
        gain = amplitude * PEAK
        d_amplitude = 0.0
        for ch in range(color.shape[1]):
            d_color[row, ch] = moments[row, 5 + ch] * gain
            d_amplitude += moments[row, 5 + ch] * color[i, ch] * PEAK
        # amplitude = sx sy / (sqrt(vx vy) pitch^2), v = (s^2 + box) / pitch^2
        p2 = pitch * pitch
        d_scale[row, 0] = -2 * sx / p2 * ix * ix * d_ix + d_amplitude * amplitude * (1 / sx - sx / (p2 * vx))
        d_scale[row, 1] = -2 * sy / p2 * iy * iy * d_iy + d_amplitude * amplitude * (1 / sy - sy / (p2 * vy))
