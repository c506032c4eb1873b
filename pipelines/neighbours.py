"""Seconds that each backend of nearest neighbours takes, over the number of points.

    python pipelines/neighbours.py [--points N ...] [--json FILE]

Points are spread evenly over a picture of eight pixels a point, as they are at a ratio of some 50; each looks for its three
nearest others, as a fit does for its first scales. "one thread" and "all threads" are the kd-tree's. KeOps compiles when it
is first used, which is not counted; where there is no GPU it is left out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from reporting import fixed, guarded, parser, publish, table

from smartsplat_large import columns, gpu
from smartsplat_large.array_types import Xy
from smartsplat_large.config import NeighborSearch
from smartsplat_large.sampling.neighbors import ROWS, Neighbors

POINTS = (100_000, 1_000_000, 4_000_000)
NEAREST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    points: int
    one_thread_s: float
    all_threads_s: float
    keops_s: float | None
    difference: float | None
    """Largest, of the distances that the two backends find, relative."""


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--points", type=int, nargs="+", default=POINTS)
    given = arguments.parse_args()
    rows = [_row(count) for count in given.points]
    headings = ["points", "kd-tree, one thread, s", "kd-tree, all threads, s", "KeOps, GPU, s", "difference"]
    cells = [
        [
            row.points, fixed(row.one_thread_s, 3), fixed(row.all_threads_s, 3), fixed(row.keops_s, 3),
            "-" if row.difference is None else f"{row.difference:.1e}",
        ]
        for row in rows
    ]  # fmt: skip
    publish(table(headings, cells), given.json, rows)


def _row(count: int) -> Row:
    points = np.random.default_rng(0).random((count, 2)) * np.sqrt(8.0 * count)
    one_thread_s, expected = _seconds(points, "kdtree", 1)
    all_threads_s, _ = _seconds(points, "kdtree", -1)
    keops_s = difference = None
    if gpu.is_there():
        _seconds(points[:10_000], "keops", 1)
        keops_s, found = _seconds(points, "keops", 1)
        difference = float(np.max(np.abs(found / expected - 1)))
    return Row(
        points=count, one_thread_s=one_thread_s, all_threads_s=all_threads_s, keops_s=keops_s, difference=difference
    )


def _seconds(points: Xy, backend: NeighborSearch, workers: int) -> tuple[float, np.ndarray]:
    began = time.perf_counter()
    others = Neighbors(points, NEAREST, backend=backend, excluding=True, workers=workers)
    parts = (np.arange(rows.start, rows.stop) for rows in columns.chunks(len(points), ROWS))
    distances = np.concatenate([others.of(points[itself], itself)[0] for itself in parts])
    return time.perf_counter() - began, distances


if __name__ == "__main__":
    guarded(main)
