"""Nearest neighbours between two sets of points: one function, two backends.

Backends only propose indices. Distances are computed here, in float64, from the indices, so that what is decided
on them does not depend on a backend's arithmetic.
"""

from __future__ import annotations

from typing import get_args

import numpy as np
from jaxtyping import Float64, Int64

from smartsplat_large.array_types import Index, Xy
from smartsplat_large.config import NeighborSearch
from smartsplat_large.errors import UsageError
from smartsplat_large.sampling import neighbors_keops

_ROWS = 1 << 18
"""Queries answered at a time, which bounds what is in memory beside points and result."""


def nearest(
    queries: Xy,
    references: Xy,
    k: int,
    *,
    backend: NeighborSearch = "kdtree",
    exclude: Index | None = None,
    workers: int = 1,
) -> tuple[Float64[np.ndarray, "m k"], Int64[np.ndarray, "m k"]]:
    """Distances to the ``k`` nearest references of each query, rising, and their indices.

    Parameters
    ----------
    queries, references
        ``(m, 2)`` and ``(n, 2)``, finite, in any one unit. Duplicates are allowed.
    backend
        ``kdtree``: scipy, on the CPU. ``keops``: brute force on the GPU, or slowly on the CPU, kept to the
        neighbourhood of each query where that provably changes nothing.
    exclude
        ``(m,)`` the one reference that does not count for each query: the query itself, where it is among them.
    workers
        Threads of the kd-tree; -1 for all processors.

    Returns
    -------
    tuple
        ``(m, k)`` each. Where there are fewer than ``k`` references, the rest is ``inf`` and ``-1``. Which of two
        references at one distance comes first is up to the backend; the distances agree to 1e-6 relative.

    Raises
    ------
    UsageError
        There is no such backend.
    MissingDependencyError
        KeOps is asked for and it, or the compiler it needs, is not there.
    """
    if backend not in get_args(NeighborSearch):
        raise UsageError(f"backend {backend!r} is unknown", hint=f"one of {', '.join(get_args(NeighborSearch))}")
    distances = np.full((len(queries), k), np.inf)
    indices = np.full((len(queries), k), -1)
    wanted = min(k + (exclude is not None), len(references))
    if wanted == 0 or not len(queries):
        return distances, indices
    search = _search(backend, references, wanted, workers)
    for start in range(0, len(queries), _ROWS):
        rows = slice(start, start + _ROWS)
        found = _by_distance(
            queries[rows], references, search(queries[rows]), None if exclude is None else exclude[rows]
        )
        filled = min(k, found[0].shape[1])
        distances[rows, :filled], indices[rows, :filled] = found[0][:, :filled], found[1][:, :filled]
    return distances, indices


def _search(backend: NeighborSearch, references: Xy, wanted: int, workers: int) -> neighbors_keops.Search:
    """A function from queries to at least ``wanted`` candidate indices a row, ``-1`` for none."""
    if backend == "keops":
        return neighbors_keops.search(references, wanted)
    # Imported late: 0.15 s, which the command line's --help need not wait for.
    from scipy.spatial import cKDTree

    # Sliding midpoints build several times faster than medians and answer as fast on points without clusters.
    tree = cKDTree(references, balanced_tree=False, compact_nodes=False)

    def search(queries: Xy) -> Int64[np.ndarray, "m c"]:
        found: Int64[np.ndarray, "m c"] = tree.query(queries, k=np.arange(1, wanted + 1), workers=workers)[1]
        return found

    return search


def _by_distance(
    queries: Xy, references: Xy, candidates: Int64[np.ndarray, "m c"], exclude: Index | None
) -> tuple[Float64[np.ndarray, "m c"], Int64[np.ndarray, "m c"]]:
    """Candidates sorted by their exact distance; what is excluded or ``-1`` comes last, at ``inf``."""
    ignored = candidates < 0
    if exclude is not None:
        ignored |= candidates == exclude[:, None]
    offsets = references[candidates] - queries[:, None]
    distances = np.where(ignored, np.inf, np.sqrt(np.square(offsets).sum(axis=2)))
    order = np.argsort(distances, axis=1, kind="stable")
    distances = np.take_along_axis(distances, order, axis=1)
    indices = np.take_along_axis(candidates, order, axis=1)
    return distances, np.where(np.isinf(distances), -1, indices)
