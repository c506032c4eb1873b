"""The raster kernels: all Gaussians of a tile, strip by strip, into a buffer that stays in the first-level cache.

:mod:`.tile_buffer` has the buffer, :mod:`.strips` explains the arithmetic.

A *raster* is the Gaussians of each tile, see :meth:`.cpu.CpuRenderer.tiles`, the window and where its tiles lie, and how many
make a row. Kernels are compiled for each number of channels: they take it as the length of a tuple, which the compiler
knows: that of the background's float32 values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, uintp

from smartsplat_large import simd
from smartsplat_large.render.records import DECAY, LOSS, MX, MY, TILE_HEIGHT, TILE_WIDTH, K
from smartsplat_large.render.strips import (
    BIASED_FLOOR,
    SHIFT,
    STRIPS,
    UNBIAS,
    exponential,
    is_smooth,
    spans,
    splat_color,
    starts,
    strip_range,
)
from smartsplat_large.render.tile_buffer import begin_tile, load_tile, store_pixels, store_tile, tile_buffer

_AHEAD = 3
"""Gaussians from asking for one to using it."""


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
def _strip_buffers() -> Any:
    """Rows of each strip, first and one past the last, and where G and V begin."""
    return (
        np.empty(STRIPS, np.int32), np.empty(STRIPS, np.int32),
        np.empty(TILE_WIDTH, np.float32), np.empty(TILE_WIDTH, np.float32),
    )  # fmt: skip


@njit(inline="always", error_model="numpy")
def _prefetch(records: Any, peaks: Any, ids: Any, n: int) -> None:
    """Gaussians lie anywhere in memory: ask for one some time before its turn."""
    if n < len(ids):
        i = np.intp(ids[n])
        simd.prefetch(records, i, np.intp(0))
        simd.prefetch(records, i, np.intp(8))
        simd.prefetch(peaks, i, np.intp(0))


@njit(cache=True, nogil=True, error_model="numpy")
def _render_tile(records: Any, peaks: Any, ids: Any, tile: Any, buffer: Any, strips: Any, planes: Any) -> None:
    """Add the Gaussians ``ids`` to the tile; rows outside the window may be left incomplete."""
    channels = len(planes)
    row = channels * simd.LANES
    x0, y0, left, right = tile[:4]
    firsts, ends, gs, vs = strips
    floor, zero = simd.splat(BIASED_FLOOR), simd.splat(np.float32(0))
    for n in range(len(ids)):
        i = ids[n]
        _prefetch(records, peaks, ids, n + _AHEAD)
        record = records[i]
        mx, my = record[MX] - x0, record[MY] - y0
        c0, c1, c2, c3 = splat_color(peaks[i], channels)
        smooth = is_smooth(record)
        w, loss = simd.splat(np.float32(record[DECAY])), simd.splat(np.float32(record[LOSS]))
        reached = strip_range(record, mx, left, right)
        spans(record, mx, my, firsts, ends)
        starts(record, mx, my, reached, firsts, gs, vs)
        for j in range(reached[0], reached[1]):
            strip = uintp(j)
            begin, end = firsts[strip], ends[strip]
            at = uintp((j * TILE_HEIGHT + begin) * row)
            last = uintp((j * TILE_HEIGHT + end) * row)
            g, v = simd.load(gs, uintp(j << SHIFT)), simd.load(vs, uintp(j << SHIFT))
            x, y = (j << SHIFT) - mx, begin - my
            if not smooth:
                g = exponential(record, x, y)
            while at < last:
                value = simd.maximum(simd.sub(g, floor), zero)
                simd.store(buffer, at, simd.fma(value, c0, simd.load(buffer, at)))
                if channels > 1:
                    at1 = at + uintp(simd.LANES)
                    simd.store(buffer, at1, simd.fma(value, c1, simd.load(buffer, at1)))
                if channels > 2:
                    at2 = at + uintp(2 * simd.LANES)
                    simd.store(buffer, at2, simd.fma(value, c2, simd.load(buffer, at2)))
                if channels > 3:
                    at3 = at + uintp(3 * simd.LANES)
                    simd.store(buffer, at3, simd.fma(value, c3, simd.load(buffer, at3)))
                at += uintp(row)
                if smooth:
                    g, v = simd.fma(g, v, g), simd.fma(v, w, loss)
                else:
                    y += 1.0
                    g = exponential(record, x, y)


@njit(cache=True, nogil=True, error_model="numpy")
def _correlate_tile(
    records: Any, peaks: Any, ids: Any, tile: Any, buffer: Any, strips: Any, planes: Any, moments: Any
) -> None:
    """Add to ``moments`` what the gradient in the tile's buffer means for each Gaussian; see :func:`.records.chain`.

    Within a run, sums of w, m w and m^2 w, with m rows to go, are sums of sums: three additions a row. One function, long as
    it is: taken apart, its sums leave the registers.
    """
    channels = len(planes)
    row = channels * simd.LANES
    x0, y0, left, right = tile[:4]
    firsts, ends, gs, vs = strips
    floor, zero, two = simd.splat(BIASED_FLOOR), simd.splat(np.float32(0)), simd.splat(np.float32(2))
    for n in range(len(ids)):
        i = ids[n]
        _prefetch(records, peaks, ids, n + _AHEAD)
        record = records[i]
        mx, my = record[MX] - x0, record[MY] - y0
        c0, c1, c2, c3 = splat_color(peaks[i], channels)
        k, smooth = record[K], is_smooth(record)
        slant = simd.splat(np.float32(k))
        w, loss = simd.splat(np.float32(record[DECAY])), simd.splat(np.float32(record[LOSS]))
        reached = strip_range(record, mx, left, right)
        spans(record, mx, my, firsts, ends)
        starts(record, mx, my, reached, firsts, gs, vs)
        v0, v1, v2, v3 = zero, zero, zero, zero
        sum_u, sum_uu, sum_y, sum_yy, sum_uy = zero, zero, zero, zero, zero
        for j in range(reached[0], reached[1]):
            strip = uintp(j)
            begin, end = firsts[strip], ends[strip]
            at = uintp((j * TILE_HEIGHT + begin) * row)
            last = uintp((j * TILE_HEIGHT + end) * row)
            g, v = simd.load(gs, uintp(j << SHIFT)), simd.load(vs, uintp(j << SHIFT))
            x, y = (j << SHIFT) - mx, begin - my
            if not smooth:
                g = exponential(record, x, y)
            s0, s1, s2 = zero, zero, zero
            while at < last:
                value = simd.maximum(simd.sub(g, floor), zero)
                d0 = simd.load(buffer, at)
                v0 = simd.fma(value, d0, v0)
                pull = simd.mul(d0, c0)
                if channels > 1:
                    d1 = simd.load(buffer, at + uintp(simd.LANES))
                    v1 = simd.fma(value, d1, v1)
                    pull = simd.fma(d1, c1, pull)
                if channels > 2:
                    d2 = simd.load(buffer, at + uintp(2 * simd.LANES))
                    v2 = simd.fma(value, d2, v2)
                    pull = simd.fma(d2, c2, pull)
                if channels > 3:
                    d3 = simd.load(buffer, at + uintp(3 * simd.LANES))
                    v3 = simd.fma(value, d3, v3)
                    pull = simd.fma(d3, c3, pull)
                s0 = simd.fma(simd.where_above(g, floor, g), pull, s0)
                s1 = simd.add(s1, s0)
                s2 = simd.add(s2, s1)
                at += uintp(row)
                if smooth:
                    g, v = simd.fma(g, v, g), simd.fma(v, w, loss)
                else:
                    y += 1.0
                    g = exponential(record, x, y)
            # u and y, called lift, where the strip has ended, and back from there by m rows.
            below = end - my
            u, lift = simd.add(simd.ramp(), simd.splat(np.float32(x + k * below))), simd.splat(np.float32(below))
            squares = simd.sub(simd.mul(two, s2), s1)
            tilted = simd.sub(simd.mul(u, s0), simd.mul(slant, s1))  # sum of u w
            tilted_m = simd.sub(simd.mul(u, s1), simd.mul(slant, squares))  # sum of u m w
            lifted = simd.sub(simd.mul(lift, s0), s1)  # sum of y w
            lifted_m = simd.sub(simd.mul(lift, s1), squares)
            sum_u, sum_y = simd.add(sum_u, tilted), simd.add(sum_y, lifted)
            sum_uu = simd.add(sum_uu, simd.sub(simd.mul(u, tilted), simd.mul(slant, tilted_m)))
            sum_uy = simd.add(sum_uy, simd.sub(simd.mul(lift, tilted), tilted_m))
            sum_yy = simd.add(sum_yy, simd.sub(simd.mul(lift, lifted), lifted_m))
        unbias = simd.splat(np.float32(UNBIAS))
        v0, v1, v2 = simd.mul(v0, unbias), simd.mul(v1, unbias), simd.mul(v2, unbias)
        total = moments[i]
        eight = simd.sums_of_eight(sum_u, sum_uu, sum_y, sum_yy, sum_uy, v0, v1, v2)
        simd.store(total, uintp(0), simd.add(simd.load(total, uintp(0)), eight))
        if channels > 3:
            total[8] += simd.horizontal_sum(simd.mul(v3, unbias))


@njit(cache=True, nogil=True, error_model="numpy")
def forward(records: Any, peaks: Any, raster: Any, base: Any, out: Any, planes: Any) -> None:
    """Render a window onto ``base``, or onto the background where that is empty; ``(channels, height, width)`` float32."""
    channels = len(planes)
    buffer = tile_buffer(channels)
    strips = _strip_buffers()
    start, ids, bounds, columns = raster
    for index in range(len(start) - 1):
        tile = _tile(index, columns, bounds)
        begin_tile(buffer, tile, bounds, planes, base)
        _render_tile(records, peaks, ids[start[index] : start[index + 1]], tile, buffer, strips, planes)
        store_tile(buffer, tile, bounds, channels, out)


@njit(cache=True, nogil=True, error_model="numpy")
def pixels(records: Any, peaks: Any, raster: Any, brightest: Any, out: Any, planes: Any) -> None:
    """Render a window as stored pixels, ``(height, width, channels)`` of whole numbers up to ``brightest``."""
    channels = len(planes)
    buffer = tile_buffer(channels)
    strips, scratch = _strip_buffers(), np.empty(channels * simd.LANES, np.int32)
    start, ids, bounds, columns = raster
    nothing = np.empty((0, 0, 0), np.float32)
    for index in range(len(start) - 1):
        tile = _tile(index, columns, bounds)
        begin_tile(buffer, tile, bounds, planes, nothing)
        _render_tile(records, peaks, ids[start[index] : start[index + 1]], tile, buffer, strips, planes)
        store_pixels(buffer, tile, bounds, channels, brightest, scratch, out)


@njit(cache=True, nogil=True, error_model="numpy")
def backward(records: Any, peaks: Any, raster: Any, d_out: Any, planes: Any, moments: Any) -> None:
    """Add to ``moments`` what the gradient ``d_out`` on a window means for each Gaussian."""
    channels = len(planes)
    buffer = tile_buffer(channels)
    strips = _strip_buffers()
    start, ids, bounds, columns = raster
    for index in range(len(start) - 1):
        tile = _tile(index, columns, bounds)
        load_tile(buffer, tile, bounds, channels, d_out)
        _correlate_tile(records, peaks, ids[start[index] : start[index + 1]], tile, buffer, strips, planes, moments)


@njit(cache=True, nogil=True, error_model="numpy")
def descend(
    records: Any, peaks: Any, raster: Any, target: Any, brightest: float, l1: Any, l2: Any, base: Any, planes: Any, moments: Any
) -> Any:  # fmt: skip
    """Forward, pointwise loss and backward of a window, tile by tile, each while it is in the first-level cache.

    Parameters
    ----------
    target
        ``(channels, height, width)`` of whole numbers up to ``brightest``.
    l1, l2
        Weights of ``|r|`` and of ``r^2 / 2`` in the gradient that goes back, ``r`` from the clamped rendering.
    base
        As for :func:`forward`.

    Returns
    -------
    Sums of ``|r|`` and of ``r^2`` over the window.
    """
    channels = len(planes)
    buffer = tile_buffer(channels)
    strips = _strip_buffers()
    start, ids, bounds, columns = raster
    unit = np.float32(1 / brightest)
    absolute, squared = 0.0, 0.0
    for index in range(len(start) - 1):
        tile = _tile(index, columns, bounds)
        members = ids[start[index] : start[index + 1]]
        begin_tile(buffer, tile, bounds, planes, base)
        _render_tile(records, peaks, members, tile, buffer, strips, planes)
        sums = _residual(buffer, tile, bounds, channels, target, unit, l1, l2)
        absolute += sums[0]
        squared += sums[1]
        _correlate_tile(records, peaks, members, tile, buffer, strips, planes, moments)
    return absolute, squared


@njit(inline="always", error_model="numpy")
def _residual(buffer: Any, tile: Any, bounds: Any, channels: int, target: Any, unit: Any, l1: Any, l2: Any) -> Any:
    """Turn a rendered tile into the gradient of the pointwise loss, and sum the loss; zeros outside the window."""
    x0, y0, left, right, top, bottom = tile
    zero, one = simd.splat(np.float32(0)), simd.splat(np.float32(1))
    absolute, squared, spilled = zero, zero, (0.0, 0.0)
    units, weight1, weight2 = simd.splat(unit), simd.splat(l1), simd.splat(l2)
    for j in range(STRIPS):
        x = j << SHIFT
        whole = x >= left and x + simd.LANES - 1 <= right
        for c in range(channels):
            for y in range(TILE_HEIGHT):
                base = ((j * TILE_HEIGHT + y) * channels + c) * simd.LANES
                if y < top or y > bottom or x > right or x + simd.LANES <= left:
                    simd.store(buffer, uintp(base), zero)
                    continue
                at, wanted = x0 + x - bounds[0], target[c, y0 + y - bounds[1]]
                if not whole:
                    first, last = max(left - x, 0), min(right - x, simd.LANES - 1)
                    buffer[base : base + first] = 0
                    buffer[base + last + 1 : base + simd.LANES] = 0
                    more = _residual_edge(
                        buffer[base + first : base + last + 1], wanted[at + first : at + last + 1], unit, l1, l2
                    )
                    spilled = spilled[0] + more[0], spilled[1] + more[1]
                    continue
                value = simd.minimum(simd.maximum(simd.load(buffer, uintp(base)), zero), one)
                # White must be 1 to the bit, or overshoot there would have a sign: the minimum keeps it from being fused.
                r = simd.sub(value, simd.minimum(simd.mul(simd.load_number(wanted, uintp(at)), units), one))
                absolute = simd.add(absolute, simd.maximum(r, simd.sub(zero, r)))
                squared = simd.fma(r, r, squared)
                sign = simd.sub(simd.where_above(r, zero, weight1), simd.where_above(zero, r, weight1))
                simd.store(buffer, uintp(base), simd.fma(weight2, r, sign))
    return spilled[0] + simd.horizontal_sum(absolute), spilled[1] + simd.horizontal_sum(squared)


@njit(cache=True, nogil=True, error_model="numpy")
def _residual_edge(pixels: Any, wanted: Any, unit: Any, l1: Any, l2: Any) -> Any:
    """The same for fewer than eight pixels."""
    absolute, squared = 0.0, 0.0
    for x in range(len(pixels)):
        value = min(max(pixels[x], np.float32(0)), np.float32(1))
        r = value - min(np.float32(wanted[x]) * unit, np.float32(1))
        absolute += abs(r)
        squared += r * r
        pixels[x] = l2 * r + (l1 if r > 0 else (-l1 if r < 0 else np.float32(0)))
    return absolute, squared
