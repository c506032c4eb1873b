"""The KeOps backend of nearest neighbours: brute force over the cells around each query, with a certificate.

References are sorted into square cells and every query is compared, by one block-sparse KeOps reduction, with those in
the 3 x 3 cells around it, in float32 relative to its own cell. A row is *certified* when as many candidates as asked
for are no farther than the border of what was searched. The rest is searched again in cells twice as wide, until the
cells hold everything.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from smartsplat_large.array_types import Index, Xy
from smartsplat_large.errors import MissingDependencyError

Search = Callable[[Xy], Int64[np.ndarray, "m c"]]

_SPARE = 2
"""Candidates beyond those wanted, so that float32 may swap neighbours that are equally far and lose none."""

_STEP = 8
"""The number of candidates is rounded up to a multiple of this: each number costs a compilation of seconds."""

_PER_CELL = 64
"""References a cell holds on average: 9 cells are then some 600 comparisons a query."""

_GATHERED = 1 << 22
"""References compared in one reduction. KeOps returns indices as float32, which is exact up to 2**24."""

_COMPILERS = ("c++", "g++", "clang++")


def is_ready_on_gpu() -> bool:
    """Whether KeOps can run on a CUDA device here. Where there is no device, torch (a second to import) stays out."""
    if sys.platform == "linux" and not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg")):
        return False
    if not _compiler():
        return False
    import torch

    return bool(torch.cuda.is_available())


def search(references: Xy, wanted: int) -> Search:
    """A function from queries to candidates ``(m, c)``, c >= ``wanted``: indices of references, ``-1`` for none.

    The ``wanted`` nearest references are among the candidates, up to float32 rounding; there must be that many.

    Raises
    ------
    MissingDependencyError
        pykeops or torch is not installed, or there is no C++ compiler on PATH.
    """
    reduce = _reduction(-(-(wanted + _SPARE) // _STEP) * _STEP)

    def run(queries: Xy) -> Int64[np.ndarray, "m c"]:
        grid = Grid.around(references)
        found, certified = _search_cells(reduce, grid, queries, references, wanted)
        while not certified.all():
            grid = Grid(grid.x, grid.y, grid.x_end, grid.y_end, 2 * grid.side)
            pending = np.flatnonzero(~certified)
            found[pending], certified[pending] = _search_cells(reduce, grid, queries[pending], references, wanted)
        return found

    return run


@dataclass(frozen=True, slots=True)
class Grid:
    """Square cells over the box of the references; points beyond it belong to the nearest cell of the border."""

    x: float
    y: float
    x_end: float
    y_end: float
    side: float

    @staticmethod
    def around(points: Xy) -> Grid:
        """Cells that would hold ``_PER_CELL`` points each if these were spread evenly."""
        (x, y), (x_end, y_end) = points.min(axis=0), points.max(axis=0)
        width, height = x_end - x, y_end - y
        cells = max(1.0, len(points) / _PER_CELL)
        # A box without height is divided along its width alone, and a box that is one point is one cell.
        side = max(np.sqrt(width * height / cells), max(width, height) / cells) or 1.0
        return Grid(float(x), float(y), float(x_end), float(y_end), float(side))

    @property
    def columns(self) -> int:
        return int((self.x_end - self.x) // self.side) + 1

    @property
    def rows(self) -> int:
        return int((self.y_end - self.y) // self.side) + 1

    def cells(self, points: Xy) -> Index:
        """The number of each point's cell, row by row."""
        column = np.clip((points[:, 0] - self.x) // self.side, 0, self.columns - 1).astype(np.int64)
        row = np.clip((points[:, 1] - self.y) // self.side, 0, self.rows - 1).astype(np.int64)
        return row * self.columns + column

    def centers(self, cells: Index) -> Xy:
        """The middle of each cell."""
        row, column = np.divmod(cells, self.columns)
        return np.stack([self.x + (column + 0.5) * self.side, self.y + (row + 0.5) * self.side], axis=1)

    def reach(self, points: Xy, cells: Index) -> Float64[np.ndarray, " n"]:
        """How far each point can see before it leaves the 3 x 3 cells around ``cells``; no border beyond the grid."""
        row, column = np.divmod(cells, self.columns)
        reach = np.full(len(points), np.inf)
        for axis, cell, origin, last in ((0, column, self.x, self.columns - 1), (1, row, self.y, self.rows - 1)):
            low = np.where(cell > 1, points[:, axis] - (origin + (cell - 1) * self.side), np.inf)
            high = np.where(cell + 1 < last, origin + (cell + 2) * self.side - points[:, axis], np.inf)
            reach = np.minimum(reach, np.minimum(low, high))
        return reach


@dataclass(frozen=True, slots=True)
class Blocks:
    """Queries and references of several cells, one cell after the other, relative to the middle of each cell."""

    queries: Float32[np.ndarray, "m 2"]
    query_ends: Index
    references: Float32[np.ndarray, "n 2"]
    reference_ends: Index


Reduce = Callable[[Blocks], Int64[np.ndarray, "m c"]]


def _search_cells(
    reduce: Reduce, grid: Grid, queries: Xy, references: Xy, wanted: int
) -> tuple[Int64[np.ndarray, "m c"], Bool[np.ndarray, " m"]]:
    """Candidates from the 3 x 3 cells around each query, and which rows are certified."""
    cells = grid.cells(queries)
    order = np.argsort(cells, kind="stable")
    used, first = np.unique(cells[order], return_index=True)
    ends = np.append(first, len(queries))
    around = _neighborhoods(grid, references, used)
    parts = []
    for group in _groups([len(a) for a in around]):
        rows = order[ends[group.start] : ends[group.stop]]
        counts = np.diff(ends[group.start : group.stop + 1])
        parts.append(_candidates(reduce, grid.centers(used[group]), queries[rows], counts, references, around[group]))
    found = np.empty_like(parts[0], shape=(len(queries), parts[0].shape[1]))
    found[order] = np.concatenate(parts)
    offsets = references[found] - queries[:, None]
    distances = np.where(found < 0, np.inf, np.hypot(offsets[..., 0], offsets[..., 1]))
    # The margin is that of float32: a candidate may be that much farther than one it displaced.
    return found, np.sort(distances, axis=1)[:, wanted - 1] <= grid.reach(queries, cells) * (1 - 1e-5)


def _neighborhoods(grid: Grid, references: Xy, cells: Index) -> list[Index]:
    """For each of ``cells``, the references in the 3 x 3 cells around it."""
    reference_cells = grid.cells(references)
    by_cell = np.argsort(reference_cells, kind="stable")
    starts = np.searchsorted(reference_cells[by_cell], np.arange(grid.columns * grid.rows + 1))
    around = []
    for cell in cells.tolist():
        row, column = divmod(cell, grid.columns)
        left, right = max(column - 1, 0), min(column + 2, grid.columns)
        rows = [r * grid.columns for r in range(max(row - 1, 0), min(row + 2, grid.rows))]
        inside = np.concatenate([by_cell[starts[r + left] : starts[r + right]] for r in rows])
        # A reduction over nothing is not defined; any reference does, as none is near enough to be certified.
        around.append(inside if len(inside) else by_cell[:1])
    return around


def _groups(sizes: list[int]) -> list[slice]:
    """Consecutive runs of cells, as long as their references stay within ``_GATHERED`` (or one cell alone)."""
    groups, start, total = [], 0, 0
    for i, size in enumerate(sizes):
        if i > start and total + size > _GATHERED:
            groups.append(slice(start, i))
            start, total = i, 0
        total += size
    return [*groups, slice(start, len(sizes))]


def _candidates(
    reduce: Reduce, centers: Xy, queries: Xy, counts: Index, references: Xy, around: list[Index]
) -> Int64[np.ndarray, "m c"]:
    """Indices of the nearest references in ``around[i]`` for each of the ``counts[i]`` queries of cell ``i``."""
    sizes = np.array([len(a) for a in around])
    gathered = np.concatenate(around)
    found = reduce(
        Blocks(
            (queries - np.repeat(centers, counts, axis=0)).astype(np.float32),
            np.cumsum(counts),
            (references[gathered] - np.repeat(centers, sizes, axis=0)).astype(np.float32),
            np.cumsum(sizes),
        )
    )
    # KeOps fills up rows of cells with too few references with index 0.
    missing = np.arange(found.shape[1]) >= np.repeat(sizes, counts)[:, None]
    return np.where(missing, -1, gathered[found])


def _reduction(count: int) -> Reduce:
    """The block-diagonal KeOps reduction that finds ``count`` candidates a query."""
    torch, lazy_tensor = _load()
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def ranges(ends: Index) -> Any:
        return torch.from_numpy(np.stack([np.append(0, ends[:-1]), ends], axis=1).astype(np.int32)).to(device)

    def reduce(blocks: Blocks) -> Int64[np.ndarray, "m c"]:
        x = lazy_tensor(torch.from_numpy(blocks.queries).to(device)[:, None, :])
        y = lazy_tensor(torch.from_numpy(blocks.references).to(device)[None, :, :])
        rows, columns = ranges(blocks.query_ends), ranges(blocks.reference_ends)
        each = torch.arange(1, len(rows) + 1, dtype=torch.int32, device=device)
        squares = ((x - y) ** 2).sum(-1)
        squares.ranges = (rows, each, columns, columns, each, rows)
        found: Int64[np.ndarray, "m c"] = squares.argKmin(count, dim=1).cpu().numpy()
        return found

    return reduce


def _compiler() -> str | None:
    """The C++ compiler KeOps would use."""
    return next(filter(None, (shutil.which(c) for c in (os.environ.get("CXX"), *_COMPILERS) if c)), None)


def _load() -> tuple[Any, Any]:
    """The modules torch and ``pykeops.torch.LazyTensor``, without the lines pykeops prints."""
    if not _compiler():
        raise MissingDependencyError(
            "the KeOps backend compiles on first use, and there is no C++ compiler on PATH",
            hint="install g++ or clang++, or take the backend 'kdtree'",
        )
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            import pykeops
            import torch
            from pykeops.torch import LazyTensor
    except ImportError as error:
        raise MissingDependencyError(
            f"the KeOps backend needs pykeops and torch: {error}",
            hint="pip install pykeops torch, or take the backend 'kdtree'",
        ) from error
    pykeops.set_verbose(False)
    return torch, LazyTensor
