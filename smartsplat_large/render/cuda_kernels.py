"""The raster kernels of the GPU, in Triton: one program a tile forward, one program a Gaussian backward.

Forward, the pixels of a tile stay in registers while its Gaussians are added to them in order of their index, so that a
pixel's bits do not depend on the window. Backward, a Gaussian walks over its own pixels and its moments stay in registers
until the end: no two programs add to one number, so that sums are the same in every run, and nothing is sorted.

Places are differences of float64 taken once for each Gaussian and tile; what is left, a few pixels, is float32. Importing this
takes Triton; :mod:`.cuda` does so when a kernel is first wanted.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from smartsplat_large.gaussians import CUTOFF
from smartsplat_large.render import records

TILE = 16
"""Pixels on a side of a raster tile, and of the patches that a Gaussian walks over backward."""
WARPS = 2
LANES = 128
"""Gaussians of a program that takes one a lane."""

_LANES = tl.constexpr(LANES)
_COLUMNS, _PIXELS, _TILE = tl.constexpr(records.COLUMNS), tl.constexpr(TILE * TILE), tl.constexpr(TILE)
_MX, _MY, _A, _K, _D = (tl.constexpr(column) for column in (records.MX, records.MY, records.A, records.K, records.D))
_REACH_X, _REACH_Y = tl.constexpr(records.REACH_X), tl.constexpr(records.REACH_Y)
_PEAK, _REACH = tl.constexpr(records.PEAK), tl.constexpr(math.sqrt(2 * CUTOFF))
_FLOOR = tl.constexpr(records.FLOOR + 1e-8)
"""A hair above, so that the kernel is exactly zero beyond the cut-off."""
_WINDOW = ["x", "y", "width", "height", "first_column", "first_row", "columns"]
"""Numbers that kernels are not compiled anew for: a pixel's bits must not depend on them."""


