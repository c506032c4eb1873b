"""The filters of PNG: each row as differences from its neighbours, in the way that leaves the smallest ones."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_SUB, _UP, _PAETH = 1, 2, 4


def filtered(rows: Bytes, above: Bytes, pixel_bytes: int) -> Bytes:
    """``(h, 1 + row_bytes)``: each row behind the number of its filter; ``above`` is the row over the first, or zeros.

    Of Sub, Up and Paeth the one whose differences, read as signed bytes, have the smallest sum: libpng's rule of thumb.
    """
    out = np.empty((rows.shape[0], rows.shape[1] + 1), np.uint8)
    _filter_rows(rows, above, pixel_bytes, out)
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def _filter_rows(rows: Bytes, above: Bytes, pixel_bytes: int, out: Bytes) -> None:
    up = above
    for y in range(rows.shape[0]):
        row = rows[y]
        by_sub, by_up, by_paeth = 0, 0, 0
        for x in range(len(row)):
            left, corner = _left_and_corner(row, up, x, pixel_bytes)
            value = np.int64(row[x])
            by_sub += _cost(value - left)
            by_up += _cost(value - up[x])
            by_paeth += _cost(value - _paeth(left, np.int64(up[x]), corner))
        least = min(by_sub, by_up, by_paeth)
        kind = _SUB if by_sub == least else (_UP if by_up == least else _PAETH)
        out[y, 0] = kind
        for x in range(len(row)):
            left, corner = _left_and_corner(row, up, x, pixel_bytes)
            guess = left if kind == _SUB else np.int64(up[x])
            if kind == _PAETH:
                guess = _paeth(left, guess, corner)
            out[y, x + 1] = (np.int64(row[x]) - guess) & 255
        up = row


@njit(cache=True, nogil=True, error_model="numpy")
def _left_and_corner(row: Bytes, up: Bytes, x: int, pixel_bytes: int) -> tuple[np.int64, np.int64]:
    if x < pixel_bytes:
        return np.int64(0), np.int64(0)
    return np.int64(row[x - pixel_bytes]), np.int64(up[x - pixel_bytes])


@njit(cache=True, nogil=True, error_model="numpy")
def _cost(difference: np.int64) -> np.int64:
    wrapped = difference & 255
    return min(wrapped, 256 - wrapped)


@njit(cache=True, nogil=True, error_model="numpy")
def _paeth(left: np.int64, up: np.int64, corner: np.int64) -> np.int64:
    """Of the three neighbours, the one nearest to ``left + up - corner``; ties go to left, then up."""
    from_left, from_up, from_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    if from_left <= from_up and from_left <= from_corner:
        return left
    return up if from_up <= from_corner else corner
