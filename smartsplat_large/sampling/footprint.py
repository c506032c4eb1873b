"""What the initialisation needs at its peak, before it starts."""

from __future__ import annotations

from smartsplat_large.config import SamplingConfig
from smartsplat_large.lattice import Size
from smartsplat_large.memory import PROGRAM, Footprint
from smartsplat_large.sampling.color import REACH
from smartsplat_large.sampling.neighbors import ROWS

_TREE = 24
"""Of each point: its place in the kd-tree, and the nodes, which are copied while there come to be more of them."""

_COLUMNS = 40
"""Of each point, beside its colour: positions, radii, scales, rotations, and the order of blocks."""

_CANDIDATE = 96
"""Of each candidate of the queries that are answered at a time: indices, offsets and distances, and the same in order."""


def column_bytes(count: int, channels: int) -> int:
    """What the columns of all points take at the peak."""
    return count * (_COLUMNS + 4 * channels)


def footprint(
    size: Size, channels: int, itemsize: int, count: int, config: SamplingConfig, workers: int, *, held_bytes: int
) -> Footprint:
    """Projected peak of :func:`smartsplat_large.sampling.sample` with that many ``workers``, in bytes.

    ``held_bytes`` of :func:`column_bytes` are in memory.
    """
    pixel = channels * itemsize
    tile = min(config.tile, size.width) * min(config.tile, size.height)
    # Features: the pixels, twice more while they are read and padded, two maps. Draw: weights, keys and indices.
    draw = tile * (3 * pixel + 8 + 20)
    side = config.tile + 2 * (REACH + 1)
    color = min(side, size.width + 2 * REACH + 2) * min(side, size.height + 2 * REACH + 2) * 2 * pixel
    return Footprint(
        program=PROGRAM,
        gaussians=count * _TREE + held_bytes,
        working=workers * max(draw, color) + min(ROWS, count) * (config.neighbors + 1) * _CANDIDATE,
    )
