"""Compiled kernels: SSIM of two planes summed over a rectangle, halving, squared error.

Every SSIM value is computed by the same float32 operations in the same order wherever the rectangle lies, and summed in
float64, so that a picture's score does not depend on how it was split.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64
from numba import njit
from numpy import ndarray

from smartsplat_large.metrics.partition import REACH, WINDOW

_Plane = Float32[ndarray, "h w"]
_Row = Float32[ndarray, "w"]
_RowMoments = Float32[ndarray, "4 w"]
_Ring = Float32[ndarray, "11 4 w"]
_Sums = Float64[ndarray, "w"]

# The float32 taps of pytorch-msssim to the last bit (sigma 1.5, normalised in float32), first half and middle.
_HALF_TAPS = (0.0010283804, 0.007598758, 0.036000773, 0.10936069, 0.21300553, 0.26601171)
_TAPS = np.array(_HALF_TAPS + _HALF_TAPS[-2::-1], np.float32)
_T0, _T1, _T2, _T3, _T4, _T5 = (np.float32(tap) for tap in _HALF_TAPS)
_C1 = np.float32(0.01**2)
_C2 = np.float32(0.03**2)
_TWO = np.float32(2)
# Variances do not depend on the origin; measured from mid-grey, squares are a quarter as large and cancel less.
_GREY = np.float32(0.5)
# The taps do not quite sum to 1. pytorch-msssim measures from black, where that adds to its variances; bright, flat
# pictures show it (1e-5 of SSIM), so the same is added here: (1 - S) (2 g E[x - g] + g^2 S), for S the sum, g the grey.
_TAPS_SUM = float(_TAPS.astype(np.float64).sum()) ** 2
_BIAS = np.float32(2 * _GREY * (1 - _TAPS_SUM))
_BIAS_GREY = np.float32(_GREY * _TAPS_SUM)
_STRIP = 256
"""Columns blurred at a time: the 11 rows of four moments then take 45 kB of a core's cache."""


@njit(cache=True, nogil=True, error_model="numpy")
def _blur_row_moments(a: _Row, b: _Row, moments: _RowMoments, blurred: _RowMoments) -> None:
    """Blur ``a``, ``b``, ``a a + b b`` and ``a b`` along one row; ``moments`` is scratch, 10 longer than the result."""
    for i in range(np.uintp(len(a))):
        p, q = a[i] - _GREY, b[i] - _GREY
        moments[0, i] = p
        moments[1, i] = q
        moments[2, i] = p * p + q * q
        moments[3, i] = p * q
    for m in range(4):
        source, target = moments[m], blurred[m]
        for i in range(np.uintp(len(a) - REACH)):
            target[i] = (
                _T0 * (source[i] + source[i + np.uintp(10)])
                + _T1 * (source[i + np.uintp(1)] + source[i + np.uintp(9)])
                + _T2 * (source[i + np.uintp(2)] + source[i + np.uintp(8)])
                + _T3 * (source[i + np.uintp(3)] + source[i + np.uintp(7)])
                + _T4 * (source[i + np.uintp(4)] + source[i + np.uintp(6)])
                + _T5 * source[i + np.uintp(5)]
            )


@njit(cache=True, nogil=True, error_model="numpy")
def _blur_column(ring: _Ring, y: int, means: _RowMoments) -> None:
    """Blur across the 11 rows of ``ring``, of which row ``y % 11`` is the first."""
    for m in range(4):
        target = means[m]
        middle = ring[(y + 5) % WINDOW, m]
        for i in range(np.uintp(len(target))):
            target[i] = _T5 * middle[i]
        for k in range(5):
            tap, above, below = _TAPS[k], ring[(y + k) % WINDOW, m], ring[(y + REACH - k) % WINDOW, m]
            for i in range(np.uintp(len(target))):
                target[i] += tap * (above[i] + below[i])


@njit(cache=True, nogil=True, error_model="numpy")
def _add_similarity(means: _RowMoments, ssim_columns: _Sums, cs_columns: _Sums) -> None:
    """Add one row of SSIM, and of its contrast-structure factor, to the sums of each column."""
    for i in range(np.uintp(len(ssim_columns))):
        p, q = means[0, i], means[1, i]
        pq, pp_qq = p * q, p * p + q * q
        c2 = _C2 + _BIAS * (p + q + _BIAS_GREY)
        cs = (_TWO * (means[3, i] - pq) + c2) / (means[2, i] - pp_qq + c2)
        p, q = p + _GREY, q + _GREY
        cs_columns[i] += cs
        ssim_columns[i] += (_TWO * p * q + _C1) / (p * p + q * q + _C1) * cs


@njit(cache=True, nogil=True, error_model="numpy")
def ssim_sums(a: _Plane, b: _Plane) -> tuple[float, float]:
    """Sums over all ``(h - 10, w - 10)`` window positions of SSIM and of its contrast-structure factor.

    Works in strips of columns, so that the 11 blurred rows of four moments stay in the core's own cache.
    """
    height, width = a.shape
    ssim = cs = 0.0
    for start in range(0, width - REACH, _STRIP):
        stop = min(start + _STRIP, width - REACH)
        moments = np.empty((4, stop + REACH - start), np.float32)
        ring = np.empty((WINDOW, 4, stop - start), np.float32)
        means = np.empty((4, stop - start), np.float32)
        columns = np.zeros((2, stop - start))
        for y in range(height):
            _blur_row_moments(a[y, start : stop + REACH], b[y, start : stop + REACH], moments, ring[y % WINDOW])
            if y >= REACH:
                _blur_column(ring, y - REACH, means)
                _add_similarity(means, columns[0], columns[1])
        ssim += columns[0].sum()
        cs += columns[1].sum()
    return ssim, cs


@njit(cache=True, nogil=True, error_model="numpy")
def squared_error(a: _Plane, b: _Plane) -> float:
    """Sum of squared differences, in float64."""
    height, width = a.shape
    columns = np.zeros(width)
    for y in range(height):
        row_a, row_b = a[y], b[y]
        for x in range(np.uintp(width)):
            difference = np.float64(row_a[x]) - np.float64(row_b[x])
            columns[x] += difference * difference
    return columns.sum()  # type: ignore[no-any-return]


@njit(cache=True, nogil=True, error_model="numpy")
def halve(plane: _Plane, out: _Plane, top: int, left: int) -> None:
    """Fill ``out`` with means of 2 x 2 pixels, the first of which starts at ``(top, left)`` of ``plane``.

    ``top`` and ``left`` may be -1: what lies before the plane counts as 0, as pytorch-msssim pads.
    """
    quarter = np.float32(0.25)
    height, width = out.shape
    for y in range(height):
        upper = 2 * y + top
        for x in range(width):
            before = 2 * x + left
            total = plane[upper + 1, before + 1]
            if upper >= 0:
                total += plane[upper, before + 1]
            if before >= 0:
                total += plane[upper + 1, before]
                if upper >= 0:
                    total += plane[upper, before]
            out[y, x] = total * quarter
