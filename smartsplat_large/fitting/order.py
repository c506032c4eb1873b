"""Gaussians in an order in which those that are near in the image are near in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from smartsplat_large import columns
from smartsplat_large.array_types import Index, Xy

_SIDE = 32
"""Pixels of a cell, within which the order is left as it is."""
_MOST = (1 << 16) - 1


def by_place(xy: Xy) -> Index:
    """Rows of ``xy`` along a Z-curve (Morton 1966) of cells; what lies outside all cells counts to the nearest."""
    keys = columns.empty(len(xy), np.uint32)
    _keys(xy, keys)
    return np.argsort(keys, kind="stable")


@njit(cache=True, nogil=True, error_model="numpy")
def _keys(xy: Any, keys: Any) -> None:
    for i in range(len(xy)):
        key = 0
        for axis in range(2):
            cell = int(min(max(xy[i, axis] / _SIDE, 0.0), float(_MOST)))
            for bit in range(16):
                key |= (cell >> bit & 1) << (2 * bit + axis)
        keys[i] = key
