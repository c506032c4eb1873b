"""Points spread over what the drawn ones leave free, SmartSplat eqs. 15, 16 and 21."""

from __future__ import annotations

import math

import numpy as np

from smartsplat_large.array_types import Xy
from smartsplat_large.config import NeighborSearch
from smartsplat_large.lattice import Size
from smartsplat_large.sampling.neighbors import nearest
from smartsplat_large.sampling.streams import Stream, generator

_ROUNDS = 16
_LOWEST_RATE = 0.1
"""A round draws at most 1 / this times as many candidates as points are missing."""


def uniform_points(size: Size, count: int, rng: np.random.Generator) -> Xy:
    """``(count, 2)`` positions anywhere in the image, not only at pixel centres."""
    return rng.random((count, 2)) * (size.width, size.height)


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
    kept, missing, rate = [np.zeros((0, 2))], count, 1.0
    for turn in range(_ROUNDS):
        if missing == 0:
            break
        draws = math.ceil(1.1 * missing / max(rate, _LOWEST_RATE)) + 16
        points = uniform_points(size, draws, generator(seed, Stream.UNIFORM, turn))
        distances, _ = nearest(points, taken, 1, backend=backend, workers=workers)
        free = points[distances[:, 0] > radius]
        rate = len(free) / draws
        kept.append(free[:missing])
        missing -= len(kept[-1])
    return np.concatenate([*kept, uniform_points(size, missing, generator(seed, Stream.FILL))]), missing
