"""Matching pursuit: where one more Gaussian would gain most, and which one would be missed least.

With the residual ``r`` (target minus rendering) and a kernel ``G``, the best amplitude is ``<r, G> / <G, G>`` and lowers the
squared error by ``<r, G>^2 / <G, G>``. Taking a Gaussian of colour ``c`` away adds ``|c|^2 <G, G> + 2 <r, c G>`` to it, with
``<G, G> = pi s_x s_y``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64
from numba import njit

from smartsplat_large import columns
from smartsplat_large.array_types import Color, Index, Planes, Scale, Xy
from smartsplat_large.fitting.peaks import blurred, maxima
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Block
from smartsplat_large.ordering import least

PROFIT = 0.05
"""A proposal is taken if it gains this share of what the removal costs: neighbours make up for most of what goes, and the new
one settles where it gains more than its first guess."""
WIDTHS = (0.12, 0.25, 0.5, 1.0, 2.0)
"""Standard deviations tried, as shares of the Gaussians' mean spacing."""
SMALLEST_WIDTH = 0.7
"""Pixels: below it, a peak of the residual is noise of one pixel."""
APART = 2.0
"""No newcomer lies within so many standard deviations of one that gains more: both would mend the same residual."""
FARTHEST = 96
_COARSE = 4.0
"""A width of so many pixels is sought at half the resolution, where it costs a fourth."""
_SHORTEST_SIDE = 32
_LISTED = 12
"""Peaks looked at for every proposal wanted: most lie on a better one's flank or are it, at another width."""


@dataclass(frozen=True, slots=True)
class Proposals:
    """Gaussians that one block would add, with what each gains in squared error at full size."""

    xy: Xy
    scale: Scale
    color: Color
    gain: Float32[np.ndarray, "n"]

    @staticmethod
    def concatenate(parts: list[Proposals]) -> Proposals:
        return Proposals(*(np.concatenate(column) for column in zip(*(p.columns for p in parts), strict=True)))

    @property
    def columns(self) -> tuple[np.ndarray, ...]:
        return self.xy, self.scale, self.color, self.gain

    def take(self, index: Any) -> Proposals:
        """Those at ``index``."""
        return Proposals(*(column[index] for column in self.columns))

    def best(self, count: int) -> Proposals:
        """The ``count`` with the largest gains, best first; equal gains in their order here."""
        index = _ranked(self.gain)[:count]
        return Proposals(*(columns.taken(column, index) for column in self.columns))

    def gaussians(self) -> Gaussians:
        return Gaussians(self.xy, self.scale, np.zeros(len(self.xy), np.float32), self.color)


class BestProposals:
    """Of the proposals of all blocks, which are added one block after the other, the ``count`` best and some more."""

    def __init__(self, count: int, channels: int) -> None:
        room, f32 = 2 * count, np.float32
        self._count, self._held, self._least = count, 0, -np.inf
        self._room = Proposals(
            columns.empty((room, 2)), columns.empty((room, 2), f32), columns.empty((room, channels), f32),
            columns.empty(room, f32),
        )  # fmt: skip

    def add(self, proposals: Proposals) -> None:
        """Add those that may still be among the best."""
        # Of equal gains, those added first are preferred.
        better = proposals.take(proposals.gain > self._least).best(self._count)
        if self._held + len(better.gain) > len(self._room.gain):
            self._drop()
        start, self._held = self._held, self._held + len(better.gain)
        for column, added in zip(self._room.columns, better.columns, strict=True):
            column[start : self._held] = added

    def _drop(self) -> None:
        best = _ranked(self.all.gain)[: self._count]
        for column in self._room.columns:
            column[: self._count] = columns.taken(column, best)
        self._held, self._least = self._count, float(self._room.gain[self._count - 1])

    @property
    def all(self) -> Proposals:
        return self._room.take(slice(self._held))


def removal_cost(gaussians: Gaussians, projection: Float64[np.ndarray, "n c"]) -> Float64[np.ndarray, "n"]:
    """Squared error, summed over pixels and channels, that taking each Gaussian away would add; below 0 if it would gain.

    Parameters
    ----------
    projection
        ``<r, G>`` of each Gaussian and channel, with the residual ``r``: zero where the colours are the best possible.
    """
    cost = columns.empty(len(gaussians))
    for rows in columns.chunks(len(cost)):
        color, scale = gaussians.color[rows], gaussians.scale[rows]
        cost[rows] = np.square(color, dtype=np.float64).sum(1) * np.pi * scale.prod(1, dtype=np.float64)
        cost[rows] += 2 * (projection[rows] * color).sum(1)
    return cost


def reach(pitch: float, spacing: float) -> int:
    """Pixels around a block that :func:`propose` should see: two standard deviations of the widest Gaussian it tries.

    At most :data:`FARTHEST`, so that memory stays that of a block; wider ones are then a little underestimated at its edges.
    """
    return min(int(np.ceil(2 * max(WIDTHS) * spacing / pitch)), FARTHEST)


