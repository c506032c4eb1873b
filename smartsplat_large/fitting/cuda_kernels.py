"""SSIM and its gradient on the GPU, in Triton: the sums of :mod:`.ssim`, its 121 taps taken one by one.

A lattice point, or a pixel, is a lane's; what its neighbours read is in the first-level cache. Importing this takes Triton.
"""

from __future__ import annotations

import triton
import triton.language as tl

from smartsplat_large.fitting.ssim import HALO, STABILISERS

ROWS, COLUMNS = 8, 32
"""Lattice points, or pixels, of a program."""

_ROWS, _COLUMNS = tl.constexpr(ROWS), tl.constexpr(COLUMNS)
_HALO, _TAPS = tl.constexpr(HALO), tl.constexpr(2 * HALO + 1)
_C1, _C2 = (tl.constexpr(float(value)) for value in STABILISERS)
_PLACES = ["width", "height", "first_row", "first_column", "rows", "columns"]


@triton.jit(do_not_specialize=_PLACES)
def similarity(
    x: tl.tensor, y: tl.tensor, taps: tl.tensor, derivatives: tl.tensor, sums: tl.tensor,
    width: tl.tensor, height: tl.tensor, first_row: tl.tensor, first_column: tl.tensor, rows: tl.tensor, columns: tl.tensor,
    step: tl.constexpr,
) -> None:  # fmt: skip
    """SSIM at lattice points of one channel, summed, and its derivatives by the blurred x, x^2 and x y.

    Lattice point ``(i, j)`` is pixel ``(first_row + i step, first_column + j step)`` of the planes ``x`` and ``y``.
    """
    channel = tl.program_id(2).to(tl.int64)
    i = tl.program_id(1) * _ROWS + tl.arange(0, _ROWS)[:, None]
    j = tl.program_id(0) * _COLUMNS + tl.arange(0, _COLUMNS)[None, :]
    valid = (i < rows) & (j < columns)
    plane = channel * width * height
    mx = tl.zeros([_ROWS, _COLUMNS], tl.float32)
    my, squares, product = mx, mx, mx
    for down in range(_TAPS):
        row = first_row + i * step + down - _HALO
        for across in range(_TAPS):
            column = first_column + j * step + across - _HALO
            inside = valid & (row >= 0) & (row < height) & (column >= 0) & (column < width)
            at = plane + row.to(tl.int64) * width + column
            a, b = tl.load(x + at, inside, 0.0), tl.load(y + at, inside, 0.0)
            tap = tl.load(taps + down) * tl.load(taps + across)
            mx += tap * a
            my += tap * b
            squares += tap * (a * a + b * b)
            product += tap * (a * b)
    means, both = mx * mx + my * my, mx * my
    a1, a2 = 2 * both + _C1, 2 * (product - both) + _C2
    b1, b2 = means + _C1, squares - means + _C2
    over = 1 / (b1 * b2)
    similar = a1 * a2 * over
    count = rows.to(tl.int64) * columns
    at = derivatives + 3 * channel * count + i.to(tl.int64) * columns + j
    tl.store(at, 2 * over * (mx * similar * (b1 - b2) + my * (a2 - a1)), valid)
    tl.store(at + count, -similar * over * b1, valid)
    tl.store(at + 2 * count, 2 * a1 * over, valid)
    program = (channel * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(0) + tl.program_id(0)
    tl.store(sums + program, tl.sum(tl.where(valid, similar, 0.0)))


@triton.jit(do_not_specialize=[*_PLACES, "weight"])
def spread(
    x: tl.tensor, y: tl.tensor, taps: tl.tensor, derivatives: tl.tensor, gradient: tl.tensor, weight: tl.tensor,
    width: tl.tensor, height: tl.tensor, first_row: tl.tensor, first_column: tl.tensor, rows: tl.tensor, columns: tl.tensor,
    step: tl.constexpr,
) -> None:  # fmt: skip
    """Add ``weight`` times the gradient of the sum of SSIM to ``gradient``, at pixels of one channel."""
    channel = tl.program_id(2).to(tl.int64)
    row = tl.program_id(1) * _ROWS + tl.arange(0, _ROWS)[:, None]
    column = tl.program_id(0) * _COLUMNS + tl.arange(0, _COLUMNS)[None, :]
    valid = (row < height) & (column < width)
    count = rows.to(tl.int64) * columns
    lattice = derivatives + 3 * channel * count
    # The first taps that find a lattice line; from there on, every ``step``-th does. A tap beyond the last is zero.
    above = ((first_row + _HALO - row) % step + step) % step
    left = ((first_column + _HALO - column) % step + step) % step
    d_x = tl.zeros([_ROWS, _COLUMNS], tl.float32)
    d_xx, d_xy = d_x, d_x
    for down in range(0, _TAPS, step):
        i = (row - _HALO + above + down - first_row) // step
        in_rows = valid & (row - _HALO + above + down >= first_row) & (i < rows)
        row_tap = tl.load(taps + above + down)
        for across in range(0, _TAPS, step):
            j = (column - _HALO + left + across - first_column) // step
            inside = in_rows & (column - _HALO + left + across >= first_column) & (j < columns)
            at = lattice + i.to(tl.int64) * columns + j
            tap = row_tap * tl.load(taps + left + across)
            d_x += tap * tl.load(at, inside, 0.0)
            d_xx += tap * tl.load(at + count, inside, 0.0)
            d_xy += tap * tl.load(at + 2 * count, inside, 0.0)
    at = channel * width * height + row.to(tl.int64) * width + column
    a, b = tl.load(x + at, valid, 0.0), tl.load(y + at, valid, 0.0)
    total = d_x + 2 * a * d_xx + b * d_xy
    tl.store(gradient + at, tl.load(gradient + at, valid, 0.0) + weight * total, valid)
