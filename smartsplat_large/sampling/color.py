"""Colours as weighted medians of the pixels around each point, SmartSplat eqs. 18-20."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64
from numba import njit

from smartsplat_large.array_types import Color, PixelReader, Pixels, Xy
from smartsplat_large.lattice import Size, Window
from smartsplat_large.sampling.halo import read_with_halo

REACH = 64
"""Samples are taken at most this far from a point, in pixels, so that a tile need not read more around it."""

GRID = 9
"""Samples along each axis."""


def color_block(read: PixelReader, size: Size, block: Window, xy: Xy, radius: Float64[np.ndarray, " n"]) -> Color:
    """Colours, 1 is the brightest pixel value, of points that all lie in ``block``; reads it and what they reach, once.

    The same for any ``block`` around a point: it decides what is read together, not what is computed.
    """
    reach = min(float(radius.max()), REACH) if len(radius) else 0.0
    halo = math.ceil(reach) + 1
    pixels = read_with_halo(read, block, halo, size)
    origin = np.array([block.x - halo, block.y - halo])
    return median_colors(pixels, xy - origin, radius)


def median_colors(pixels: Pixels, xy: Xy, radius: Float64[np.ndarray, " n"]) -> Color:
    """Weighted median per channel around each point; SmartSplat eqs. 18-20.

    9 x 9 bilinear samples on a square grid from ``-radius`` to ``+radius`` along both axes, as the released program
    takes them, weighted ``exp(-d^2 / (2 radius^2))``; where ``radius`` exceeds :data:`REACH` the grid ends there and
    the weights are still those of ``radius``. The result is the least value that minimises ``sum w |sample - value|``.

    Parameters
    ----------
    pixels
        ``(h, w, c)``, C-contiguous. Samples beyond its border take the nearest pixel.
    xy, radius
        Positions in pixels of ``pixels``, centres at +0.5, and radii above 0.
    """
    colors = np.empty((len(xy), pixels.shape[2]), np.float32)
    steps = np.linspace(-1, 1, GRID)
    brightest = np.float32(1 / np.iinfo(pixels.dtype).max)
    _median_colors(pixels, xy, radius, float(REACH), steps, brightest, colors)
    return colors


@njit(cache=True, nogil=True, error_model="numpy")
def _sample_axis(center, steps, reach, length, low, high, share):  # type: ignore[no-untyped-def]  # numba
    """The two pixels each sample lies between along one axis, and its share of the second."""
    for i in range(steps.shape[0]):
        position = min(max(center + steps[i] * reach - 0.5, 0.0), length - 1.0)
        low[i] = int(position)
        high[i] = min(low[i] + 1, length - 1)
        share[i] = np.float32(position - low[i])


@njit(cache=True, nogil=True, error_model="numpy")
def _weighted_median(values, weights, bins, sums, few, few_weights):  # type: ignore[no-untyped-def]
    """The least of ``values`` up to which at least half of the sum of ``weights`` lies."""
    count, total = values.shape[0], np.float32(0)
    least, most = values[0], values[0]
    for i in range(count):
        least, most = min(least, values[i]), max(most, values[i])
        total += weights[i]
    if most <= least:
        return least
    # One pass finds the bin that holds the median, and only its few values are sorted.
    factor = np.float32(sums.shape[0] - 0.01) / (most - least)
    sums[:] = 0
    for i in range(count):
        bins[i] = int((values[i] - least) * factor)
        sums[bins[i]] += weights[i]
    before, chosen = np.float32(0), 0
    while chosen < sums.shape[0] - 1 and before + sums[chosen] < total / 2:
        before += sums[chosen]
        chosen += 1
    size = 0
    for i in range(count):
        if bins[i] == chosen:
            j = size
            while j > 0 and few[j - 1] > values[i]:
                few[j], few_weights[j] = few[j - 1], few_weights[j - 1]
                j -= 1
            few[j], few_weights[j] = values[i], weights[i]
            size += 1
    for j in range(size):
        before += few_weights[j]
        if before >= total / 2:
            return few[j]
    return few[size - 1]


@njit(cache=True, nogil=True, error_model="numpy")
def _median_colors(pixels, xy, radius, farthest, steps, brightest, colors):  # type: ignore[no-untyped-def]
    n = steps.shape[0]
    channels = pixels.shape[2]
    x0, x1, y0, y1 = np.empty((4, n), np.int64)
    fx, fy = np.empty((2, n), np.float32)
    values = np.empty((channels, n * n), np.float32)
    weights = np.empty(n * n, np.float32)
    bins, sums = np.empty(n * n, np.int64), np.empty(32, np.float32)
    few, few_weights = np.empty((2, n * n), np.float32)
    weighted_for = -1.0
    for p in range(xy.shape[0]):
        reach = min(radius[p], farthest)
        if reach / radius[p] != weighted_for:
            weighted_for = reach / radius[p]
            for i in range(n * n):
                square = (steps[i // n] ** 2 + steps[i % n] ** 2) * weighted_for**2
                weights[i] = np.exp(-square / 2)
        _sample_axis(xy[p, 0], steps, reach, pixels.shape[1], x0, x1, fx)
        _sample_axis(xy[p, 1], steps, reach, pixels.shape[0], y0, y1, fy)
        for i in range(n):
            for j in range(n):
                for k in range(channels):
                    a = np.float32(pixels[y0[i], x0[j], k])
                    b = np.float32(pixels[y0[i], x1[j], k])
                    c = np.float32(pixels[y1[i], x0[j], k])
                    d = np.float32(pixels[y1[i], x1[j], k])
                    top = a + (b - a) * fx[j]
                    values[k, i * n + j] = top + (c + (d - c) * fx[j] - top) * fy[i]
        for k in range(channels):
            median = _weighted_median(values[k], weights, bins, sums, few, few_weights)
            colors[p, k] = min(median * brightest, np.float32(1))
