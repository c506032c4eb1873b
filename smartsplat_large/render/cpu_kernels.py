"""The raster kernels: Gaussians of a tile as runs of pixels per row, sixteen pixels at a time, forward and backward.

On a row the exponent is a parabola around ``x = mx - k dy`` plus the constant ``D dy^2 / 2``. Rows are float64 in their few
scalars and float32 in their pixels. A tile's pixels live in a small buffer, one row of each channel after the other.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numba import njit, uintp

from smartsplat_large import simd
from smartsplat_large.gaussians import CUTOFF
from smartsplat_large.render.records import (
    AMPLITUDE,
    FLOOR,
    MX,
    MY,
    PEAK,
    REACH_Y,
    TILE_HEIGHT,
    TILE_WIDTH,
    A,
    D,
    K,
)

_PITCH = TILE_WIDTH  # runs are whole chunks, aligned to the tile's first column
_SHIFT = 4  # log2 of simd.LANES

# exp(-t / 4) on [0, ln 255], fitted at Chebyshev nodes; squared twice it is exp(-t) to 1e-6.
_NODES = (np.cos((np.arange(64) + 0.5) * np.pi / 64) + 1) / 2 * CUTOFF
_P0, _P1, _P2, _P3, _P4, _P5, _P6 = (
    np.float32(c) for c in np.polynomial.Polynomial.fit(_NODES, np.exp(-_NODES / 4), 6).convert().coef
)
_LIMIT = np.float32(CUTOFF)
_MINUS_FLOOR = np.float32(-FLOOR - 5e-7)  # a hair below, so that the kernel is exactly zero beyond the cut-off


@njit(inline="always", error_model="numpy")
def _exp_negative(t: Any) -> Any:
    """``exp(-t)`` for ``0 <= t <= CUTOFF`` in sixteen lanes, to 1e-6 absolute."""
    p = simd.fma(t, simd.splat(_P6), simd.splat(_P5))
    p = simd.fma(t, p, simd.splat(_P4))
    p = simd.fma(t, p, simd.splat(_P3))
    p = simd.fma(t, p, simd.splat(_P2))
    p = simd.fma(t, p, simd.splat(_P1))
    p = simd.fma(t, p, simd.splat(_P0))
    p = simd.mul(p, p)
    return simd.mul(p, p)


@njit(inline="always", error_model="numpy")
def _tile(index: int, columns: int, bounds: Any) -> Any:
    """Origin of a raster tile, and the rows and columns of it that the window wants (last ones included)."""
    x_first, y_first, x_end, y_end, column, row = bounds
    x0 = (column + index % columns) * TILE_WIDTH
    y0 = (row + index // columns) * TILE_HEIGHT
    left, right = max(x_first - x0, 0), min(x_end - x0, TILE_WIDTH) - 1
    top, bottom = max(y_first - y0, 0), min(y_end - y0, TILE_HEIGHT) - 1
    return x0, y0, left, right, top, bottom


@njit(inline="always", error_model="numpy")
def _rows(record: Any, my: float, top: int, bottom: int) -> Any:
    """First row, and one past the last, that a Gaussian reaches within ``[top, bottom]``."""
    first = max(float(top), np.ceil(my - record[REACH_Y]))
    last = min(float(bottom), np.floor(my + record[REACH_Y]))
    return int(first), int(last) + 1


@njit(inline="always", error_model="numpy")
def _splat_color(color: Any, gain: float, channels: int) -> Any:
    """The channels of a colour, each in all lanes; those beyond ``channels`` repeat the first and are not used."""
    c0 = simd.splat(np.float32(color[0] * gain))
    c1, c2, c3 = c0, c0, c0
    if channels > 1:
        c1 = simd.splat(np.float32(color[1] * gain))
    if channels > 2:
        c2 = simd.splat(np.float32(color[2] * gain))
    if channels > 3:
        c3 = simd.splat(np.float32(color[3] * gain))
    return c0, c1, c2, c3


@njit(inline="always", error_model="numpy")
def _run_buffers() -> Any:
    """Room for the runs of a tile's rows."""
    return (
        np.empty(TILE_HEIGHT, np.float64), np.empty(TILE_HEIGHT, np.float32),
        np.empty(TILE_HEIGHT, np.int32), np.empty(TILE_HEIGHT, np.int32),
    )  # fmt: skip


