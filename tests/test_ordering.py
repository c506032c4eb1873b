"""Orders of many rows, against numpy's."""

from __future__ import annotations

import numpy as np

from smartsplat_large.ordering import by_place, z_cells, z_keys


def test_rows_lie_along_a_z_curve_of_cells_and_keep_their_order_within_one() -> None:
    rng = np.random.default_rng(0)
    # Several of the squares that are sorted in memory, and what lies outside the image, by a little or without end.
    xy = np.concatenate([rng.uniform(-100, 9000, (5000, 2)), [[np.inf, 5], [5, -np.inf], [np.nan, np.nan]]])
    cell = (np.nan_to_num(xy, nan=1e9).clip(0, 1e9) / 32).clip(0, 65535).astype(np.int64)
    assert by_place(xy).tolist() == np.argsort(z_keys(cell, 0, 0, 1, 16), kind="stable").tolist()


def test_an_order_of_no_rows() -> None:
    assert by_place(np.empty((0, 2))).shape == (0,)


def test_keys_and_cells_are_inverse() -> None:
    """Squares of eight cells, three of them in a row, counted from a corner of their own."""
    keys = np.arange(6 * 64)
    cells = z_cells(keys, 5, -3, 3, 3)
    assert cells.min(axis=0).tolist() == [5, -3]
    assert cells.max(axis=0).tolist() == [5 + 23, -3 + 15]
    assert z_keys(cells, 5, -3, 3, 3).tolist() == keys.tolist()
