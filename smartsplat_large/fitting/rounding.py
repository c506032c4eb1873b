"""Round overlapping Gaussians jointly: each to the symbols that serve what the others leave best.

Under sum blending the squared error is a quadratic form in all colours. Plain rounding treats it as if it were diagonal;
here each Gaussian in turn takes the geometry, of a few variants, and the integer colours that minimise squared error
plus ``price`` times bits, given all others as they are rounded now: its neighbours make up for what it had to give up.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit, uintp

from smartsplat_large import simd
from smartsplat_large.codec.contexts import chroma1_context, chroma2_context
from smartsplat_large.gaussians import CUTOFF
from smartsplat_large.render.strips import exp2

_FLOOR = np.float32(math.exp(-CUTOFF))
_PEAK = np.float32(1 / (1 - math.exp(-CUTOFF)))
_LOG2_E = math.log2(math.e)


@njit(cache=True, nogil=True, error_model="numpy")
def round_gaussians(
    xy: Any, scale: Any, rotation: Any, gain: Any, octave: Any, fixed_bits: Any, color: Any, chosen: Any, residual: Any,
    origin: Any, bits: Any, price: float,
) -> None:  # fmt: skip
    """Update ``color``, ``chosen`` and ``residual`` in place, one Gaussian after the other.

    Parameters
    ----------
    xy, scale, rotation
        Geometry as it would be decoded, ``(v, n, ...)``: variants of each Gaussian, the first as it is now.
    gain
        What a colour of 1 adds at the peak of each variant, before the kernel's floor is taken off.
    octave
        At most 15, by variant: the context of luma and alpha, and part of that of chromas.
    fixed_bits
        What each variant costs beside its colour; a colour of zero saves it.
    color
        Integers ``(n, c)``.
    chosen
        ``(n,)``: the variant taken.
    residual
        Target less all Gaussians as they are now, float32 ``(c, h, w + 8)``, in the coded components. The last eight
        columns only make room for vectors that reach past the edge.
    origin
        ``x, y`` of the first pixel of ``residual``.
    bits
        ``(c, contexts, 2 m + 1)``: cost of the values -m to m.
    price
        Squared error that a bit is worth.
    """
    channels = residual.shape[0]
    size = (residual.shape[1], residual.shape[2] - simd.LANES)
    product, trial, best = np.empty(channels), np.empty(channels, np.int64), np.empty(channels, np.int64)
    for i in range(len(color)):
        _add(residual, size, _shape(xy[0, i], scale[0, i], rotation[0, i], origin, size[0]), color[i], gain[0, i])
        # What shows nothing has no shape to improve.
        variants = len(xy) if np.any(color[i]) else 1
        lowest, taken = np.inf, 0
        for v in range(variants):
            shape = _shape(xy[v, i], scale[v, i], rotation[v, i], origin, size[0])
            energy = _correlate(residual, size, shape, product)
            if energy <= 0:
                continue
            for ch in range(channels):
                product[ch] /= energy * gain[v, i]
            weight = energy * gain[v, i] * gain[v, i]
            cost = _choose(product, weight, octave[v, i], bits, price, fixed_bits[v, i], trial)
            if cost < lowest:
                lowest, taken = cost, v
                best[:] = trial
        if lowest < np.inf:
            color[i] = best
        chosen[i] = taken
        shape = _shape(xy[taken, i], scale[taken, i], rotation[taken, i], origin, size[0])
        _add(residual, size, shape, color[i], -gain[taken, i])


@njit(inline="always", error_model="numpy")
def _shape(xy: Any, scale: Any, rotation: float, origin: Any, height: int) -> Any:
    """Centre, conic ``(A, k, D)`` in Cholesky form, and first and last row of a Gaussian in the residual."""
    sx, sy = np.float64(scale[0]), np.float64(scale[1])
    c, s = math.cos(rotation), math.sin(rotation)
    a = c * c / (sx * sx) + s * s / (sy * sy)
    d = 1 / (sx * sx * sy * sy * a)
    k = c * s * (1 / (sx * sx) - 1 / (sy * sy)) / a
    mx, my = xy[0] - origin[0] - 0.5, xy[1] - origin[1] - 0.5
    reach = math.sqrt(2 * CUTOFF / d)
    top, bottom = int(max(math.ceil(my - reach), 0)), int(min(math.floor(my + reach), height - 1.0))
    return mx, my, a, k, d, top, bottom


@njit(inline="always", error_model="numpy")
def _row(shape: Any, y: int, width: int) -> Any:
    """Centre, exponent at the centre, and first and last pixel of a Gaussian's row."""
    mx, my, a, k, d, _, _ = shape
    dy = y - my
    start = 0.5 * d * dy * dy
    center, half = mx - k * dy, math.sqrt(max(CUTOFF - start, 0.0) * 2 / a)
    return center, start, int(max(math.ceil(center - half), 0)), int(min(math.floor(center + half), width - 1.0))