@njit(inline="always", error_model="numpy")
def _runs(record: Any, mx: float, my: float, rows: Any, left: int, right: int, runs: Any) -> None:
    """For each row: its parabola's centre and constant, and the aligned chunks where the exponent is below the cut-off.

    A loop of its own, without branches, for two reasons: it is vectorised over rows, and the number of chunks is known long
    before the loop over chunks must predict it; that saves most of a pipeline flush on every row. Half a run is a hundredth
    of a pixel too long on purpose: the kernel is zero there, and float32 is enough for a square root.
    """
    centers, constants, firsts, counts = runs
    k, half_d, two_over_a = record[K], 0.5 * record[D], 2 / record[A]
    aligned_left = np.int32(left >> _SHIFT)
    for y in range(rows[0], rows[1]):
        dy = y - my
        e = half_d * dy * dy
        center = mx - k * dy
        half = math.sqrt(np.float32(max(CUTOFF - e, 0.0) * two_over_a)) + np.float32(0.01)
        first = max(np.int32(np.int32(max(center - half, 0.0)) >> _SHIFT), aligned_left)
        last = np.int32(np.int32(max(min(center + half, float(right)), -1.0)) >> _SHIFT)
        at = uintp(y)  # a signed index would be checked for wrap-around, which stops the vectoriser
        centers[at] = center
        constants[at] = np.float32(e)
        firsts[at] = first
        counts[at] = last - first + np.int32(1)


@njit(inline="always", error_model="numpy")
def _exponent(u: Any, half_a: Any, e: Any) -> Any:
    """``min(A u^2 / 2 + e, cut-off)``."""
    return simd.minimum(simd.fma(simd.mul(u, u), half_a, e), simd.splat(_LIMIT))


@njit(inline="always", error_model="numpy")
def _accumulate(buffer: Any, at: Any, g: Any, color: Any) -> None:
    simd.store(buffer, at, simd.fma(g, color, simd.load(buffer, at)))


@functools.cache
def kernels(channels: int) -> tuple[Any, Any]:
    """The forward and backward kernels, compiled for a number of channels from 1 to 4."""
    return _forward(channels), _backward(channels)


