"""Orders of many rows, made with little beside the columns they are made from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from smartsplat_large import columns
from smartsplat_large.array_types import Index, Xy

_CELL = 32
"""Pixels on a side of the cells within which :func:`by_place` leaves the order as it is."""
_DEPTH = 16
"""Halvings of the plane down to these cells."""
_SORTED_AT_ONCE = 6
"""Halvings down to cells of a square of the plane whose rows are sorted in memory: it has 4 megapixels."""


def by_place(xy: Xy) -> Index:
    """Rows of ``xy`` along a Z-curve of cells: what is near in the image is near in this order.

    What lies outside all cells counts to the nearest one; what is nowhere (nan), to the last.
    """
    last, keys = (1 << _DEPTH) - 1, columns.empty(len(xy), np.int64)
    for rows in columns.chunks(len(xy)):
        cell = np.fmax(0, np.fmin(last, xy[rows] / _CELL)).astype(np.int64)
        keys[rows] = z_keys(cell, 0, 0, 1, _DEPTH)
    squares = columns.empty(len(xy), np.int64)
    np.right_shift(keys, 2 * _SORTED_AT_ONCE, out=squares)
    start, order = by_cell(squares, int(squares.max(initial=0)) + 1)
    for square in np.flatnonzero(np.diff(start)).tolist():
        some = order[start[square] : start[square + 1]]
        some[:] = some[np.argsort(keys[some], kind="stable")]
    return order


def by_cell(cells: Index, count: int) -> tuple[Index, Index]:
    """``start, rows``: those of cell ``c``, one of ``count``, are ``rows[start[c] : start[c + 1]]``, ascending."""
    start, rows = np.zeros(count + 1, np.int64), columns.empty(len(cells), np.int64)
    _deal(cells, start, rows)
    return start, rows


def least(values: np.ndarray, count: int) -> Index:
    """Rows of the ``count`` least of ``values``, which are finite, ascending; of equal ones the first."""
    if not count:
        return np.zeros(0, np.int64)
    partly = columns.copied(values)
    partly.partition(count - 1)
    most = partly[count - 1]
    chosen = columns.empty(len(values), bool)
    for rows in columns.chunks(len(values)):
        chosen[rows] = values[rows] < most
    missing = count - int(np.count_nonzero(chosen))
    for rows in columns.chunks(len(values)):
        equal = np.flatnonzero(values[rows] == most)[:missing]
        chosen[rows][equal] = True
        missing -= len(equal)
    return columns.true_rows(chosen)


@njit(cache=True, nogil=True)
def z_keys(cell: Any, left: int, top: int, columns: int, depth: int) -> Any:
    """Numbers of cells ``(x, y)``, counted from ``(left, top)``, by square and then along a Z-curve (Morton 1966).

    A square has ``2**depth`` cells on a side; there are ``columns`` of them in a row.
    """
    found = np.empty(len(cell), np.int64)
    for i in range(len(cell)):
        x, y = cell[i, 0] - left, cell[i, 1] - top
        key = (y >> depth) * columns + (x >> depth)
        for bit in range(depth - 1, -1, -1):
            key = key << 2 | (y >> bit & 1) << 1 | (x >> bit & 1)
        found[i] = key
    return found


@njit(cache=True, nogil=True)
def z_cells(keys: Any, left: int, top: int, columns: int, depth: int) -> Any:
    """The inverse of :func:`z_keys`."""
    found = np.empty((len(keys), 2), np.int64)
    for i in range(len(keys)):
        key = keys[i]
        x, y = (key >> 2 * depth) % columns, (key >> 2 * depth) // columns
        for bit in range(depth - 1, -1, -1):
            x, y = x << 1 | (key >> 2 * bit & 1), y << 1 | (key >> (2 * bit + 1) & 1)
        found[i, 0], found[i, 1] = x + left, y + top
    return found


@njit(cache=True, nogil=True)
def _deal(cells: Any, start: Any, rows: Any) -> None:
    """Sort by counting; ``start`` is zero everywhere."""
    for i in range(len(cells)):
        start[cells[i] + 1] += 1
    for c in range(1, len(start)):
        start[c] += start[c - 1]
    position = start[:-1].copy()
    for i in range(len(cells)):
        rows[position[cells[i]]] = i
        position[cells[i]] += 1
