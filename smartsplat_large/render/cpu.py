"""The CPU renderer: raster tiles anchored to the image, Gaussians as runs of pixels per row, sixteen pixels at a time.

A conic ``A dx^2 + 2 B dx dy + C dy^2`` is kept in its Cholesky form ``A (dx + k dy)^2 + D dy^2`` with ``k = B / A`` and
``D = (A C - B^2) / A``. Both are computed from scale and rotation without cancellation, so needles of 1:1000 stay exact.
On a row, ``D dy^2`` is a constant and the exponent a parabola around ``x = mx - k dy``: rows are float64 in their few
scalars and float32 in their pixels.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numba import njit, uintp

from smartsplat_large import simd
from smartsplat_large.array_types import Planes
from smartsplat_large.gaussians import CUTOFF, Gaussians
from smartsplat_large.lattice import Window
from smartsplat_large.render.base import Gradients, box_variance

TILE_WIDTH = 64
TILE_HEIGHT = 32
_PITCH = TILE_WIDTH + simd.LANES  # a run may write past the tile's last column, never past this

_FLOOR = math.exp(-CUTOFF)
_PEAK = 1 / (1 - _FLOOR)

# Columns of the per-Gaussian record.
_MX, _MY, _A, _K, _D, _AMPLITUDE, _REACH_X, _REACH_Y = range(8)

# exp(-t / 4) on [0, ln 255], fitted at Chebyshev nodes; squared twice it is exp(-t) to 1e-6.
_NODES = (np.cos((np.arange(64) + 0.5) * np.pi / 64) + 1) / 2 * CUTOFF
_P0, _P1, _P2, _P3, _P4, _P5, _P6 = (
    np.float32(c) for c in np.polynomial.Polynomial.fit(_NODES, np.exp(-_NODES / 4), 6).convert().coef
)


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


@njit(cache=True, nogil=True, error_model="numpy")
def _project(xy: Any, scale: Any, rotation: Any, pitch: float, box: float) -> Any:
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
        records[i, _MX] = xy[i, 0] / pitch - 0.5
        records[i, _MY] = xy[i, 1] / pitch - 0.5
        records[i, _A] = a
        records[i, _K] = c * s * (ix - iy) / a
        records[i, _D] = d
        records[i, _AMPLITUDE] = sx * sy / (math.sqrt(vx * vy) * pitch * pitch)
        records[i, _REACH_X] = math.sqrt(2 * CUTOFF * (c * c * vx + s * s * vy))
        records[i, _REACH_Y] = math.sqrt(2 * CUTOFF / d)
    return records


@njit(cache=True, nogil=True, error_model="numpy")
def _bucket(records: Any, column: int, row: int, columns: int, rows: int) -> Any:
    """Which Gaussians touch which raster tile, in order of their index: ``ids[start[t] : start[t + 1]]``.

    Tiles are counted from tile ``(column, row)`` of the image, row by row.
    """
    n = len(records)
    spans = np.empty((n, 4), np.int32)
    start = np.zeros(columns * rows + 1, np.int64)
    for i in range(n):
        mx, my, rx, ry = records[i, _MX], records[i, _MY], records[i, _REACH_X], records[i, _REACH_Y]
        # Clamped as floats: a centre far outside must not overflow an integer.
        spans[i, 0] = min(max(math.floor((mx - rx) / TILE_WIDTH) - column, 0.0), float(columns))
        spans[i, 1] = min(max(math.floor((mx + rx) / TILE_WIDTH) - column, -1.0), columns - 1.0)
        spans[i, 2] = min(max(math.floor((my - ry) / TILE_HEIGHT) - row, 0.0), float(rows))
        spans[i, 3] = min(max(math.floor((my + ry) / TILE_HEIGHT) - row, -1.0), rows - 1.0)
        for v in range(spans[i, 2], spans[i, 3] + 1):
            for u in range(spans[i, 0], spans[i, 1] + 1):
                start[v * columns + u + 1] += 1
    for t in range(columns * rows):
        start[t + 1] += start[t]
    ids = np.empty(start[-1], np.int32)
    position = start[:-1].copy()
    for i in range(n):
        for v in range(spans[i, 2], spans[i, 3] + 1):
            for u in range(spans[i, 0], spans[i, 1] + 1):
                ids[position[v * columns + u]] = i
                position[v * columns + u] += 1
    return start, ids


@njit(inline="always", error_model="numpy")
def _row_run(a: float, rest: float, center: float, right: int) -> Any:
    """First and last pixel of a tile's row where the exponent is below the cut-off, no further than ``right``.

    A hundredth of a pixel too wide on purpose: the kernel is zero there, and float32 is enough. The first pixel does not
    depend on the window, so neither does the rounding of the pixels that follow from it.
    """
    half = math.sqrt(np.float32(2 * rest / a)) + np.float32(0.01)
    first = max(0.0, math.ceil(center - half))
    last = min(float(right), math.floor(center + half))
    return int(first), int(last)


@functools.cache
def _kernels(channels: int) -> tuple[Any, Any]:
    """The forward and backward kernels, compiled for a number of channels."""
    row_pitch = channels * _PITCH

    @njit(cache=True, nogil=True, error_model="numpy")
    def forward(records: Any, color: Any, start: Any, ids: Any, bounds: Any, columns: int, out: Any) -> None:
        x_first, y_first, x_end, y_end, column, row = bounds
        buffer = np.empty(TILE_HEIGHT * row_pitch + simd.LANES, np.float32)
        zero = simd.splat(np.float32(0))
        limit = simd.splat(np.float32(CUTOFF))
        step = simd.splat(np.float32(simd.LANES))
        floor = simd.splat(np.float32(-_FLOOR - 5e-7))  # a hair more: exactly zero beyond the cut-off
        for tile in range(len(start) - 1):
            x0 = (column + tile % columns) * TILE_WIDTH
            y0 = (row + tile // columns) * TILE_HEIGHT
            left, right = max(x_first - x0, 0), min(x_end - x0, TILE_WIDTH) - 1
            top, bottom = max(y_first - y0, 0), min(y_end - y0, TILE_HEIGHT) - 1
            buffer[:] = 0
            for j in range(start[tile], start[tile + 1]):
                i = ids[j]
                a, k, d = records[i, _A], records[i, _K], records[i, _D]
                mx, my = records[i, _MX] - x0, records[i, _MY] - y0
                reach = records[i, _REACH_Y]
                peak = records[i, _AMPLITUDE] * _PEAK
                c0 = simd.splat(np.float32(color[i, 0] * peak))
                c1, c2, c3 = c0, c0, c0
                if channels > 1:
                    c1 = simd.splat(np.float32(color[i, 1] * peak))
                if channels > 2:
                    c2 = simd.splat(np.float32(color[i, 2] * peak))
                if channels > 3:
                    c3 = simd.splat(np.float32(color[i, 3] * peak))
                half_a = simd.splat(np.float32(0.5 * a))
                first_row = int(max(float(top), math.ceil(my - reach)))
                last_row = int(min(float(bottom), math.floor(my + reach)))
                for y in range(first_row, last_row + 1):
                    dy = y - my
                    e = 0.5 * d * dy * dy
                    if e >= CUTOFF:
                        continue
                    center = mx - k * dy
                    first, last = _row_run(a, CUTOFF - e, center, right)
                    u = simd.add(simd.ramp(), simd.splat(np.float32(first - center)))
                    while first + simd.LANES <= left:
                        first += simd.LANES
                        u = simd.add(u, step)
                    offset = simd.splat(np.float32(e))
                    at = uintp(y * row_pitch + first)
                    for _ in range(first, last + 1, simd.LANES):
                        t = simd.minimum(simd.fma(simd.mul(u, u), half_a, offset), limit)
                        g = simd.maximum(simd.add(_exp_negative(t), floor), zero)
                        simd.store(buffer, at, simd.fma(g, c0, simd.load(buffer, at)))
                        if channels > 1:
                            b = at + uintp(_PITCH)
                            simd.store(buffer, b, simd.fma(g, c1, simd.load(buffer, b)))
                        if channels > 2:
                            b = at + uintp(2 * _PITCH)
                            simd.store(buffer, b, simd.fma(g, c2, simd.load(buffer, b)))
                        if channels > 3:
                            b = at + uintp(3 * _PITCH)
                            simd.store(buffer, b, simd.fma(g, c3, simd.load(buffer, b)))
                        u = simd.add(u, step)
                        at += uintp(simd.LANES)
            for y in range(top, bottom + 1):
                for c in range(channels):
                    base = y * row_pitch + c * _PITCH
                    for x in range(left, right + 1):
                        out[c, y0 + y - y_first, x0 + x - x_first] = buffer[base + x]

    @njit(cache=True, nogil=True, error_model="numpy")
    def backward(
        records: Any, color: Any, start: Any, ids: Any, bounds: Any, columns: int, d_out: Any, sums: Any
    ) -> None:
        x_first, y_first, x_end, y_end, column, row = bounds
        buffer = np.empty(TILE_HEIGHT * row_pitch + simd.LANES, np.float32)
        zero = simd.splat(np.float32(0))
        limit = simd.splat(np.float32(CUTOFF))
        minus = simd.splat(np.float32(-1))
        step = simd.splat(np.float32(simd.LANES))
        floor = simd.splat(np.float32(-_FLOOR - 5e-7))  # a hair more: exactly zero beyond the cut-off
        for tile in range(len(start) - 1):
            x0 = (column + tile % columns) * TILE_WIDTH
            y0 = (row + tile // columns) * TILE_HEIGHT
            left, right = max(x_first - x0, 0), min(x_end - x0, TILE_WIDTH) - 1
            top, bottom = max(y_first - y0, 0), min(y_end - y0, TILE_HEIGHT) - 1
            buffer[:] = 0
            for y in range(top, bottom + 1):
                for c in range(channels):
                    base = y * row_pitch + c * _PITCH
                    for x in range(left, right + 1):
                        buffer[base + x] = d_out[c, y0 + y - y_first, x0 + x - x_first]
            for j in range(start[tile], start[tile + 1]):
                i = ids[j]
                a, k, d = records[i, _A], records[i, _K], records[i, _D]
                mx, my = records[i, _MX] - x0, records[i, _MY] - y0
                reach = records[i, _REACH_Y]
                c0 = simd.splat(np.float32(color[i, 0]))
                c1, c2, c3 = c0, c0, c0
                if channels > 1:
                    c1 = simd.splat(np.float32(color[i, 1]))
                if channels > 2:
                    c2 = simd.splat(np.float32(color[i, 2]))
                if channels > 3:
                    c3 = simd.splat(np.float32(color[i, 3]))
                half_a = simd.splat(np.float32(0.5 * a))
                v0, v1, v2, v3 = zero, zero, zero, zero
                sum_u, sum_uu, sum_y, sum_yy, sum_uy = zero, zero, zero, zero, zero
                first_row = int(max(float(top), math.ceil(my - reach)))
                last_row = int(min(float(bottom), math.floor(my + reach)))
                for y in range(first_row, last_row + 1):
                    dy = y - my
                    e = 0.5 * d * dy * dy
                    if e >= CUTOFF:
                        continue
                    center = mx - k * dy
                    first, last = _row_run(a, CUTOFF - e, center, right)
                    u = simd.add(simd.ramp(), simd.splat(np.float32(first - center)))
                    while first + simd.LANES <= left:
                        first += simd.LANES
                        u = simd.add(u, step)
                    offset = simd.splat(np.float32(e))
                    at = uintp(y * row_pitch + first)
                    row_sum, row_u = zero, zero
                    for _ in range(first, last + 1, simd.LANES):
                        t = simd.minimum(simd.fma(simd.mul(u, u), half_a, offset), limit)
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
                        row_sum = simd.add(row_sum, w)
                        row_u = simd.add(row_u, wu)
                        sum_uu = simd.fma(wu, u, sum_uu)
                        u = simd.add(u, step)
                        at += uintp(simd.LANES)
                    up = simd.splat(np.float32(dy))
                    sum_u = simd.add(sum_u, row_u)
                    sum_uy = simd.fma(row_u, up, sum_uy)
                    row_sum = simd.mul(row_sum, up)
                    sum_y = simd.add(sum_y, row_sum)
                    sum_yy = simd.fma(row_sum, up, sum_yy)
                sums[i, 0] += simd.horizontal_sum(sum_u)
                sums[i, 1] += simd.horizontal_sum(sum_uu)
                sums[i, 2] += simd.horizontal_sum(sum_y)
                sums[i, 3] += simd.horizontal_sum(sum_yy)
                sums[i, 4] += simd.horizontal_sum(sum_uy)
                sums[i, 5] += simd.horizontal_sum(v0)
                if channels > 1:
                    sums[i, 6] += simd.horizontal_sum(v1)
                if channels > 2:
                    sums[i, 7] += simd.horizontal_sum(v2)
                if channels > 3:
                    sums[i, 8] += simd.horizontal_sum(v3)

    return forward, backward


@njit(cache=True, nogil=True, error_model="numpy")
def _chain(
    records: Any, sums: Any, scale: Any, rotation: Any, color: Any, pitch: float, box: float,
    d_xy: Any, d_scale: Any, d_rotation: Any, d_color: Any,
) -> None:  # fmt: skip
    """From sums over pixels to derivatives by the columns of :class:`Gaussians`."""
    for i in range(len(records)):
        a, k, d, amplitude = records[i, _A], records[i, _K], records[i, _D], records[i, _AMPLITUDE]
        gain = amplitude * _PEAK
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
        d_rotation[i] = (
            -2 * b * d_a + d_k * ((c * c - s * s) * (ix - iy) / a + 2 * k * k) + d_d * 2 * k * d
        )
        d_amplitude = 0.0
        for ch in range(color.shape[1]):
            d_color[i, ch] = sums[i, 5 + ch] * gain
            d_amplitude += sums[i, 5 + ch] * color[i, ch] * _PEAK
        # amplitude = sx sy / (sqrt(vx vy) pitch^2), v = (s^2 + box) / pitch^2
        p2 = pitch * pitch
        d_scale[i, 0] = -2 * sx / p2 * ix * ix * d_ix + d_amplitude * amplitude * (1 / sx - sx / (p2 * vx))
        d_scale[i, 1] = -2 * sy / p2 * iy * iy * d_iy + d_amplitude * amplitude * (1 / sy - sy / (p2 * vy))


class CpuRenderer:
    """Implements :class:`~smartsplat_large.render.base.Renderer` with numba; safe to call from several threads at once.

    One call uses one thread. Values are bit-identical for every split of an image into windows.
    """

    def forward(self, gaussians: Gaussians, window: Window, pitch: float = 1.0) -> Planes:
        out = np.empty((gaussians.channels, *window.shape), np.float32)
        records = _project(gaussians.xy, gaussians.scale, gaussians.rotation, pitch, box_variance(pitch))
        start, ids, bounds, columns = _raster(records, window)
        forward, _ = _kernels(gaussians.channels)
        forward(records, gaussians.color, start, ids, bounds, columns, out)
        return out

    def backward(self, gaussians: Gaussians, window: Window, d_planes: Planes, pitch: float = 1.0) -> Gradients:
        box = box_variance(pitch)
        records = _project(gaussians.xy, gaussians.scale, gaussians.rotation, pitch, box)
        start, ids, bounds, columns = _raster(records, window)
        n, channels = gaussians.color.shape
        sums = np.zeros((n, 5 + channels))
        _, backward = _kernels(channels)
        backward(records, gaussians.color, start, ids, bounds, columns, d_planes, sums)
        gradients = Gradients(np.empty((n, 2)), np.empty((n, 2)), np.empty(n), np.empty((n, channels)))
        _chain(
            records, sums, gaussians.scale, gaussians.rotation, gaussians.color, pitch, box,
            gradients.xy, gradients.scale, gradients.rotation, gradients.color,
        )  # fmt: skip
        return gradients


def _raster(records: Any, window: Window) -> tuple[Any, Any, tuple[int, ...], int]:
    column, row = window.x // TILE_WIDTH, window.y // TILE_HEIGHT
    columns = -(-window.x_end // TILE_WIDTH) - column
    rows = -(-window.y_end // TILE_HEIGHT) - row
    start, ids = _bucket(records, column, row, columns, rows)
    return start, ids, (window.x, window.y, window.x_end, window.y_end, column, row), columns
