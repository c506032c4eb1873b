"""Exact steps taken by the workers of a cluster, each on what it holds; here they are only told how to go on.

Between two moves of budget nothing but losses, and moments of rows that several hold, travels: see :mod:`.holding`. Until a
stretch ends, the state it began with is the one here, so it can be taken again, by others, when a worker is lost.
"""

from __future__ import annotations

import dataclasses
import math
import uuid
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
from jaxtyping import Float64

from smartsplat_large import columns
from smartsplat_large.array_types import Index, Moments
from smartsplat_large.fitting.block import Members, members_by, spans
from smartsplat_large.fitting.loss import LossSums
from smartsplat_large.fitting.optimizer import AdamState
from smartsplat_large.fitting.rate import RatePrice
from smartsplat_large.gaussians import COLUMNS, Gaussians
from smartsplat_large.lattice import BlockGrid, Size
from smartsplat_large.render.base import Spread
from smartsplat_large.streaming.holding import (
    BEYOND,
    WIDENED,
    Escaped,
    GivenBack,
    Order,
    Reply,
    Share,
    Step,
    StretchTask,
    Swept,
    take_step,
)
from smartsplat_large.streaming.state import Best
from smartsplat_large.streaming.sweep import SweepTask, merge, tell
from smartsplat_large.streaming.workers import Crew, Workers

_HELD_BYTES_PER_COLUMN = 80
"""Raw value and two moments (12), best state and this one (8), records and moments (14), and once more as much as arrives."""
_HELD_TWICE = 1.25
"""Rows that all slots hold together, of one."""
_ASKED = 2
"""Times. Of a busy worker, an idle one may take an order over, and does not hold what it is about; the first still does."""


class HoldingLost(Exception):
    """A worker is gone, and with it what it held. The stretch may be begun anew."""


class NoRoom(Exception):
    """A slot would have to hold more than its worker has room for: most Gaussians may be in few blocks."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Stands for Gaussians that are held elsewhere."""

    is_finite: bool


def held_bytes(count: int, channels: int, slots: int) -> int:
    """What a slot of so many holds of ``count`` Gaussians that lie evenly, at its peak."""
    return _bytes_of_rows(math.ceil(count * _HELD_TWICE / slots), channels)


def _bytes_of_rows(count: int, channels: int) -> int:
    return count * (5 + channels) * _HELD_BYTES_PER_COLUMN


