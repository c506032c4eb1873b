"""The KeOps backend of nearest neighbours: brute force over the cells around each query, with a certificate.

References are sorted into square cells and every query is compared, by one block-sparse KeOps reduction, with those in
the 3 x 3 cells around it, in float32 relative to its own cell. A row is *certified* when as many candidates as asked
for are no farther than the border of what was searched. The rest is searched again in cells twice as wide, until the
cells hold everything. All of it is done by torch where KeOps runs: on a GPU, sorting on the host would take most of the time.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from smartsplat_large.array_types import Xy
from smartsplat_large.errors import MissingDependencyError

if TYPE_CHECKING:
    from torch import Tensor

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


def search(references: Xy, wanted: int) -> Search:
    """A function from queries to the ``wanted`` nearest references of each, ``(m, wanted)`` indices.

    They are chosen by their distances in float64, from candidates that are the nearest up to float32 rounding; there must be
    that many references.

    Raises
    ------
    MissingDependencyError
        pykeops or torch is not installed, or there is no C++ compiler on PATH.
    """
    torch, lazy_tensor = _load()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reduce = _reduction(lazy_tensor, -(-(wanted + _SPARE) // _STEP) * _STEP)
    points = torch.from_numpy(references).to(device)
    sorted_ = [Sorted.into(Grid.around(points), points)]

    def run(queries: Xy) -> Int64[np.ndarray, "m c"]:
        asked = torch.from_numpy(queries).to(device)
        found, certified = _search_cells(reduce, sorted_[0], asked, wanted)
        level = 0
        while not certified.all():
            level += 1
            if level == len(sorted_):
                sorted_.append(Sorted.into(sorted_[-1].grid.coarser(), points))
            pending = (~certified).nonzero()[:, 0]
            found[pending], certified[pending] = _search_cells(reduce, sorted_[level], asked[pending], wanted)
        result: Int64[np.ndarray, "m c"] = found.cpu().numpy()
        return result

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
    def around(points: Float64[Tensor, "n 2"]) -> Grid:
        """Cells that would hold ``_PER_CELL`` points each if these were spread evenly."""
        (x, y), (x_end, y_end) = points.amin(0).tolist(), points.amax(0).tolist()
        width, height = x_end - x, y_end - y
        cells = max(1.0, len(points) / _PER_CELL)
        # A box without height is divided along its width alone, and a box that is one point is one cell.
        side = max(math.sqrt(width * height / cells), max(width, height) / cells) or 1.0
        return Grid(x, y, x_end, y_end, side)

    def coarser(self) -> Grid:
        """Cells twice as wide."""
        return Grid(self.x, self.y, self.x_end, self.y_end, 2 * self.side)

    @property
    def columns(self) -> int:
        return int((self.x_end - self.x) // self.side) + 1

    @property
    def rows(self) -> int:
        return int((self.y_end - self.y) // self.side) + 1

    def cells(self, points: Float64[Tensor, "n 2"]) -> Int64[Tensor, " n"]:
        """The number of each point's cell, row by row."""
        column = ((points[:, 0] - self.x) / self.side).floor().clamp(0, self.columns - 1).long()
        row = ((points[:, 1] - self.y) / self.side).floor().clamp(0, self.rows - 1).long()
        return row * self.columns + column

    def centers(self, cells: Int64[Tensor, " n"]) -> Float64[Tensor, "n 2"]:
        """The middle of each cell."""
        import torch

        column, row = (cells % self.columns).double(), (cells // self.columns).double()
        return torch.stack([self.x + (column + 0.5) * self.side, self.y + (row + 0.5) * self.side], dim=1)

    def reach(self, points: Float64[Tensor, "n 2"], cells: Int64[Tensor, " n"]) -> Float64[Tensor, " n"]:
        """How far each point can see before it leaves the 3 x 3 cells around ``cells``; no border beyond the grid."""
        column, row = cells % self.columns, cells // self.columns
        reach = points.new_full((len(points),), math.inf)
        for axis, cell, origin, last in ((0, column, self.x, self.columns - 1), (1, row, self.y, self.rows - 1)):
            low = points[:, axis] - (origin + (cell - 1) * self.side)
            high = origin + (cell + 2) * self.side - points[:, axis]
            reach = reach.minimum(low.where(cell > 1, math.inf)).minimum(high.where(cell + 1 < last, math.inf))
        return reach


@dataclass(frozen=True, slots=True)
class Sorted:
    """References, cell by cell of a grid: those of cell ``c`` are ``points[order[starts[c] : starts[c + 1]]]``."""

    grid: Grid
    points: Float64[Tensor, "n 2"]
    order: Int64[Tensor, " n"]
    starts: Int64[Tensor, " cells_and_1"]

    @staticmethod
    def into(grid: Grid, points: Float64[Tensor, "n 2"]) -> Sorted:
        import torch

        cells, order = grid.cells(points).sort(stable=True)
        starts = torch.searchsorted(cells, torch.arange(grid.columns * grid.rows + 1, device=points.device))
        return Sorted(grid, points, order, starts)

    def around(self, cells: Int64[Tensor, " u"]) -> tuple[Int64[Tensor, "u 3"], Int64[Tensor, "u 3"]]:
        """For each cell, where in ``order`` the references of the 3 x 3 cells around it are: three runs and their lengths."""
        import torch

        columns, rows = self.grid.columns, self.grid.rows
        column, row = cells % columns, (cells // columns)[:, None] + torch.tensor([-1, 0, 1], device=cells.device)
        left, right = (column - 1).clamp(min=0)[:, None], (column + 2).clamp(max=columns)[:, None]
        base = row.clamp(0, rows - 1) * columns
        first = self.starts[base + left]
        counts = (self.starts[base + right] - first) * ((row >= 0) & (row < rows))
        # A reduction over nothing is not defined; any reference does, as none is near enough to be certified.
        counts[:, 0] += counts.sum(1) == 0
        return first.clamp(max=len(self.order) - 1), counts


@dataclass(frozen=True, slots=True)
class Blocks:
    """Queries and references of several cells, one cell after the other, relative to the middle of each cell."""

    queries: Float32[Tensor, "m 2"]
    query_counts: Int64[Tensor, " u"]
    references: Float32[Tensor, "n 2"]
    reference_counts: Int64[Tensor, " u"]


Reduce = Callable[[Blocks], Any]
"""Indices of the candidates of each query, ``(m, c)``, among all references of the blocks."""


def _search_cells(
    reduce: Reduce, references: Sorted, queries: Float64[Tensor, "m 2"], wanted: int
) -> tuple[Int64[Tensor, "m w"], Bool[Tensor, " m"]]:
    """The nearest in the 3 x 3 cells around each query, ``-1`` where there are too few, and which rows are certified."""
    import torch

    cells, order = references.grid.cells(queries).sort(stable=True)
    used, counts = torch.unique_consecutive(cells, return_counts=True)
    first, lengths = references.around(used)
    parts, begin = [], 0
    for group in _groups(lengths.sum(1).tolist()):
        rows = order[begin : begin + int(counts[group].sum())]
        centers = references.grid.centers(used[group])
        parts.append(
            _candidates(reduce, centers, queries[rows], counts[group], references, first[group], lengths[group])
        )
        begin += len(rows)
    found = torch.empty((len(queries), parts[0].shape[1]), dtype=torch.int64, device=queries.device)
    found[order] = torch.cat(parts)
    squares = (references.points[found] - queries[:, None]).square().sum(2).where(found >= 0, math.inf)
    nearest, columns = squares.topk(wanted, dim=1, largest=False)
    # The margin is that of float32: a candidate may be that much farther than one it displaced.
    reach = references.grid.reach(queries, references.grid.cells(queries)) * (1 - 1e-5)
    return found.gather(1, columns), nearest[:, -1].sqrt() <= reach


def _groups(sizes: Sequence[int]) -> list[slice]:
    """Consecutive runs of cells, as long as their references stay within ``_GATHERED`` (or one cell alone)."""
    ends, groups, start = np.cumsum(sizes), [], 0
    while start < len(ends):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _GATHERED, side="right")))
        groups.append(slice(start, stop))
        start = stop
    return groups


