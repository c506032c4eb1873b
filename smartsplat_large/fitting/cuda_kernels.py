"""SSIM with its gradient, and Adam, on the GPU, in Triton. Importing this takes Triton.

SSIM has the sums of :mod:`.ssim`, its 121 taps taken one by one: a lattice point, or a pixel, is a lane's; what its neighbours
read is in the first-level cache.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from smartsplat_large.fitting.optimizer import MIN_SCALE
from smartsplat_large.fitting.ssim import HALO, STABILISERS
from smartsplat_large.render import records

ROWS, COLUMNS = 8, 32
"""Lattice points, or pixels, of a program."""

_ROWS, _COLUMNS = tl.constexpr(ROWS), tl.constexpr(COLUMNS)
_HALO, _TAPS = tl.constexpr(HALO), tl.constexpr(2 * HALO + 1)
_C1, _C2 = (tl.constexpr(float(value)) for value in STABILISERS)
LANES = 128
"""Gaussians of a program of :func:`step`."""
SETTINGS = (
    "rate_x", "rate_y", "rate_scale", "rate_rotation", "rate_color", "beta1", "beta2", "epsilon", "bias_2",
    "low", "high", "strength", "step_energy", "pitch", "box",
)  # fmt: skip
"""Numbers that :func:`step` is given, in float64; those before ``beta1`` by their places."""

_BETA1, _BETA2, _EPSILON, _BIAS2, _LOW, _HIGH, _STRENGTH, _STEP_ENERGY, _PITCH, _BOX = (
    tl.constexpr(place) for place in range(5, len(SETTINGS))
)
_LANES, _RECORD, _PEAK = tl.constexpr(LANES), tl.constexpr(records.COLUMNS), tl.constexpr(records.PEAK)
_A, _K, _D = (tl.constexpr(column) for column in (records.A, records.K, records.D))
_MIN_SCALE, _TURN = tl.constexpr(MIN_SCALE), tl.constexpr(2 * math.pi)
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


@triton.jit
def _moved(
    gradient: tl.tensor, rate: tl.tensor, mean: tl.tensor, square: tl.tensor, new_mean: tl.tensor, new_square: tl.tensor,
    settings: tl.tensor, at: tl.tensor, valid: tl.tensor,
) -> tl.tensor:  # fmt: skip
    """How far Adam moves a variable; its moments are written."""
    beta1, beta2 = tl.load(settings + _BETA1), tl.load(settings + _BETA2)
    m = beta1 * tl.load(mean + at, valid, 0.0) + (1 - beta1) * gradient
    s = beta2 * tl.load(square + at, valid, 0.0) + (1 - beta2) * gradient * gradient
    tl.store(new_mean + at, m.to(tl.float32), valid)
    tl.store(new_square + at, s.to(tl.float32), valid)
    return rate * m / (tl.sqrt(s / tl.load(settings + _BIAS2)) + tl.load(settings + _EPSILON))


@triton.jit(do_not_specialize=["count"])
def step(
    xy: tl.tensor, raw: tl.tensor, mean: tl.tensor, square: tl.tensor,
    new_xy: tl.tensor, new_raw: tl.tensor, new_mean: tl.tensor, new_square: tl.tensor,
    gaussians: tl.tensor, moments: tl.tensor, settings: tl.tensor, count: tl.tensor,
    channels: tl.constexpr, wide: tl.constexpr, paper: tl.constexpr, own: tl.constexpr,
) -> None:  # fmt: skip
    """From moments to gradients, as :func:`.records.chain`, and one Adam step, as ``optimizer.py`` takes it; in float64."""
    i = tl.program_id(0) * _LANES + tl.arange(0, _LANES).to(tl.int64)
    valid = i < count
    pitch, box = tl.load(settings + _PITCH), tl.load(settings + _BOX)
    variable, moved = raw + i * (3 + channels), i * (5 + channels)
    raw_x, raw_y = tl.load(variable, valid, 1.0).to(tl.float64), tl.load(variable + 1, valid, 1.0).to(tl.float64)
    turn = tl.load(variable + 2, valid, 0.0).to(tl.float64)
    if paper:
        sx, sy = tl.maximum(tl.abs(raw_x), _MIN_SCALE), tl.maximum(tl.abs(raw_y), _MIN_SCALE)
        turns = 1 / (1 + tl.exp(-turn))
        angle = _TURN * turns - _TURN / 2
    else:
        sx, sy = tl.exp(raw_x), tl.exp(raw_y)
        angle = turn
    cos, sin = tl.cos(angle), tl.sin(angle)

    record, moment = gaussians + i * _RECORD, moments + i * wide
    a, k, d = tl.load(record + _A, valid, 1.0), tl.load(record + _K, valid, 0.0), tl.load(record + _D, valid, 1.0)
    su, suu = tl.load(moment, valid, 0.0).to(tl.float64), tl.load(moment + 1, valid, 0.0).to(tl.float64)
    sy_, syy = tl.load(moment + 2, valid, 0.0).to(tl.float64), tl.load(moment + 3, valid, 0.0).to(tl.float64)
    suy = tl.load(moment + 4, valid, 0.0).to(tl.float64)
    d_a, d_k, d_d = -0.5 * suu, -a * suy, -0.5 * syy
    d_x, d_y = a * su / pitch, (a * k * su + d * sy_) / pitch
    p2 = pitch * pitch
    vx, vy = (sx * sx + box) / p2, (sy * sy + box) / p2
    ix, iy = 1 / vx, 1 / vy
    aa, both = a * a, cos * sin
    d_ix = d_a * cos * cos + d_k * both * iy / aa + d_d * iy * iy * sin * sin / aa
    d_iy = d_a * sin * sin - d_k * both * ix / aa + d_d * ix * ix * cos * cos / aa
    d_angle = -2 * k * a * d_a + d_k * ((cos * cos - sin * sin) * (ix - iy) / a + 2 * k * k) + d_d * 2 * k * d
    amplitude = sx * sy / (tl.sqrt(vx * vy) * p2)
    d_amplitude, energy = tl.zeros_like(sx), tl.zeros_like(sx)
    for channel in tl.static_range(channels):
        color = tl.load(variable + 3 + channel, valid, 0.0).to(tl.float64)
        d_amplitude += tl.load(moment + 5 + channel, valid, 0.0) * color * _PEAK
        energy += color * color
    d_sx = -2 * sx / p2 * ix * ix * d_ix + d_amplitude * amplitude * (1 / sx - sx / (p2 * vx))
    d_sy = -2 * sy / p2 * iy * iy * d_iy + d_amplitude * amplitude * (1 / sy - sy / (p2 * vy))

    # The rate's derivative by the logarithm of the energy: half a number of nats.
    area = sx * sy
    slope = 0.5 * tl.load(settings + _STRENGTH) * area / (tl.load(settings + _STEP_ENERGY) + energy * area)
    d_sx += slope * energy / sx
    d_sy += slope * energy / sy
    if paper:
        d_sx, d_sy = tl.where(raw_x >= 0, d_sx, -d_sx), tl.where(raw_y >= 0, d_sy, -d_sy)
        d_angle *= _TURN * turns * (1 - turns)
    else:
        d_sx, d_sy = d_sx * sx, d_sy * sy
    if own:
        d_x, d_y = (cos * d_x + sin * d_y) * sx, (cos * d_y - sin * d_x) * sy
    move_x = _moved(d_x, tl.load(settings), mean, square, new_mean, new_square, settings, moved, valid)
    move_y = _moved(d_y, tl.load(settings + 1), mean, square, new_mean, new_square, settings, moved + 1, valid)
    rate = tl.load(settings + 2)
    move_sx = _moved(d_sx, rate, mean, square, new_mean, new_square, settings, moved + 2, valid)
    move_sy = _moved(d_sy, rate, mean, square, new_mean, new_square, settings, moved + 3, valid)
    move_turn = _moved(d_angle, tl.load(settings + 3), mean, square, new_mean, new_square, settings, moved + 4, valid)
    if own:
        move_x, move_y = move_x * sx, move_y * sy
        move_x, move_y = cos * move_x - sin * move_y, sin * move_x + cos * move_y
    tl.store(new_xy + 2 * i, tl.load(xy + 2 * i, valid, 0.0) - move_x, valid)
    tl.store(new_xy + 2 * i + 1, tl.load(xy + 2 * i + 1, valid, 0.0) - move_y, valid)
    low, high = tl.load(settings + _LOW), tl.load(settings + _HIGH)
    out = new_raw + i * (3 + channels)
    tl.store(out, tl.minimum(tl.maximum(raw_x - move_sx, low), high).to(tl.float32), valid)
    tl.store(out + 1, tl.minimum(tl.maximum(raw_y - move_sy, low), high).to(tl.float32), valid)
    tl.store(out + 2, (turn - move_turn).to(tl.float32), valid)
    gain = amplitude * _PEAK
    for channel in tl.static_range(channels):
        color = tl.load(variable + 3 + channel, valid, 0.0).to(tl.float64)
        d_color = tl.load(moment + 5 + channel, valid, 0.0) * gain + 2 * slope * color
        move = _moved(
            d_color, tl.load(settings + 4), mean, square, new_mean, new_square, settings, moved + 5 + channel, valid
        )
        tl.store(out + 3 + channel, (color - move).to(tl.float32), valid)
