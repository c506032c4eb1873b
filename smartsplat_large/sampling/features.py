"""Where an image has detail: gradient and colour variance of one tile, SmartSplat eqs. 9, 10, 30, 31."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32
from numba import njit

from smartsplat_large.array_types import Pixels

HALO = 2
"""Pixels around a tile that its features look at: the reach of the 5 x 5 variance."""

EPSILON = 1e-8
"""eps of eq. 31, on pixel values in [0, 1]."""

Plane = Float32[np.ndarray, "h w"]


def feature_maps(pixels_with_halo: Pixels) -> tuple[Plane, Plane, float, float]:
    """Gradient magnitude and colour variance of one tile, not normalised, and their maxima.

    Parameters
    ----------
    pixels_with_halo
        ``(h + 4, w + 4, c)``, C-contiguous; values are taken as shares of the dtype's largest. All channels count
        alike, alpha too: transparency has edges that must be kept as much as those of colour.

    Returns
    -------
    tuple
        ``g (h, w)``, ``v (h, w)``, ``max g``, ``max v``. SmartSplat eqs. 9 and 30: ``g`` is the length of the 3 x 3
        Sobel gradient of the channel mean, ``v`` the variance over 5 x 5 pixels (divided by 25), averaged over
        channels. Both are exact up to the last rounding to float32.
    """
    rows, columns, _ = pixels_with_halo.shape
    g = np.empty((rows - 2 * HALO, columns - 2 * HALO), np.float32)
    v = np.empty_like(g)
    # Values are moved to be symmetric about 0. Then float32 holds every sum and square of 8 bits exactly, and
    # float64 those of 16 bits, so running sums neither drift nor cancel.
    wide = np.float32 if pixels_with_halo.dtype == np.uint8 else np.float64
    largest = np.iinfo(pixels_with_halo.dtype).max
    g_max, v_max = _feature_maps(pixels_with_halo, wide(largest // 2 + 1), wide(1 / largest), g, v)
    return g, v, float(g_max), float(v_max)


def feature_weights(pixels_with_halo: Pixels, gradient_weight: float = 0.9) -> Plane:
    """Weight ``w`` of each pixel of one tile, in [0, 1]; SmartSplat eqs. 9, 10, 30, 31.

    ``w = lambda g / (max g + eps) + (1 - lambda) v / (max v + eps)`` with the maxima over the tile, so it is 0
    everywhere on a tile of one colour. ``pixels_with_halo`` is that of :func:`feature_maps`.
    """
    g, v, g_max, v_max = feature_maps(pixels_with_halo)
    g *= np.float32(gradient_weight / (g_max + EPSILON))
    v *= np.float32((1 - gradient_weight) / (v_max + EPSILON))
    g += v
    return g


@njit(cache=True, nogil=True, error_model="numpy")
def _load_row(pixels, y, offset, row):  # type: ignore[no-untyped-def]  # numba
    """Row ``y`` of ``pixels`` as centred numbers, one line per channel."""
    channels, width = row.shape
    for k in range(channels):
        for x in range(width):
            row[k, x] = pixels[y, x, k] - offset


@njit(cache=True, nogil=True, error_model="numpy")
def _slide(sums, squares, old, new):  # type: ignore[no-untyped-def]
    """Move the sums over five rows down by one row: add ``new``, take ``old`` away."""
    channels, width = sums.shape
    for k in range(channels):
        for x in range(width):
            a, b = new[k, x], old[k, x]
            sums[k, x] += a - b
            squares[k, x] += a * a - b * b


@njit(cache=True, nogil=True, error_model="numpy")
def _variance_row(sums, squares, scale, out):  # type: ignore[no-untyped-def]
    """Variance over 5 x 5 summed over channels, times ``scale``; returns the row's maximum."""
    channels, width = sums.shape[0], out.shape[0]
    for x in range(width):
        out[x] = 0
    n = sums.dtype.type(25)
    for k in range(channels):
        s, q = sums[k], squares[k]
        for x in range(width):
            total = s[x] + s[x + 1] + s[x + 2] + s[x + 3] + s[x + 4]
            square = q[x] + q[x + 1] + q[x + 2] + q[x + 3] + q[x + 4]
            out[x] += (n * square - total * total) * scale
    largest = out[0]
    for x in range(width):
        largest = max(largest, out[x])
    return largest


@njit(cache=True, nogil=True, error_model="numpy")
def _sobel_row(above, middle, below, scale, out):  # type: ignore[no-untyped-def]
    """Length of the Sobel gradient of the middle of three rows, times ``scale``; returns the row's maximum."""
    width = out.shape[0]
    for x in range(width):
        left = above[x + 1] + middle[x + 1] + middle[x + 1] + below[x + 1]
        right = above[x + 3] + middle[x + 3] + middle[x + 3] + below[x + 3]
        top = above[x + 1] + above[x + 2] + above[x + 2] + above[x + 3]
        bottom = below[x + 1] + below[x + 2] + below[x + 2] + below[x + 3]
        across, down = right - left, bottom - top
        out[x] = np.sqrt(across * across + down * down) * scale
    largest = out[0]
    for x in range(width):
        largest = max(largest, out[x])
    return largest


@njit(cache=True, nogil=True, error_model="numpy")
def _feature_maps(pixels, offset, scale, g, v):  # type: ignore[no-untyped-def]
    """Fill ``g`` and ``v`` row by row from the last five rows of ``pixels``; returns both maxima."""
    rows, width, channels = pixels.shape
    dtype = type(offset)
    ring = np.zeros((5, channels, width), dtype)
    gray = np.zeros((5, width), dtype)
    sums = np.zeros((channels, width), dtype)
    squares = np.zeros((channels, width), dtype)
    new = np.empty((channels, width), dtype)
    g_scale = scale / dtype(channels)
    v_scale = scale * scale / dtype(625 * channels)
    g_max, v_max = np.float32(0), np.float32(0)
    for y in range(rows):
        slot = y % 5
        _load_row(pixels, y, offset, new)
        _slide(sums, squares, ring[slot], new)
        ring[slot] = new
        gray[slot] = 0
        for k in range(channels):
            gray[slot] += new[k]
        if y >= 4:
            v_max = max(v_max, _variance_row(sums, squares, v_scale, v[y - 4]))
            middle = (y - 2) % 5
            g_max = max(g_max, _sobel_row(gray[(y - 3) % 5], gray[middle], gray[(y - 1) % 5], g_scale, g[y - 4]))
    return g_max, v_max