def _candidates(
    reduce: Reduce, centers: Float64[Tensor, "u 2"], queries: Float64[Tensor, "m 2"], counts: Int64[Tensor, " u"],
    references: Sorted, first: Int64[Tensor, "u 3"], lengths: Int64[Tensor, "u 3"],
) -> Int64[Tensor, "m c"]:  # fmt: skip
    """Indices of the nearest references in three runs a cell for each of the ``counts[i]`` queries of cell ``i``."""
    import torch

    sizes, runs = lengths.sum(1), lengths.reshape(-1)
    shift = first.reshape(-1) - runs.cumsum(0) + runs
    gathered = torch.arange(int(sizes.sum()), device=runs.device) + shift.repeat_interleave(runs)
    gathered = references.order[gathered]
    found = reduce(
        Blocks(
            (queries - centers.repeat_interleave(counts, 0)).float(),
            counts,
            (references.points[gathered] - centers.repeat_interleave(sizes, 0)).float(),
            sizes,
        )
    )
    # KeOps fills up rows of cells with too few references with index 0.
    missing = torch.arange(found.shape[1], device=found.device) >= sizes.repeat_interleave(counts)[:, None]
    return gathered[found].masked_fill(missing, -1)


def _reduction(lazy_tensor: Any, count: int) -> Reduce:
    """The block-diagonal KeOps reduction that finds ``count`` candidates a query."""
    import torch

    def ranges(counts: Int64[Tensor, " u"]) -> Any:
        ends = counts.cumsum(0)
        return torch.stack([ends - counts, ends], dim=1).int()

    def reduce(blocks: Blocks) -> Any:
        x, y = lazy_tensor(blocks.queries[:, None, :]), lazy_tensor(blocks.references[None, :, :])
        rows, columns = ranges(blocks.query_counts), ranges(blocks.reference_counts)
        each = torch.arange(1, len(rows) + 1, dtype=torch.int32, device=rows.device)
        squares = ((x - y) ** 2).sum(-1)
        squares.ranges = (rows, each, columns, columns, each, rows)
        return squares.argKmin(count, dim=1)

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
