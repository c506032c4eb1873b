"""Nearest neighbours between two sets of points: one class, two backends.

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
from smartsplat_large.ordering import by_place
from smartsplat_large.sampling import neighbors_keops

ROWS = 1 << 18
"""Queries to ask at a time: so what finding them takes beside the points does not matter."""


class Neighbors:
    """The ``k`` nearest of some reference points, of any others.

    Parameters
    ----------
    references
        ``(n, 2)``, finite. Duplicates are allowed.
    backend
        ``kdtree``: scipy, on the CPU. ``keops``: brute force on the GPU, or slowly on the CPU, kept to the
        neighbourhood of each query where that provably changes nothing.
    excluding
        Whether queries name a reference each that does not count.
    workers
        Threads of the kd-tree; -1 for all processors.

    Raises
    ------
    UsageError
        There is no such backend.
    MissingDependencyError
        KeOps is asked for and it, or the compiler it needs, is not there.
    """

    def __init__(
        self, references: Xy, k: int, *, backend: NeighborSearch = "kdtree", excluding: bool = False, workers: int = 1
    ) -> None:
        if backend not in get_args(NeighborSearch):
            raise UsageError(f"backend {backend!r} is unknown", hint=f"one of {', '.join(get_args(NeighborSearch))}")
        self._references, self._k = references, k
        wanted = min(k + excluding, len(references))
        self._search = _search(backend, references, wanted, workers) if wanted else None

    def of(
        self, queries: Xy, exclude: Index | None = None
    ) -> tuple[Float64[np.ndarray, "m k"], Int64[np.ndarray, "m k"]]:
        """Distances to the nearest references of each query, rising, and their indices, ``(m, k)`` each.

        Where there are fewer than ``k`` references, the rest is ``inf`` and ``-1``. Which of two references at one
        distance comes first is up to the backend; the distances agree to 1e-6 relative.

        Parameters
        ----------
        queries
            ``(m, 2)``, finite, in the unit of the references.
        exclude
            ``(m,)`` the one reference that does not count for each query: the query itself, where it is among them.
        """
        distances = np.full((len(queries), self._k), np.inf)
        indices = np.full((len(queries), self._k), -1)
        if self._search is not None and len(queries):
            found = _by_distance(queries, self._references, self._search(queries), exclude)
            filled = min(self._k, found[0].shape[1])
            distances[:, :filled], indices[:, :filled] = found[0][:, :filled], found[1][:, :filled]
        return distances, indices


def _search(backend: NeighborSearch, references: Xy, wanted: int, workers: int) -> neighbors_keops.Search:
    """A function from queries to at least ``wanted`` candidate indices a row, ``-1`` for none."""
    if backend == "keops":
        return neighbors_keops.search(references, wanted)
    # Imported late: 0.15 s, which the command line's --help need not wait for.
    from scipy.spatial import cKDTree

    # Sliding midpoints build several times faster than medians and answer as fast on points without clusters. Leaves of twice
    # the usual size answer as fast, too, and the tree takes half the memory.
    tree = cKDTree(references, leafsize=32, balanced_tree=False, compact_nodes=False)

    def search(queries: Xy) -> Int64[np.ndarray, "m c"]:
        found = np.empty((len(queries), wanted), np.int64)
        # So the part of a tree that a query needs is still in the cache, from the one before.
        order = by_place(queries)
        found[order] = tree.query(queries[order], k=np.arange(1, wanted + 1), workers=workers)[1]
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
