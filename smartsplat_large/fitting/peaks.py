"""Compiled kernels of the search for peaks: a Gaussian blur, and local maxima of the gain that it stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float32, Int32
from numba import njit

from smartsplat_large.array_types import Planes

_FAR = 3.0
"""Standard deviations at which a blur is cut off."""


def blurred(planes: Planes, sigma: float) -> Planes:
    """``planes`` convolved with a Gaussian of ``sigma`` pixels whose taps sum to 1; outside, they are 0."""
    reach = int(_FAR * sigma + 0.5)
    taps = np.exp(-0.5 * np.square(np.arange(reach + 1) / sigma))
    taps /= taps[0] + 2 * taps[1:].sum()
    out = np.empty_like(planes)
    _blur(np.ascontiguousarray(planes), taps.astype(np.float32), out)
    return out


def maxima(
    planes: Planes, factor: float
) -> tuple[Int32[np.ndarray, "n"], Int32[np.ndarray, "n"], Float32[np.ndarray, "n"]]:
    """Row, column and gain where ``factor`` times the sum of squares over the channels is above 0, and none of the eight
    neighbours has more; row by row."""
    _, height, width = planes.shape
    gain = np.zeros((height + 2, width + 2), np.float32)
    y, x, gains = _maxima(planes, np.float32(factor), gain)
    return y, x, gains


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _blur(planes: Any, taps: Any, out: Any) -> None:
    """Down the columns into one row, then along it. Rows beside which there are none add nothing."""
    channels, height, width = planes.shape
    reach = len(taps) - 1
    row = np.zeros(width + 2 * reach, np.float32)
    nothing = np.zeros(width, np.float32)
    for c in range(channels):
        plane = planes[c]
        for y in range(height):
            _weigh(plane[y], taps[0], row[reach : reach + width])
            for k in range(1, reach + 1, 2):
                _add_pairs(
                    plane[y - k] if y >= k else nothing, plane[y + k] if y + k < height else nothing, taps[k],
                    plane[y - k - 1] if y > k else nothing, plane[y + k + 1] if y + k + 1 < height else nothing,
                    taps[k + 1] if k < reach else np.float32(0), row[reach : reach + width],
                )  # fmt: skip
            target = out[c, y]
            _weigh(row[reach : reach + width], taps[0], target)
            for k in range(1, reach + 1, 2):
                far = min(k + 1, reach)
                _add_pairs(
                    row[reach - k : reach - k + width], row[reach + k : reach + k + width], taps[k],
                    row[reach - far : reach - far + width], row[reach + far : reach + far + width],
                    taps[far] if k < reach else np.float32(0), target,
                )  # fmt: skip


@njit(inline="always", error_model="numpy")
def _weigh(source: Any, tap: Any, target: Any) -> None:
    for i in range(np.uintp(len(target))):
        target[i] = tap * source[i]


@njit(inline="always", error_model="numpy")
def _add_pairs(a: Any, b: Any, tap: Any, c: Any, d: Any, tap2: Any, target: Any) -> None:
    """Two taps at a time: half the traffic of the sums."""
    for i in range(np.uintp(len(target))):
        target[i] += tap * (a[i] + b[i]) + tap2 * (c[i] + d[i])


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _maxima(planes: Any, factor: Any, gain: Any) -> Any:
    """``gain`` holds zeros, one row and one column wider on every side: no maximum lies there, and it hides none."""
    channels, height, width = planes.shape
    ys, xs, gains = (
        np.empty(height * width, np.int32),
        np.empty(height * width, np.int32),
        np.empty(height * width, np.float32),
    )
    above = np.zeros(width + 2, np.float32)
    count = 0
    for y in range(height + 1):
        if y < height:
            target = gain[y + 1, 1 : width + 1]
            for c in range(channels):
                source = planes[c, y]
                for i in range(np.uintp(width)):
                    target[i] += source[i] * source[i]
            for i in range(np.uintp(width)):
                target[i] *= factor
        if y == 0:
            continue
        before, middle, after = gain[y - 1], gain[y], gain[y + 1]
        for i in range(np.uintp(width + 2)):
            high = before[i] if before[i] > middle[i] else middle[i]
            above[i] = after[i] if after[i] > high else high
        for x in range(width):
            value = middle[x + 1]
            if value > 0 and value >= above[x + 1] and value >= above[x] and value >= above[x + 2]:
                ys[count], xs[count], gains[count] = y - 1, x, value
                count += 1
    return ys[:count].copy(), xs[:count].copy(), gains[:count].copy()
