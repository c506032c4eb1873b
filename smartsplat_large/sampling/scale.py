"""Scales of points from how far apart they are, SmartSplat eq. 17."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64

from smartsplat_large import columns
from smartsplat_large.array_types import Xy
from smartsplat_large.config import NeighborSearch
from smartsplat_large.sampling.neighbors import ROWS, Neighbors

_FLOOR_SHARE = 0.1
"""The smallest scale as a share of the base scale: points that lie on one pixel must not vanish."""


def neighbor_scale(
    xy: Xy, first: int, neighbors: int, base: float, *, backend: NeighborSearch = "kdtree", workers: int = 1
) -> Float64[np.ndarray, " m"]:
    """Mean distance of the points ``xy[first:]`` to their ``neighbors`` nearest other points among all ``xy``.

    SmartSplat eq. 17, at least a tenth of ``base``. The paper's text is followed: the released program takes the root
    of the mean square instead and counts the point itself, at distance 0, as one of the three. Where there are fewer
    other points, the mean is over those; a point alone gets ``3 * base``, the radius of its share of the image.
    """
    scale = columns.empty(len(xy) - first)
    others = Neighbors(xy, neighbors, backend=backend, excluding=True, workers=workers)
    for rows in columns.chunks(len(scale), ROWS):
        itself = np.arange(first + rows.start, first + rows.stop)
        distances, _ = others.of(xy[itself], itself)
        there = np.isfinite(distances)
        total = np.where(there, distances, 0).sum(axis=1)
        count = there.sum(axis=1)
        mean = np.where(count > 0, total / np.maximum(count, 1), 3 * base)
        scale[rows] = np.maximum(mean, _FLOOR_SHARE * base)
    return scale
