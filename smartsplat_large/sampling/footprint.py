"""What the initialisation needs at its peak, before it starts."""

from __future__ import annotations

from smartsplat_large.config import SamplingConfig
from smartsplat_large.lattice import Size
from smartsplat_large.memory import PROGRAM, Footprint, MiB
from smartsplat_large.sampling.color import REACH

_PER_POINT = 120
"""Positions twice while they are joined, the kd-tree, scales, weights, colours and the order of blocks."""

_SEARCH = 96 * MiB
"""Candidates and offsets of the queries that are answered at a time."""


def footprint(size: Size, channels: int, itemsize: int, count: int, config: SamplingConfig, workers: int) -> Footprint:
    """Projected peak of :func:`smartsplat_large.sampling.sample` with that many ``workers``, in bytes."""
    pixel = channels * itemsize
    tile = min(config.tile, size.width) * min(config.tile, size.height)
    # Features: the pixels, twice more while they are read and padded, two maps. Draw: weights, keys and indices.
    draw = tile * (3 * pixel + 8 + 20)
    side = config.tile + 2 * (REACH + 1)
    color = min(side, size.width + 2 * REACH + 2) * min(side, size.height + 2 * REACH + 2) * 2 * pixel
    return Footprint(
        program=PROGRAM,
        gaussians=count * (_PER_POINT + 4 * channels),
        working=workers * max(draw, color) + min(_SEARCH, count * 400),
    )