@njit(inline="always", error_model="numpy")
def _kernel(u: Any, bend: Any, start: Any) -> Any:
    """The kernel of eight pixels; zero beyond the cut-off."""
    full = exp2(simd.fma(simd.mul(u, u), bend, start))
    return simd.maximum(simd.mul(simd.sub(full, simd.splat(_FLOOR)), simd.splat(_PEAK)), simd.splat(np.float32(0)))


@njit(cache=True, nogil=True, error_model="numpy")
def _correlate(residual: Any, size: Any, shape: Any, product: Any) -> Any:
    """Set ``product`` to the products of a Gaussian's kernel by the residual's channels; returns its energy."""
    channels, width = residual.shape[0], size[1]
    plane, pitch = residual.shape[1] * residual.shape[2], residual.shape[2]
    flat = residual.reshape(-1)
    zero = simd.splat(np.float32(0))
    energy, p0, p1, p2, p3 = zero, zero, zero, zero, zero
    bend = simd.splat(np.float32(-0.5 * _LOG2_E * shape[2]))
    for y in range(shape[5], shape[6] + 1):
        center, start, first, last = _row(shape, y, width)
        edge = simd.splat(np.float32(-_LOG2_E * start))
        for x in range(first, last + 1, simd.LANES):
            u = simd.add(simd.ramp(), simd.splat(np.float32(x - center)))
            g = _kernel(u, bend, edge)
            if x + simd.LANES > width:
                g = simd.where_above(simd.splat(np.float32(width - x)), simd.ramp(), g)
            at = uintp(y * pitch + x)
            energy = simd.fma(g, g, energy)
            p0 = simd.fma(g, simd.load(flat, at), p0)
            if channels > 1:
                p1 = simd.fma(g, simd.load(flat, at + uintp(plane)), p1)
            if channels > 2:
                p2 = simd.fma(g, simd.load(flat, at + uintp(2 * plane)), p2)
            if channels > 3:
                p3 = simd.fma(g, simd.load(flat, at + uintp(3 * plane)), p3)
    product[0] = simd.horizontal_sum(p0)
    if channels > 1:
        product[1] = simd.horizontal_sum(p1)
    if channels > 2:
        product[2] = simd.horizontal_sum(p2)
    if channels > 3:
        product[3] = simd.horizontal_sum(p3)
    return float(simd.horizontal_sum(energy))


@njit(cache=True, nogil=True, error_model="numpy")
def _add(residual: Any, size: Any, shape: Any, color: Any, gain: float) -> None:
    """Add a Gaussian of peak ``color`` times ``gain`` to the residual."""
    plane, pitch = residual.shape[1] * residual.shape[2], residual.shape[2]
    flat = residual.reshape(-1)
    bend = simd.splat(np.float32(-0.5 * _LOG2_E * shape[2]))
    for y in range(shape[5], shape[6] + 1):
        center, start, first, last = _row(shape, y, size[1])
        edge = simd.splat(np.float32(-_LOG2_E * start))
        for x in range(first, last + 1, simd.LANES):
            g = _kernel(simd.add(simd.ramp(), simd.splat(np.float32(x - center))), bend, edge)
            for ch in range(len(color)):
                at = uintp(ch * plane + y * pitch + x)
                change = simd.splat(np.float32(color[ch] * gain))
                simd.store(flat, at, simd.fma(g, change, simd.load(flat, at)))


@njit(cache=True, nogil=True, error_model="numpy")
def _choose(
    wanted: Any, weight: float, octave: int, bits: Any, price: float, fixed_bits: float, best: Any
) -> Any:  # fmt: skip
    """The integers of least cost near ``wanted``: its two neighbours in every component, one further in, and zero.

    Returns their cost less that of the patch not being there.
    """
    channels = len(wanted)
    trial = np.empty(channels, np.int64)
    absent = 0.0
    for ch in range(channels):
        absent += weight * wanted[ch] * wanted[ch]
        best[ch] = 0
    lowest = absent
    center = math.floor(wanted[0])
    inward = -1 if center >= 0 else 2
    for option in (0, 1, inward):
        trial[0] = center + option
        cost = price * fixed_bits + _cost(wanted[0], trial[0], weight, bits[0], octave, price)
        for ch in range(1, channels):
            context, sign = octave, 1
            if channels > 2 and ch < 3:
                context = chroma1_context(octave, trial[0]) if ch == 1 else chroma2_context(octave, trial[1])
                sign = -1 if trial[0] < 0 else 1
            low = math.floor(wanted[ch])
            least = math.inf
            for value in (low, low + 1, 0):
                found = _cost(sign * wanted[ch], sign * value, weight, bits[ch], context, price)
                if found < least:
                    least, trial[ch] = found, value
            cost += least
        if cost < lowest and np.any(trial):
            lowest = cost
            best[:] = trial
    return lowest - absent


@njit(inline="always", error_model="numpy")
def _cost(wanted: float, value: int, weight: float, bits: Any, context: int, price: float) -> Any:
    middle = bits.shape[1] // 2
    error = wanted - value
    if abs(value) <= middle:
        rate = np.float64(bits[context, middle + value])
    else:
        rate = bits[context, 2 * middle if value > 0 else 0] + 2 * math.log2(abs(value) / middle)
    return weight * error * error + price * rate
