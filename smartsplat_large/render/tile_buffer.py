"""The buffer of a raster tile, and what goes in and out of it.

It holds a tile as strips of eight columns; a strip holds its rows from the top, and a row its channels, eight pixels each.
So walking down a strip reads and writes memory in order.

A ``tile`` is its corner in the image and what of it the window wants: left, right, top and bottom, in pixels of the tile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, uintp

from smartsplat_large import simd
from smartsplat_large.render.records import TILE_HEIGHT, TILE_WIDTH
from smartsplat_large.render.strips import SHIFT


@njit(inline="always", error_model="numpy")
def tile_buffer(channels: int) -> Any:
    """A tile's pixels, aligned to a cache line so that no vector straddles two."""
    floats = TILE_HEIGHT * TILE_WIDTH * channels
    memory = np.empty(floats + 16, np.float32)
    return memory[(-(memory.ctypes.data // 4)) % 16 :][:floats]


@njit(inline="always", error_model="numpy")
def _lanes(j: int, left: int, right: int) -> Any:
    """First and last of the eight columns of a strip that the window wants."""
    return max(left - (j << SHIFT), 0), min(right - (j << SHIFT), simd.LANES - 1)


@njit(inline="always", error_model="numpy")
def _copy(source: Any, at: int, out: Any, to: int, lanes: Any) -> None:
    """Those lanes of eight numbers; ``at`` and ``to`` are where the first of the eight would be."""
    first, last = lanes
    if last - first == simd.LANES - 1:
        simd.store(out, uintp(to), simd.load(source, uintp(at)))
    else:
        for lane in range(first, last + 1):
            out[to + lane] = source[at + lane]


@njit(inline="always", error_model="numpy")
def store_tile(buffer: Any, tile: Any, bounds: Any, channels: int, out: Any) -> None:
    x0, y0, left, right, top, bottom = tile
    for c in range(channels):
        for y in range(top, bottom + 1):
            line = out[c, y0 + y - bounds[1]]
            for j in range(left >> SHIFT, (right >> SHIFT) + 1):
                at = ((j * TILE_HEIGHT + y) * channels + c) * simd.LANES
                _copy(buffer, at, line, x0 + (j << SHIFT) - bounds[0], _lanes(j, left, right))


@njit(inline="always", error_model="numpy")
def store_pixels(buffer: Any, tile: Any, bounds: Any, channels: int, brightest: Any, scratch: Any, out: Any) -> None:
    """The window's part of a tile as stored pixels, to the bit what ``pixels.to_pixels`` makes of it."""
    x0, y0, left, right, top, bottom = tile
    zero, one, half = simd.splat(np.float32(0)), simd.splat(np.float32(1)), simd.splat(np.float32(0.5))
    peak = simd.splat(brightest)
    for y in range(top, bottom + 1):
        line = out[y0 + y - bounds[1]]
        for j in range(left >> SHIFT, (right >> SHIFT) + 1):
            at = (j * TILE_HEIGHT + y) * channels * simd.LANES
            for c in range(channels):
                value = simd.load(buffer, uintp(at + c * simd.LANES))
                value = simd.minimum(simd.maximum(value, zero), one)
                # The minimum changes nothing: it keeps product and sum from being fused.
                value = simd.add(simd.minimum(simd.mul(value, peak), peak), half)
                simd.store_ints(scratch, uintp(c * simd.LANES), value)
            first, last = _lanes(j, left, right)
            to = x0 + (j << SHIFT) - bounds[0]
            if last - first == simd.LANES - 1:  # a number that the compiler knows
                for lane in range(simd.LANES):
                    for c in range(channels):
                        line[uintp(to + lane), uintp(c)] = scratch[uintp(c * simd.LANES + lane)]
            else:
                for lane in range(first, last + 1):
                    for c in range(channels):
                        line[to + lane, c] = scratch[c * simd.LANES + lane]


@njit(inline="always", error_model="numpy")
def load_tile(buffer: Any, tile: Any, bounds: Any, channels: int, planes: Any) -> None:
    """The window's part of a tile; zeros around it."""
    x0, y0, left, right, top, bottom = tile
    if left > 0 or top > 0 or right < TILE_WIDTH - 1 or bottom < TILE_HEIGHT - 1:
        buffer[:] = 0
    for c in range(channels):
        for y in range(top, bottom + 1):
            line = planes[c, y0 + y - bounds[1]]
            for j in range(left >> SHIFT, (right >> SHIFT) + 1):
                at = ((j * TILE_HEIGHT + y) * channels + c) * simd.LANES
                _copy(line, x0 + (j << SHIFT) - bounds[0], buffer, at, _lanes(j, left, right))


@njit(inline="always", error_model="numpy")
def begin_tile(buffer: Any, tile: Any, bounds: Any, planes: Any, base: Any) -> None:
    """What Gaussians are added to: the base where there is one, else the background."""
    channels = len(planes)
    if base.shape[0]:
        load_tile(buffer, tile, bounds, channels, base)
        return
    for c in range(channels):
        color = simd.splat(planes[c])
        for at in range(uintp(c * simd.LANES), uintp(len(buffer)), uintp(channels * simd.LANES)):
            simd.store(buffer, at, color)
