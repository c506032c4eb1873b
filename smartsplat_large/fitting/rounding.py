"""Round overlapping Gaussians jointly: each to the symbols that serve what the others leave best.

Under sum blending the squared error is a quadratic form in all colours. Plain rounding treats it as if it were diagonal;
here each Gaussian in turn takes the geometry, of a few variants, and the integer colours that minimise squared error
plus ``price`` times bits, given all others as they are rounded now: its neighbours make up for what it had to give up.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from smartsplat_large.gaussians import CUTOFF

_FLOOR = math.exp(-CUTOFF)
_PEAK = 1 / (1 - _FLOOR)


_MATH = {"reassoc", "contract", "nsz"}


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_MATH)
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
        Context of the first component, by variant.
    fixed_bits
        What each variant costs beside its colour; a colour of zero saves it.
    color
        Integers ``(n, c)``.
    chosen
        ``(n,)``: the variant taken.
    residual
        Target less all Gaussians as they are now, float32 ``(c, h, w)``, in the coded components.
    origin
        ``x, y`` of the first pixel of ``residual``.
    bits
        ``(c, contexts, 2 m + 1)``: cost of the values -m to m.
    price
        Squared error that a bit is worth.
    """
    channels, height, width = residual.shape
    patch = np.empty(height * width, np.float32)
    first, last = np.empty(height, np.int64), np.empty(height, np.int64)
    product, trial, best = np.empty(channels), np.empty(channels, np.int64), np.empty(channels, np.int64)
    for i in range(len(color)):
        rows = _draw(residual, patch, first, last, xy[0, i], scale[0, i], rotation[0, i], origin)
        _add(residual, patch, first, last, rows, color[i], gain[0, i])
        # What shows nothing has no shape to improve.
        variants = len(xy) if np.any(color[i]) else 1
        lowest, taken = np.inf, 0
        for v in range(variants):
            if v > 0:
                rows = _draw(residual, patch, first, last, xy[v, i], scale[v, i], rotation[v, i], origin)
            energy = _correlate(residual, patch, first, last, rows, product)
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
        if taken != variants - 1:
            rows = _draw(residual, patch, first, last, xy[taken, i], scale[taken, i], rotation[taken, i], origin)
        _add(residual, patch, first, last, rows, color[i], -gain[taken, i])


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_MATH)
def _draw(
    residual: Any, patch: Any, first: Any, last: Any, xy: Any, scale: Any, rotation: float, origin: Any
) -> Any:  # fmt: skip
    """Fill ``patch`` with the kernel, row after row from column ``first`` to ``last``; returns its first and last row."""
    _, height, width = residual.shape
    sx, sy = np.float64(scale[0]), np.float64(scale[1])
    c, s = math.cos(rotation), math.sin(rotation)
    a = c * c / (sx * sx) + s * s / (sy * sy)
    d = 1 / (sx * sx * sy * sy * a)
    k = c * s * (1 / (sx * sx) - 1 / (sy * sy)) / a
    mx, my = xy[0] - origin[0] - 0.5, xy[1] - origin[1] - 0.5
    reach = math.sqrt(2 * CUTOFF / d)
    top, bottom = int(max(math.ceil(my - reach), 0)), int(min(math.floor(my + reach), height - 1.0))
    at = 0
    # exp(-a u^2 / 2) along a row by two multiplications a pixel: its ratio is itself a geometric series.
    fall = math.exp(-a)
    for y in range(top, bottom + 1):
        dy = y - my
        start = 0.5 * d * dy * dy
        center, half = mx - k * dy, math.sqrt(max(CUTOFF - start, 0.0) * 2 / a)
        first[y], last[y] = int(max(math.ceil(center - half), 0)), int(min(math.floor(center + half), width - 1.0))
        u = first[y] - center
        g, ratio = math.exp(-start - 0.5 * a * u * u), math.exp(-a * (u + 0.5))
        for _ in range(first[y], last[y] + 1):
            patch[at] = np.float32(max(g - _FLOOR, 0.0) * _PEAK)
            g *= ratio
            ratio *= fall
            at += 1
    return top, bottom


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_MATH)
def _correlate(residual: Any, patch: Any, first: Any, last: Any, rows: Any, product: Any) -> Any:
    """Set ``product`` to the patch's products by the residual; returns its energy."""
    product[:] = 0
    energy, at = 0.0, 0
    for y in range(rows[0], rows[1] + 1):
        length = max(last[y] - first[y] + 1, 0)
        row = patch[at : at + length]
        at += length
        squared = np.float32(0)
        for x in range(length):
            squared += row[x] * row[x]
        energy += float(squared)
        for ch in range(len(residual)):
            line = residual[ch, y, first[y] : first[y] + length]
            along = np.float32(0)
            for x in range(length):
                along += row[x] * line[x]
            product[ch] += along
    return energy


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_MATH)
def _add(residual: Any, patch: Any, first: Any, last: Any, rows: Any, color: Any, gain: float) -> None:
    """Add the patch, times ``color`` and ``gain``, to the residual."""
    for ch in range(len(residual)):
        change = np.float32(color[ch] * gain)
        if change == 0:
            continue
        at = 0
        for y in range(rows[0], rows[1] + 1):
            length = max(last[y] - first[y] + 1, 0)
            line, row = residual[ch, y, first[y] : first[y] + length], patch[at : at + length]
            for x in range(length):
                line[x] += change * row[x]
            at += length


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
        cost = price * fixed_bits + _cost(wanted[0], trial[0], weight, bits[0], min(octave, 15), price)
        context = 0
        magnitude = abs(trial[0])
        while magnitude:
            magnitude >>= 1
            context += 1
        for ch in range(1, channels):
            low = math.floor(wanted[ch])
            least = math.inf
            for value in (low, low + 1, 0):
                found = _cost(wanted[ch], value, weight, bits[ch], min(context, 15), price)
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