class Stretch:
    """Steps from ``state``, which does not change, on all slots of ``crew``.

    :meth:`sweep` and one of :meth:`step` and :meth:`go_back` take turns; :meth:`end` may come at any time.

    Raises
    ------
    NoRoom
        From the start: a slot's share is too large.
    HoldingLost
        From :meth:`sweep` and :meth:`end`.
    """

    def __init__(self, task: SweepTask, state: AdamState, best: Best, size: Size, crew: Crew, workers: Workers) -> None:
        self._task, self._name = StretchTask(crew.client, task, size), uuid.uuid4().hex
        self._state, self._best, self._is_judged = state, best.gaussians, best.sums is not None
        self._crew, self._workers = crew, workers
        members = foreseen_members(task, state.all_gaussians(), workers.spread)
        blocks = part_blocks(weights(task.grid, members), len(crew))
        self._rows = rows_of_parts(members, len(state), blocks)
        if crew.most_each * _bytes_of_rows(max(map(len, self._rows)), task.channels) > crew.room_bytes:
            raise NoRoom
        held = np.bincount(np.concatenate(self._rows), minlength=len(state))
        self._shared = np.flatnonzero(held > 1)
        self._places = [np.searchsorted(self._shared, rows[held[rows] > 1]) for rows in self._rows]
        self._own = _first_holders(self._rows, len(state))
        self._totals: Moments | None = None
        self._number = 0
        self._orders = [Order(self._name, 0, part, self._share(part, among)) for part, among in enumerate(blocks)]

    def _share(self, part: int, blocks: range) -> Share:
        rows = self._rows[part]
        shared = np.flatnonzero(np.isin(rows, self._shared, assume_unique=True))
        best = self._best.take(rows) if self._is_judged else None
        return Share(blocks, self._state.take(rows), best, shared, self._own[part])

    def sweep(self) -> tuple[Elsewhere, LossSums] | None:
        """The loss of the state; None if the stretch has to end here, because a Gaussian has come far."""
        replies = self._ask()
        if any(isinstance(reply, Escaped) for reply in replies):
            return None
        swept = cast("list[Swept]", replies)
        total = LossSums(0.0, 0.0, 0.0, 0)
        for block, sums in enumerate(sums for reply in swept for sums in reply.sums):
            total += sums
            tell(self._workers, self._task.sweep.grid, block, sums)
        self._totals = self._added_up(swept)
        return Elsewhere(all(reply.is_finite for reply in swept)), total

    def _added_up(self, swept: list[Swept]) -> Moments:
        """The moments of shared rows, block by block, as all rows' are where they are in one place."""
        width = swept[0].shared[0][1].shape[1]
        totals = np.zeros((len(self._shared), width), np.float32)
        for places, reply in zip(self._places, swept, strict=True):
            for seen, moments in reply.shared:
                merge(totals, 0, places[seen], moments)
        return totals

    def step(self, rate: float, price: RatePrice, *, is_best: bool) -> None:
        """Take a step from the state that was swept, which is remembered if it is the best."""
        totals = self._totals
        assert totals is not None
        self._number += 1
        self._orders = [
            Order(self._name, self._number, part, step=Step(rate, price, is_best, totals[places]))
            for part, places in enumerate(self._places)
        ]

    def go_back(self) -> None:
        """Return to the best state."""
        self._number += 1
        self._orders = [Order(self._name, self._number, part, goes_back=True) for part in range(len(self._rows))]

    def end(self) -> tuple[AdamState, Gaussians]:
        """The state, and the best one."""
        if not self._orders:
            self._number += 1
            self._orders = [Order(self._name, self._number, part) for part in range(len(self._rows))]
        self._orders = [dataclasses.replace(order, last=True) for order in self._orders]
        given = cast("list[GivenBack]", self._ask())
        state, best = self._state.copy(), self._best
        state.steps = given[0].state.steps
        if given[0].best is not None:
            best = Gaussians(*(columns.copied(getattr(best, name)) for name in COLUMNS))
        for rows, own, part in zip(self._rows, self._own, given, strict=True):
            state.put(rows[own], part.state)
            if part.best is not None:
                best.put(rows[own], part.best)
        return state, best

    def _ask(self) -> list[Reply]:
        missing, self._orders = {order.part: order for order in self._orders}, []
        replies: dict[int, Reply] = {}
        for _ in range(_ASKED):
            replies |= zip(missing, self._crew.ask(take_step, self._task, missing), strict=True)
            missing = {part: order for part, order in missing.items() if replies[part] is None}
            if not missing:
                return list(replies.values())
        raise HoldingLost


def foreseen_members(task: SweepTask, gaussians: Gaussians, spread: Spread) -> Members:
    """The Gaussians that each block may see in some steps to come."""
    projection = task.renderer.project(gaussians, task.pitch, spread, columns.empty)
    return members_by(spans(projection, task.grid, WIDENED, BEYOND), task.grid)


def weights(grid: BlockGrid, members: Members) -> Float64[np.ndarray, " b"]:
    """What the blocks of a grid cost beside each other: by their pixels, and by the Gaussians in them."""
    pixels, seen = np.array([block.core.pixels for block in grid]), np.diff(members.start)
    found: Float64[np.ndarray, " b"] = pixels / pixels.sum() + seen / max(1, seen.sum())
    return found


def part_blocks(weights: Float64[np.ndarray, " b"], count: int) -> list[range]:
    """Blocks, in their order, in ``count`` parts of about the same weight, none of them empty."""
    weight, edges = np.cumsum(weights), [0]
    for part in range(1, count):
        cuts = weight[edges[-1] : len(weight) - count + part]
        edges.append(edges[-1] + 1 + int(np.abs(cuts - weight[-1] * part / count).argmin()))
    return [range(*edge) for edge in pairwise([*edges, len(weight)])]


def rows_of_parts(members: Members, count: int, parts: list[range]) -> list[Index]:
    """Which of ``count`` Gaussians each part should hold; the first one has those, too, that show nowhere."""
    is_here, rows = np.ones(count, bool), []
    is_here[members.ids] = False
    # One part after the other: a table of all would be larger than the state where there are many.
    for blocks in parts:
        is_here[members.ids[members.start[blocks.start] : members.start[blocks.stop]]] = True
        rows.append(np.flatnonzero(is_here))
        is_here[:] = False
    return rows


def _first_holders(rows_of: list[Index], count: int) -> list[Index]:
    """Which of its rows each part is the first to hold."""
    free, own = np.ones(count, bool), []
    for rows in rows_of:
        own.append(np.flatnonzero(free[rows]))
        free[rows] = False
    return own