@triton.jit
def _uncut(
    record: tl.tensor, left: tl.tensor, top: tl.tensor, column: tl.tensor, row: tl.tensor
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """``exp(-e)``, ``u`` and ``y`` at the pixels ``(column, row)`` from the pixel ``(left, top)``."""
    k = tl.load(record + _K)
    down = top - tl.load(record + _MY)
    across = left - tl.load(record + _MX) + k * down
    y = down.to(tl.float32) + row
    u = across.to(tl.float32) + (column + k.to(tl.float32) * row)
    a, d = tl.load(record + _A).to(tl.float32), tl.load(record + _D).to(tl.float32)
    return tl.exp(-0.5 * (a * u * u + d * y * y)), u, y


@triton.jit(do_not_specialize=_WINDOW)
def forward(
    gaussians: tl.tensor, peaks: tl.tensor, ids: tl.tensor, starts: tl.tensor, below: tl.tensor, out: tl.tensor,
    x: tl.tensor, y: tl.tensor, width: tl.tensor, height: tl.tensor,
    first_column: tl.tensor, first_row: tl.tensor, columns: tl.tensor,
    channels: tl.constexpr, based: tl.constexpr,
) -> None:  # fmt: skip
    """Render one tile of a window onto ``below``: planes of the window where it is ``based``, else a number a channel."""
    tile = tl.program_id(0)
    middle_x = (first_column + tile % columns) * _TILE + _TILE // 2
    middle_y = (first_row + tile // columns) * _TILE + _TILE // 2
    lanes = tl.arange(0, _PIXELS)
    column, row = lanes % _TILE - _TILE // 2, lanes // _TILE - _TILE // 2
    across, down = middle_x + column - x, middle_y + row - y
    inside = (across >= 0) & (across < width) & (down >= 0) & (down < height)
    plane = width.to(tl.int64) * height
    at = down.to(tl.int64) * width + across
    zero = tl.zeros([_PIXELS], tl.float32)
    s0, s1, s2, s3 = zero, zero, zero, zero
    if based:
        s0 = tl.load(below + at, inside, 0.0)
        if channels > 1:
            s1 = tl.load(below + at + plane, inside, 0.0)
        if channels > 2:
            s2 = tl.load(below + at + 2 * plane, inside, 0.0)
        if channels > 3:
            s3 = tl.load(below + at + 3 * plane, inside, 0.0)
    else:
        s0 += tl.load(below)
        if channels > 1:
            s1 += tl.load(below + 1)
        if channels > 2:
            s2 += tl.load(below + 2)
        if channels > 3:
            s3 += tl.load(below + 3)
    column, row = column.to(tl.float32), row.to(tl.float32)
    left, top = middle_x.to(tl.float64), middle_y.to(tl.float64)
    for n in range(tl.load(starts + tile), tl.load(starts + tile + 1)):
        i = tl.load(ids + n).to(tl.int64)
        uncut = _uncut(gaussians + i * _COLUMNS, left, top, column, row)[0]
        value = tl.maximum(uncut - _FLOOR, 0.0) * _PEAK
        peak = peaks + i * channels
        s0 += value * tl.load(peak)
        if channels > 1:
            s1 += value * tl.load(peak + 1)
        if channels > 2:
            s2 += value * tl.load(peak + 2)
        if channels > 3:
            s3 += value * tl.load(peak + 3)
    tl.store(out + at, s0, inside)
    if channels > 1:
        tl.store(out + at + plane, s1, inside)
    if channels > 2:
        tl.store(out + at + 2 * plane, s2, inside)
    if channels > 3:
        tl.store(out + at + 3 * plane, s3, inside)


@triton.jit(do_not_specialize=_WINDOW)
def backward(
    gaussians: tl.tensor, peaks: tl.tensor, d_out: tl.tensor, moments: tl.tensor,
    x: tl.tensor, y: tl.tensor, width: tl.tensor, height: tl.tensor, channels: tl.constexpr, wide: tl.constexpr,
) -> None:  # fmt: skip
    """The moments of one Gaussian, as :func:`.records.chain` has them: ``5 + channels`` of the ``wide`` in its row."""
    i = tl.program_id(0).to(tl.int64)
    record, peak = gaussians + i * _COLUMNS, peaks + i * channels
    mx, my, k = tl.load(record + _MX), tl.load(record + _MY), tl.load(record + _K)
    reach_x, reach_y = tl.load(record + _REACH_X), tl.load(record + _REACH_Y)
    half = tl.sqrt(1 / tl.load(record + _A)) * _REACH
    # Clamped as floats: what lies far outside must not overflow an integer. The window is within [0, w) x [0, h).
    w, h = width.to(tl.float64), height.to(tl.float64)
    to_x, to_y = mx - x, my - y
    begin_y = tl.minimum(tl.maximum(tl.ceil(to_y - reach_y), 0.0), h).to(tl.int32)
    end_y = tl.minimum(tl.maximum(tl.floor(to_y + reach_y) + 1.0, 0.0), h).to(tl.int32)
    lanes = tl.arange(0, _PIXELS)
    column, row = lanes % _TILE, lanes // _TILE
    column_f, row_f = (column - _TILE // 2).to(tl.float32), (row - _TILE // 2).to(tl.float32)
    plane = width.to(tl.int64) * height
    c0 = tl.load(peak) * _PEAK
    if channels > 1:
        c1 = tl.load(peak + 1) * _PEAK
    if channels > 2:
        c2 = tl.load(peak + 2) * _PEAK
    if channels > 3:
        c3 = tl.load(peak + 3) * _PEAK
    zero = tl.zeros([_PIXELS], tl.float32)
    su, suu, sy, syy, suy = zero, zero, zero, zero, zero
    v0, v1, v2, v3 = zero, zero, zero, zero
    for top in range(begin_y, end_y, _TILE):
        # A slanted ellipse fills little of its box: the columns that it may reach in these rows.
        first, last = -k * (top - to_y), -k * (top + _TILE - 1 - to_y)
        low = tl.maximum(tl.minimum(first, last) - half, -reach_x)
        high = tl.minimum(tl.maximum(first, last) + half, reach_x)
        begin_x = tl.minimum(tl.maximum(tl.ceil(to_x + low), 0.0), w).to(tl.int32)
        end_x = tl.minimum(tl.maximum(tl.floor(to_x + high) + 1.0, 0.0), w).to(tl.int32)
        for left in range(begin_x, end_x, _TILE):
            across, down = left + column, top + row
            inside = (across < width) & (down < height)
            at = d_out + down.to(tl.int64) * width + across
            middle_x, middle_y = (x + left + _TILE // 2).to(tl.float64), (y + top + _TILE // 2).to(tl.float64)
            uncut, u, v = _uncut(record, middle_x, middle_y, column_f, row_f)
            value = tl.maximum(uncut - _FLOOR, 0.0)
            d0 = tl.load(at, inside, 0.0)
            pull = d0 * c0
            v0 += value * d0
            if channels > 1:
                d1 = tl.load(at + plane, inside, 0.0)
                pull += d1 * c1
                v1 += value * d1
            if channels > 2:
                d2 = tl.load(at + 2 * plane, inside, 0.0)
                pull += d2 * c2
                v2 += value * d2
            if channels > 3:
                d3 = tl.load(at + 3 * plane, inside, 0.0)
                pull += d3 * c3
                v3 += value * d3
            pull *= tl.where(value > 0, uncut, 0.0)
            pull_u, pull_v = pull * u, pull * v
            su += pull_u
            sy += pull_v
            suu += pull_u * u
            syy += pull_v * v
            suy += pull_u * v
    moment = moments + i * wide
    tl.store(moment, tl.sum(su))
    tl.store(moment + 1, tl.sum(suu))
    tl.store(moment + 2, tl.sum(sy))
    tl.store(moment + 3, tl.sum(syy))
    tl.store(moment + 4, tl.sum(suy))
    tl.store(moment + 5, tl.sum(v0))
    if channels > 1:
        tl.store(moment + 6, tl.sum(v1))
    if channels > 2:
        tl.store(moment + 7, tl.sum(v2))
    if channels > 3:
        tl.store(moment + 8, tl.sum(v3))


@triton.jit(do_not_specialize=["count"])
def project(
    xy: tl.tensor, scale: tl.tensor, rotation: tl.tensor, color: tl.tensor, seen: tl.tensor, gaussians: tl.tensor,
    peaks: tl.tensor, count: tl.tensor, channels: tl.constexpr,
) -> None:  # fmt: skip
    """What :func:`.records.project` does, but for the columns that no kernel here reads; ``seen`` is pitch and box variance."""
    i = tl.program_id(0) * _LANES + tl.arange(0, _LANES).to(tl.int64)
    valid = i < count
    pitch, box = tl.load(seen), tl.load(seen + 1)
    sx, sy = tl.load(scale + 2 * i, valid, 1.0).to(tl.float64), tl.load(scale + 2 * i + 1, valid, 1.0).to(tl.float64)
    angle = tl.load(rotation + i, valid, 0.0).to(tl.float64)
    vx, vy = (sx * sx + box) / (pitch * pitch), (sy * sy + box) / (pitch * pitch)
    cos, sin = tl.cos(angle), tl.sin(angle)
    ix, iy = 1 / vx, 1 / vy
    a = cos * cos * ix + sin * sin * iy
    d = ix * iy / a
    record = gaussians + i * _COLUMNS
    tl.store(record + _MX, tl.load(xy + 2 * i, valid, 0.0) / pitch - 0.5, valid)
    tl.store(record + _MY, tl.load(xy + 2 * i + 1, valid, 0.0) / pitch - 0.5, valid)
    tl.store(record + _A, a, valid)
    tl.store(record + _K, cos * sin * (ix - iy) / a, valid)
    tl.store(record + _D, d, valid)
    tl.store(record + _REACH_X, tl.sqrt(cos * cos * vx + sin * sin * vy) * _REACH, valid)
    tl.store(record + _REACH_Y, tl.sqrt(1 / d) * _REACH, valid)
    amplitude = sx * sy / (tl.sqrt(vx * vy) * pitch * pitch)
    for channel in tl.static_range(channels):
        at = i * channels + channel
        tl.store(peaks + at, (amplitude * tl.load(color + at, valid, 0.0)).to(tl.float32), valid)
