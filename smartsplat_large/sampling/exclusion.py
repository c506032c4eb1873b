"""Points spread over what the drawn ones leave free, SmartSplat eqs. 15, 16 and 21."""

from __future__ import annotations

import math

import numpy as np

from smartsplat_large import columns
from smartsplat_large.array_types import Xy
from smartsplat_large.config import NeighborSearch
from smartsplat_large.lattice import Size
from smartsplat_large.sampling.neighbors import ROWS, Neighbors
from smartsplat_large.sampling.streams import Stream, generator

_ROUNDS = 16
_LOWEST_RATE = 0.1
"""A round draws at most 1 / this times as many candidates as points are missing."""


def uniform_points(size: Size, count: int, rng: np.random.Generator) -> Xy:
    """``(count, 2)`` positions anywhere in the image, not only at pixel centres."""
    points = columns.empty((count, 2))
    _spread(points, size, rng)
    return points


def _spread(points: Xy, size: Size, rng: np.random.Generator) -> None:
    rng.random(out=points)
    points *= (size.width, size.height)


def exclusion_points(
    size: Size, count: int, taken: Xy, radius: float, seed: int, *, backend: NeighborSearch = "kdtree", workers: int = 1
) -> tuple[Xy, int]:
    """``count`` uniform points, each farther than ``radius`` from all ``taken``, as far as that is possible.

    SmartSplat eqs. 15, 16: draw uniformly and keep what is far enough, in at most 16 rounds. What is then missing is
    filled with plain uniform points.

    Returns
    -------
    tuple
        ``(count, 2)`` points, those that keep the distance first, and how many at the end were filled in.
    """
    points, found, rate = columns.empty((count, 2)), 0, 1.0
    neighbors = Neighbors(taken, 1, backend=backend, workers=workers)
    for turn in range(_ROUNDS):
        before, rng = found, generator(seed, Stream.UNIFORM, turn)
        draws = math.ceil(1.1 * (count - found) / max(rate, _LOWEST_RATE)) + 16
        for rows in columns.chunks(draws, ROWS):
            if found == count:
                return points, 0
            drawn = np.empty((rows.stop - rows.start, 2))
            _spread(drawn, size, rng)
            free = drawn[neighbors.of(drawn)[0][:, 0] > radius][: count - found]
            points[found : found + len(free)] = free
            found += len(free)
        rate = (found - before) / draws
    _spread(points[found:], size, generator(seed, Stream.FILL))
    return points, count - found
