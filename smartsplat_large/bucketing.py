"""Which boxes touch which cells of a grid, as lists in order of the boxes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def cell_span(low: float, high: float, side: int, first: int, count: int) -> Any:
    """First and last of ``count`` cells, counted from cell ``first`` of the plane, that ``[low, high]`` touches.

    Clamped as floats: what lies far outside must not overflow an integer. Empty (first > last) where there is none.
    """
    begin = min(max(math.floor(low / side) - first, 0.0), float(count))
    end = min(max(math.floor(high / side) - first, -1.0), count - 1.0)
    return int(begin), int(end)


@njit(cache=True, nogil=True, error_model="numpy")
def list_by_cell(spans: Any, columns: int, rows: int) -> Any:
    """Sort boxes by counting: those of cell ``c`` are ``ids[start[c] : start[c + 1]]``, cells row by row.

    ``spans`` holds first and last column, first and last row of each box, ``(n, 4)`` int32.
    """
    start = count_by_cell(spans, columns, rows)
    ids = np.empty(start[-1], np.int32)
    fill_by_cell(spans, columns, start, ids)
    return start, ids


@njit(cache=True, nogil=True, error_model="numpy")
def count_by_cell(spans: Any, columns: int, rows: int) -> Any:
    """The ``start`` of :func:`list_by_cell`."""
    start = np.zeros(columns * rows + 1, np.int64)
    for i in range(len(spans)):
        for v in range(spans[i, 2], spans[i, 3] + 1):
            for u in range(spans[i, 0], spans[i, 1] + 1):
                start[v * columns + u + 1] += 1
    for c in range(columns * rows):
        start[c + 1] += start[c]
    return start


@njit(cache=True, nogil=True, error_model="numpy")
def fill_by_cell(spans: Any, columns: int, start: Any, ids: Any) -> None:
    """Write the ``ids`` of :func:`list_by_cell`."""
    position = start[:-1].copy()
    for i in range(len(spans)):
        for v in range(spans[i, 2], spans[i, 3] + 1):
            for u in range(spans[i, 0], spans[i, 1] + 1):
                ids[position[v * columns + u]] = i
                position[v * columns + u] += 1
