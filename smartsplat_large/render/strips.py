"""A Gaussian in a raster tile, as strips: columns eight pixels wide, walked from the top down.

Down a strip the exponent is a parabola in the row, so the kernel follows from its predecessor by two multiplications:

    G(y + 1) = G(y) V(y),    V(y + 1) = V(y) W,    W = exp(-C)

with ``C`` the conic's vertical term. An exponential is needed only at the top of a strip. What is carried is V - 1: where
a Gaussian is large, V and W are close to 1, and their rounding would grow with the square of the rows.

Strips begin at rows that depend on the Gaussian and the tile alone: a pixel's bits do not depend on the window.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, uintp

from smartsplat_large import simd
from smartsplat_large.gaussians import CUTOFF
from smartsplat_large.render.records import (
    FLOOR,
    PEAK,
    PER_C,
    REACH_X,
    REACH_Y,
    RIM,
    SHEAR,
    SLOPE,
    TILE_HEIGHT,
    TILE_WIDTH,
    A,
    D,
    K,
)

STRIPS = TILE_WIDTH // simd.LANES
SHIFT = 3  # log2 of simd.LANES

BIAS = 57
"""The kernel is carried times ``2**BIAS``: its outermost lanes, far below the cut-off, must not vanish, or a slanted
Gaussian that reaches them some rows later would find zeros."""
BIASED_FLOOR = np.float32((FLOOR + 1e-8) * 2.0**BIAS)
"""What is subtracted; a hair above, so that the kernel is exactly zero beyond the cut-off."""
UNBIAS = 2.0**-BIAS
MAX_A, MAX_C = 3.1, 16.0
"""Conic terms up to which a run cannot leave the range of float32: a lane is at most seven pixels from the ellipse, so
``sqrt(2 e) <= sqrt(2 CUTOFF) + 7 sqrt(A)``, and ``exp(-e)`` is at least ``2**-182``. Beyond, widths below 0.57 pixels,
every row takes an exponential of its own."""
_HAIR = np.float32(0.01)
_SQUARED_REACH = 2 * CUTOFF

# (2**f - 1) / f on [-1/2, 1/2], fitted at Chebyshev nodes: relative error of 2**f 1e-7.
_NODES = np.cos((np.arange(64) + 0.5) * np.pi / 64) / 2
_P1, _P2, _P3, _P4, _P5 = (
    np.float32(c) for c in np.polynomial.Polynomial.fit(_NODES, np.expm1(_NODES * np.log(2)) / _NODES, 4).convert().coef
)
_LOG2_E = float(np.log2(np.e))
_TINY = np.float32(-120.0)
_LOWEST = np.float32(-180.0)


@njit(inline="always", error_model="numpy")
def _exp2_parts(high: Any, low: Any) -> Any:
    """``2**(high + low) = (1 + part) 2**n``: the part, and n added to the magic number."""
    magic = simd.splat(simd.MAGIC)
    shifted = simd.add(simd.add(high, low), magic)
    f = simd.add(simd.sub(high, simd.sub(shifted, magic)), low)
    p = simd.fma(f, simd.splat(_P5), simd.splat(_P4))
    p = simd.fma(f, p, simd.splat(_P3))
    p = simd.fma(f, p, simd.splat(_P2))
    return simd.mul(f, simd.fma(f, p, simd.splat(_P1))), shifted


@njit(inline="always", error_model="numpy")
def _biased_exp2(high: Any, low: Any) -> Any:
    """``2**(high + low + BIAS)``; the bias is whole and costs no precision, nor does ``high`` where it is exact."""
    part, shifted = _exp2_parts(high, low)
    return simd.times_power_of_two(
        simd.add(part, simd.splat(np.float32(1))), simd.add(shifted, simd.splat(np.float32(BIAS)))
    )


@njit(inline="always", error_model="numpy")
def exp2(x: Any) -> Any:
    """``2**x`` in eight lanes, to 1e-7 relative near 0; below -120 it is ``2**-120``."""
    part, shifted = _exp2_parts(simd.maximum(x, simd.splat(_TINY)), simd.splat(np.float32(0)))
    return simd.times_power_of_two(simd.add(part, simd.splat(np.float32(1))), shifted)


@njit(inline="always", error_model="numpy")
def _on_grid(x: float) -> Any:
    """``x`` as a multiple of 1/16, which float32 holds exactly in all that is made of it, and the rest."""
    high = np.rint(x * 16) / 16
    return simd.splat(np.float32(high)), simd.splat(np.float32(x - high))


@njit(inline="always", error_model="numpy")
def _exp2_minus_one(high: Any, low: Any) -> Any:
    """``2**(high + low) - 1``, as precise for a sum near 0."""
    part, shifted = _exp2_parts(high, low)
    one = simd.splat(np.float32(1))
    power = simd.times_power_of_two(one, shifted)
    return simd.fma(part, power, simd.sub(power, one))


@njit(inline="always", error_model="numpy")
def strip_range(record: Any, mx: float, left: int, right: int) -> Any:
    """First strip, and one past the last, that a Gaussian reaches within the columns ``[left, right]``."""
    first = max(float(left), mx - record[REACH_X])
    last = min(float(right), mx + record[REACH_X])
    if last < 0 or first > last:
        return 0, 0
    return int(first) >> SHIFT, (int(last) >> SHIFT) + 1


@njit(inline="always", error_model="numpy")
def spans(record: Any, mx: float, my: float, firsts: Any, ends: Any) -> None:
    """First row, and one past the last, of each strip of the tile that a Gaussian at ``(mx, my)`` touches.

    A strip's part of the ellipse is highest where the ellipse is, or else at the strip's edge nearest to that.
    """
    slope, per_c = simd.splat(np.float32(record[SLOPE])), simd.splat(np.float32(record[PER_C]))
    rim, reach2 = simd.splat(np.float32(-record[RIM])), simd.splat(np.float32(_SQUARED_REACH))
    zero, hair = simd.splat(np.float32(0)), simd.splat(_HAIR)
    left = simd.fma(simd.ramp(), simd.splat(np.float32(simd.LANES)), simd.splat(np.float32(-mx)))
    right = simd.add(left, simd.splat(np.float32(simd.LANES - 1)))
    # Cutting rounds towards zero: shifted by one, a ceiling and a floor are both made of it.
    center = simd.splat(np.float32(my + 1))
    peak = np.float32(record[K] * record[REACH_Y])
    x = simd.maximum(simd.minimum(simd.splat(peak), right), left)
    half = simd.sqrt(simd.mul(simd.maximum(simd.fma(simd.mul(x, x), rim, reach2), zero), per_c))
    top = simd.sub(simd.fma(x, slope, center), simd.add(half, hair))
    x = simd.maximum(simd.minimum(simd.splat(-peak), right), left)
    half = simd.sqrt(simd.mul(simd.maximum(simd.fma(simd.mul(x, x), rim, reach2), zero), per_c))
    bottom = simd.add(simd.fma(x, slope, center), simd.add(half, hair))
    height = simd.splat(np.float32(TILE_HEIGHT))
    simd.store_ints(firsts, uintp(0), simd.minimum(simd.maximum(top, zero), height))
    simd.store_ints(ends, uintp(0), simd.minimum(simd.maximum(bottom, zero), height))


@njit(inline="always", error_model="numpy")
def is_smooth(record: Any) -> bool:
    """Whether a strip by recurrence stays within float32."""
    return bool(record[A] <= MAX_A and record[PER_C] * MAX_C >= 1)


@njit(inline="always", error_model="numpy")
def starts(record: Any, mx: float, my: float, strips: Any, firsts: Any, g: Any, v: Any) -> None:
    """G and V - 1 of the first row of each strip in the range ``strips``, eight pixels each. Only for smooth Gaussians.

    In Cholesky form: ``e = (A u^2 + D y^2) / 2`` with ``u = x + k y``. Over the lanes it is a parabola whose coefficients
    are computed in float64 and split into an exact part and a small rest: far below the cut-off, where a lane may begin,
    float32 would lose digits that are wanted when the walk comes to the ridge.

    A loop of its own, because the way from a row's number to its kernel is long: here the strips overlap in the
    processor, while a walk down a strip ends in a branch that it cannot foresee.
    """
    a, k, half_d, shear = record[A], record[K], 0.5 * record[D], record[SHEAR]
    step = -0.5 * shear * k - half_d
    ramp = simd.ramp()
    bend_high, bend_low = _on_grid(-0.5 * _LOG2_E * a)
    bend_high, bend_low = simd.mul(simd.mul(ramp, ramp), bend_high), simd.mul(simd.mul(ramp, ramp), bend_low)
    fall_high, fall_low = _on_grid(-_LOG2_E * shear)
    for j in range(strips[0], strips[1]):
        at = uintp(j << SHIFT)
        y = firsts[uintp(j)] - my
        u = (j << SHIFT) - mx + k * y
        edge_high, edge_low = _on_grid(-_LOG2_E * (0.5 * a * u * u + half_d * y * y))
        tilt_high, tilt_low = _on_grid(-_LOG2_E * a * u)
        high = simd.fma(ramp, tilt_high, simd.add(bend_high, edge_high))
        low = simd.fma(ramp, tilt_low, simd.add(bend_low, edge_low))
        simd.store(g, at, _biased_exp2(high, low))
        edge_high, edge_low = _on_grid(_LOG2_E * (step - 2 * half_d * y - shear * u))
        simd.store(v, at, _exp2_minus_one(simd.fma(ramp, fall_high, edge_high), simd.fma(ramp, fall_low, edge_low)))


@njit(inline="always", error_model="numpy")
def exponential(record: Any, x: float, y: float) -> Any:
    """The biased kernel of eight pixels whose leftmost lies ``(x, y)`` from the centre; tiny far beyond the cut-off."""
    u = simd.add(simd.ramp(), simd.splat(np.float32(x + record[K] * y)))
    weight, edge = np.float32(-0.5 * _LOG2_E * record[A]), np.float32(-0.5 * _LOG2_E * record[D] * y * y)
    exponent = simd.fma(simd.mul(u, u), simd.splat(weight), simd.splat(edge))
    low = simd.maximum(exponent, simd.splat(_LOWEST))
    return _biased_exp2(low, simd.splat(np.float32(0)))


@njit(inline="always", error_model="numpy")
def splat_color(color: Any, channels: int) -> Any:
    """The channels of a colour, ready for the biased kernel; those beyond ``channels`` repeat the first, unused."""
    gain = PEAK * UNBIAS
    c0 = simd.splat(np.float32(color[0] * gain))
    c1, c2, c3 = c0, c0, c0
    if channels > 1:
        c1 = simd.splat(np.float32(color[1] * gain))
    if channels > 2:
        c2 = simd.splat(np.float32(color[2] * gain))
    if channels > 3:
        c3 = simd.splat(np.float32(color[3] * gain))
    return c0, c1, c2, c3
