"""Blocks partition the image; windows meet as rectangles do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartsplat_large.lattice import BlockGrid, Size, Window

SIDES = st.integers(1, 300)


@given(SIDES, SIDES, st.integers(5, 128), st.integers(0, 20))
def test_cores_partition_the_image(width: int, height: int, block: int, halo: int) -> None:
    size = Size(width, height)
    seen = np.zeros((height, width), int)
    for b in BlockGrid(size, block, halo):
        rows, columns = b.core.slices(size.window)
        seen[rows, columns] += 1
        assert b.outer.contains(b.core)
        assert size.window.contains(b.outer)
        assert b.outer == b.core.expanded(halo).clipped(size)
    assert (seen == 1).all()


@given(SIDES, SIDES, st.integers(0, 9))
def test_a_level_halves_rounding_up(width: int, height: int, level: int) -> None:
    size = Size(width, height)
    halved = size
    for _ in range(level):
        halved = Size((halved.width + 1) // 2, (halved.height + 1) // 2)
    assert size.at_level(level) == halved


@given(*[st.integers(-20, 20)] * 4, *[st.integers(0, 25)] * 4)
def test_intersection_is_the_common_part(x, y, u, v, w, h, p, q) -> None:
    a, b = Window(x, y, w, h), Window(u, v, p, q)
    common = {(i, j) for i in range(x, x + w) for j in range(y, y + h)} & {
        (i, j) for i in range(u, u + p) for j in range(v, v + q)
    }
    found = a.intersection(b)
    assert found.pixels == len(common)
    assert found.is_empty == (not common)


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Size(0, 5)
    with pytest.raises(IndexError):
        BlockGrid(Size(10, 10), 5)[4]