def propose(residual: Planes, block: Block, pitch: float, spacing: float, count: int) -> Proposals:
    """The ``count`` best additions to a block: maxima of the gain over place and width, none close to a better one.

    Parameters
    ----------
    residual
        Target minus rendering over ``block.outer``, at ``pitch`` level-0 pixels per pixel.
    spacing
        Mean distance of Gaussians in level-0 pixels.
    """
    peaks = _peaks(residual, sorted({max(w * spacing / pitch, SMALLEST_WIDTH) for w in WIDTHS}))
    height, width = residual.shape[1:]
    # What lies beside the core counts, or the same peak would be proposed on both sides of a block's edge.
    listed = _ranked(peaks.gain)[: _LISTED * -(-count * block.outer.pixels // block.core.pixels)]
    apart = listed[_apart(peaks.xy[listed], peaks.scale[listed, 0], APART, height, width)]
    left, top = block.core.x - block.outer.x, block.core.y - block.outer.y
    x, y = peaks.xy[apart].T
    inside = (x >= left) & (x < left + block.core.width) & (y >= top) & (y < top + block.core.height)
    best = peaks.take(apart[inside][:count])
    xy = (best.xy + np.array([block.outer.x, block.outer.y])) * pitch
    return Proposals(xy, best.scale * np.float32(pitch), best.color, best.gain * np.float32(pitch**2))


def _peaks(residual: Planes, widths: list[float]) -> Proposals:
    """Local maxima of the gain at each of the ascending ``widths``, in pixels of the residual, all they are at once."""
    plane, shrunk, blur = residual, 1, 0.0
    found = []
    for width in widths:
        while width / shrunk >= _COARSE and min(plane.shape[1:]) >= 2 * _SHORTEST_SIDE:
            plane, shrunk = _halved(plane), 2 * shrunk
        # A Gaussian blurred by another is one of the sum of the variances: each width starts from the one before.
        more = np.sqrt(width**2 - blur**2) / shrunk
        plane, blur = blurred(plane, more), width
        y, x, gain = maxima(plane, 4 * np.pi * width**2)
        xy = (np.stack([x, y], axis=1) + 0.5) * shrunk
        scale = np.full((len(x), 2), width, np.float32)
        found.append(Proposals(xy, scale, 2 * plane[:, y, x].T, gain))
    return Proposals.concatenate(found)


def _ranked(gain: Float32[np.ndarray, "n"]) -> Index:
    """Rows of ``gain``, which is nowhere below 0, from the largest on; equal ones in order."""
    # Such floats are in the order of their bits; keys that are all different need no stable sort, which is much slower.
    keys = columns.empty(len(gain), np.uint64)
    for rows in columns.chunks(len(gain)):
        keys[rows] = ~gain[rows].view(np.uint32)
        keys[rows] <<= np.uint64(32)
        keys[rows] |= np.arange(rows.start, rows.stop, dtype=np.uint64)
    keys.sort()
    keys &= np.uint64(0xFFFFFFFF)
    return keys.view(np.int64)


def _halved(plane: Planes) -> Planes:
    """Means of 2 x 2 boxes; a last row or column without a partner is its own."""
    _, height, width = plane.shape
    if height % 2 or width % 2:
        plane = np.pad(plane, ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    rows = plane[:, 0::2] + plane[:, 1::2]
    half: Planes = (rows[:, :, 0::2] + rows[:, :, 1::2]) * np.float32(0.25)
    return half


@njit(cache=True, nogil=True, error_model="numpy")
def _apart(xy: Any, width: Any, factor: float, height: int, columns: int) -> Bool[np.ndarray, "n"]:
    """Which of the peaks, best first, lie farther than ``factor`` widths from every better one that is kept."""
    taken = np.zeros((height, columns), np.bool_)
    kept = np.zeros(len(xy), np.bool_)
    for i in range(len(xy)):
        x, y = min(int(xy[i, 0]), columns - 1), min(int(xy[i, 1]), height - 1)
        if taken[y, x]:
            continue
        kept[i] = True
        radius = factor * width[i]
        far = int(radius)
        for v in range(max(y - far, 0), min(y + far + 1, height)):
            half = int(np.sqrt(radius**2 - (v - y) ** 2))
            taken[v, max(x - half, 0) : min(x + half + 1, columns)] = True
    return kept


def exchange(
    cost: Float64[np.ndarray, "n"], proposals: Proposals, limit: int, growth: int = 0
) -> tuple[np.ndarray, Proposals]:
    """Which Gaussians to give up for which proposals: the cheapest for the most gainful, while there is a profit.

    Parameters
    ----------
    cost
        What the removal of each Gaussian costs: :func:`removal_cost`.
    limit
        Gaussians to give up at most.
    growth
        Newcomers beyond those given up, as far as there are proposals; below 0, Gaussians given up for none.

    Returns
    -------
    index, accepted
        Rows to give up, and what to put there.
    """
    best = proposals.best(limit + max(growth, 0))
    cheap = least(cost, min(limit, len(cost)))
    costs = columns.taken(cost, cheap)
    order = np.argsort(costs, kind="stable")
    index, costs = columns.taken(cheap, order), columns.taken(costs, order)
    del order
    profitable = 0
    for rows in columns.chunks(min(len(best.gain), len(index))):
        profitable += int(np.count_nonzero(best.gain[rows] > PROFIT * costs[rows]))
    if growth < 0:
        given_up = max(profitable, min(-growth, len(index)))
        return index[:given_up], best.take(slice(max(given_up + growth, 0)))
    return index[:profitable], best.take(slice(profitable + growth))