def _forward(channels: int) -> Any:
    row_pitch = channels * _PITCH

    @njit(cache=True, nogil=True, error_model="numpy")
    def forward(records: Any, color: Any, start: Any, ids: Any, bounds: Any, columns: int, out: Any) -> None:
        memory = np.empty(TILE_HEIGHT * row_pitch + simd.LANES, np.float32)
        buffer = memory[(-(memory.ctypes.data // 4)) % simd.LANES :]
        runs = _run_buffers()
        centers, constants, firsts, counts = runs
        ramp, floor, zero = simd.ramp(), simd.splat(_MINUS_FLOOR), simd.splat(np.float32(0))
        for tile in range(len(start) - 1):
            x0, y0, left, right, top, bottom = _tile(tile, columns, bounds)
            buffer[:] = 0
            for j in range(start[tile], start[tile + 1]):
                record = records[ids[j]]
                mx, my = record[MX] - x0, record[MY] - y0
                c0, c1, c2, c3 = _splat_color(color[ids[j]], record[AMPLITUDE] * PEAK, channels)
                half_a = simd.splat(np.float32(0.5 * record[A]))
                first_row, end_row = _rows(record, my, top, bottom)
                _runs(record, mx, my, (first_row, end_row), left, right, runs)
                for y in range(first_row, end_row):
                    row = uintp(y)
                    center, offset = centers[row], simd.splat(constants[row])
                    x = firsts[row] << _SHIFT
                    end = x + (counts[row] << _SHIFT)
                    at = uintp(y * row_pitch + x)
                    while x < end:
                        u = simd.add(ramp, simd.splat(np.float32(x - center)))
                        g = simd.maximum(simd.add(_exp_negative(_exponent(u, half_a, offset)), floor), zero)
                        _accumulate(buffer, at, g, c0)
                        if channels > 1:
                            _accumulate(buffer, at + uintp(_PITCH), g, c1)
                        if channels > 2:
                            _accumulate(buffer, at + uintp(2 * _PITCH), g, c2)
                        if channels > 3:
                            _accumulate(buffer, at + uintp(3 * _PITCH), g, c3)
                        x += simd.LANES
                        at += uintp(simd.LANES)
            for y in range(top, bottom + 1):
                for c in range(channels):
                    base = y * row_pitch + c * _PITCH
                    for x in range(left, right + 1):
                        out[c, y0 + y - bounds[1], x0 + x - bounds[0]] = buffer[base + x]

    return forward


def _backward(channels: int) -> Any:
    row_pitch = channels * _PITCH

    @njit(cache=True, nogil=True, error_model="numpy")
    def backward(
        records: Any, color: Any, start: Any, ids: Any, bounds: Any, columns: int, d_out: Any, sums: Any
    ) -> None:
        memory = np.empty(TILE_HEIGHT * row_pitch + simd.LANES, np.float32)
        buffer = memory[(-(memory.ctypes.data // 4)) % simd.LANES :]
        runs = _run_buffers()
        centers, constants, firsts, counts = runs
        ramp, floor, zero = simd.ramp(), simd.splat(_MINUS_FLOOR), simd.splat(np.float32(0))
        limit, minus = simd.splat(_LIMIT), simd.splat(np.float32(-1))
        for tile in range(len(start) - 1):
            x0, y0, left, right, top, bottom = _tile(tile, columns, bounds)
            buffer[:] = 0
            for y in range(top, bottom + 1):
                for c in range(channels):
                    base = y * row_pitch + c * _PITCH
                    for x in range(left, right + 1):
                        buffer[base + x] = d_out[c, y0 + y - bounds[1], x0 + x - bounds[0]]
            for j in range(start[tile], start[tile + 1]):
                record, total = records[ids[j]], sums[ids[j]]
                mx, my = record[MX] - x0, record[MY] - y0
                c0, c1, c2, c3 = _splat_color(color[ids[j]], 1.0, channels)
                half_a = simd.splat(np.float32(0.5 * record[A]))
                v0, v1, v2, v3 = zero, zero, zero, zero
                sum_u, sum_uu, sum_y, sum_yy, sum_uy = zero, zero, zero, zero, zero
                first_row, end_row = _rows(record, my, top, bottom)
                _runs(record, mx, my, (first_row, end_row), left, right, runs)
                for y in range(first_row, end_row):
                    row = uintp(y)
                    center, offset = centers[row], simd.splat(constants[row])
                    x = firsts[row] << _SHIFT
                    end = x + (counts[row] << _SHIFT)
                    at = uintp(y * row_pitch + x)
                    row_sum, row_u = zero, zero
                    while x < end:
                        u = simd.add(ramp, simd.splat(np.float32(x - center)))
                        t = _exponent(u, half_a, offset)
                        full = _exp_negative(t)
                        g = simd.maximum(simd.add(full, floor), zero)
                        d0 = simd.load(buffer, at)
                        v0 = simd.fma(g, d0, v0)
                        w = simd.mul(d0, c0)
                        if channels > 1:
                            d1 = simd.load(buffer, at + uintp(_PITCH))
                            v1 = simd.fma(g, d1, v1)
                            w = simd.fma(d1, c1, w)
                        if channels > 2:
                            d2 = simd.load(buffer, at + uintp(2 * _PITCH))
                            v2 = simd.fma(g, d2, v2)
                            w = simd.fma(d2, c2, w)
                        if channels > 3:
                            d3 = simd.load(buffer, at + uintp(3 * _PITCH))
                            v3 = simd.fma(g, d3, v3)
                            w = simd.fma(d3, c3, w)
                        w = simd.where_positive(simd.fma(t, minus, limit), simd.mul(full, w))
                        wu = simd.mul(w, u)
                        row_sum, row_u = simd.add(row_sum, w), simd.add(row_u, wu)
                        sum_uu = simd.fma(wu, u, sum_uu)
                        x += simd.LANES
                        at += uintp(simd.LANES)
                    up = simd.splat(np.float32(y - my))
                    row_y = simd.mul(row_sum, up)
                    sum_u, sum_uy = simd.add(sum_u, row_u), simd.fma(row_u, up, sum_uy)
                    sum_y, sum_yy = simd.add(sum_y, row_y), simd.fma(row_y, up, sum_yy)
                total[0] += simd.horizontal_sum(sum_u)
                total[1] += simd.horizontal_sum(sum_uu)
                total[2] += simd.horizontal_sum(sum_y)
                total[3] += simd.horizontal_sum(sum_yy)
                total[4] += simd.horizontal_sum(sum_uy)
                total[5] += simd.horizontal_sum(v0)
                if channels > 1:
                    total[6] += simd.horizontal_sum(v1)
                if channels > 2:
                    total[7] += simd.horizontal_sum(v2)
                if channels > 3:
                    total[8] += simd.horizontal_sum(v3)

    return backward
