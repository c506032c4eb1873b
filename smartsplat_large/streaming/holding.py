"""What a slot of a cluster holds while exact steps are taken there: blocks of pixels, and all rows that show in them.

Rows near the border of two slots' blocks are held by both. Each tells what its blocks say of these; the sum over all blocks
comes back with the next order, and both take the same step from it, to the same bits. So all that travels for a step are
moments of such rows, a number of losses, and a rate.

A holding is one step's result beside the next. An order that comes twice is obeyed once; one that comes to a process that does
not hold what it is about, because another one was lost, is answered with None.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numba import njit

from smartsplat_large.array_types import Index, Moments
from smartsplat_large.fitting.block import Spans, members_by, spans
from smartsplat_large.fitting.loss import LossSums
from smartsplat_large.fitting.optimizer import AdamState
from smartsplat_large.fitting.rate import RatePrice
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Size
from smartsplat_large.render.base import Gradients, Projection
from smartsplat_large.streaming.seen import Seen
from smartsplat_large.streaming.sweep import SweepTask, fit_block, gradients_of, merge

WIDENED, BEYOND = 3.0, 16.0
"""A Gaussian is held where it would show were it so many times as wide, and so many pixels more: for some steps to come."""


@dataclass(frozen=True, slots=True)
class StretchTask:
    """What the tasks of all stretches of a phase share: no Gaussians, no pixels."""

    client: str
    sweep: SweepTask
    size: Size


@dataclass(frozen=True, slots=True)
class Share:
    """What a slot is to hold."""

    blocks: range
    state: AdamState
    best: Gaussians | None
    """The best state of these rows; None if none has been judged yet."""
    shared: Index
    """Which of them are held elsewhere, too."""
    own: Index
    """Which of them this slot gives back."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step from the state that was swept last."""

    rate: float
    price: RatePrice
    is_best: bool
    """Whether that state is the best so far."""
    totals: Moments
    """Of the shared rows, summed over all blocks."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a slot is to do before it sweeps its blocks."""

    stretch: str
    """No other one has its name."""
    number: int
    part: int
    share: Share | None = None
    """What to hold from now on."""
    step: Step | None = None
    goes_back: bool = False
    """Return to the best state."""
    last: bool = False
    """Give all back, instead of sweeping."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What the blocks of a slot say."""

    sums: list[LossSums]
    is_finite: bool
    shared: list[tuple[Index, Moments]]
    """Of every block, which of the shared rows it sees, by their place among them, and their moments."""


@dataclass(frozen=True, slots=True)
class Escaped:
    """A Gaussian shows where it is not held: this state is not swept."""


@dataclass(frozen=True, slots=True)
class GivenBack:
    """The rows of :attr:`Share.own`, and the best state of them where it is a new one."""

    state: AdamState
    best: Gaussians | None


Reply = Swept | Escaped | GivenBack | None

_BROKEN = -2
"""Stands for the last order where a step failed, maybe half-way: there is no order to go on with."""


@dataclass(slots=True)
class Holding:
    """The rows of one share, as they are after so many orders."""

    task: StretchTask
    share: Share
    state: AdamState
    best: Gaussians | None = None
    """A better state than that of the share."""
    foreseen: Spans | None = None
    """The blocks where every row is held."""
    gaussians: Gaussians | None = None
    projection: Projection | None = None
    moments: Moments | None = None
    moved: int = 0
    """The order whose step has been taken."""
    replied: tuple[int, Reply] = (-1, None)
    busy: threading.Lock = field(default_factory=threading.Lock)

    def obey(self, order: Order) -> Reply:
        """Do what is ordered, once."""
        with self.busy:
            number, reply = self.replied
            if order.number == number:
                return reply
            if order.number != number + 1:
                return None
            if self.moved < order.number:  # a sweep that failed is made again
                self.replied = _BROKEN, None
                self._move(order)
                self.moved, self.replied = order.number, (number, reply)
            reply = self._give_back() if order.last else self._sweep()
            self.replied = (order.number, reply)
            return reply

    def _move(self, order: Order) -> None:
        if order.goes_back:
            best = self.share.best if self.best is None else self.best
            # A first state is the best one, or it is this one.
            best = self.gaussians if best is None else best
            assert best is not None
            self.state = self.state.returned_to(best, self.task.size)
        elif order.step is not None:
            assert self.moments is not None
            if order.step.is_best:
                self.best = self.gaussians
            self.moments[self.share.shared] = order.step.totals
            self.state.step(self._gradients, order.step.rate, price=order.step.price)

    def _gradients(self, rows: slice) -> Iterator[tuple[slice, Gradients]]:
        assert self.gaussians is not None
        assert self.projection is not None
        assert self.moments is not None
        return gradients_of(self.task.sweep, self.gaussians, self.projection, self.moments[rows], rows)

    def _sweep(self) -> Swept | Escaped:
        task, pitch = self.task.sweep, self.task.sweep.pitch
        gaussians = self.gaussians = self.state.gaussians()
        projection = self.projection = task.renderer.project(gaussians, pitch)
        seen = spans(projection, task.grid)
        if self.foreseen is None:
            self.foreseen = spans(projection, task.grid, WIDENED, BEYOND)
        if not _are_within(seen, self.foreseen):
            return Escaped()
        members, place = members_by(seen, task.grid), np.full(len(gaussians), -1)
        place[self.share.shared] = np.arange(len(self.share.shared))
        sums, shared, total = [], [], None
        for block in self.share.blocks:
            ids = members.of(block)
            block_sums, moments = fit_block(task, Seen(block, task.renderer, pitch, ids, gaussians, projection))
            if total is None:
                total = np.zeros((len(gaussians), moments.shape[1]), np.float32)
            merge(total, 0, ids, moments)
            sums.append(block_sums)
            places = place[ids]
            shared.append((places[places >= 0], moments[places >= 0]))
        self.moments = total
        return Swept(sums, gaussians.is_finite, shared)

    def _give_back(self) -> GivenBack:
        return GivenBack(self.state.take(self.share.own), None if self.best is None else self.best.take(self.share.own))


_ABANDONED_S = 3600.0
"""A client that has ordered nothing for so long was killed before it could say so, or begins its stretch anew."""


@dataclass(slots=True)
class _Kept:
    """What is held here for a client, in the stretch it is in."""

    stretch: str
    parts: dict[int, Holding] = field(default_factory=dict)
    used: float = 0.0
    """When an order came last."""


_kept: dict[str, _Kept] = {}
"""By client."""
_turn = threading.Lock()


def take_step(task: StretchTask, order: Order) -> Reply:
    """The task of a slot."""
    with _turn:
        holding = _holding(task, order)
    if holding is None:
        return None
    reply = holding.obey(order)
    if order.last:
        forget(task.client, order.part)
    return reply


def _holding(task: StretchTask, order: Order) -> Holding | None:
    """What an order is about, which may bring it; other stretches of the client, and abandoned ones, end with that."""
    kept, now = _kept.get(task.client), time.monotonic()
    if order.share is not None:
        for client in [client for client, other in _kept.items() if now - other.used > _ABANDONED_S]:
            del _kept[client]
        if kept is None or kept.stretch != order.stretch:
            kept = _Kept(order.stretch)
        _kept[task.client] = kept
        kept.parts[order.part] = Holding(task, order.share, order.share.state)
    if kept is None or kept.stretch != order.stretch:
        return None
    kept.used = now
    return kept.parts.get(order.part)


def forget(client: str, part: int | None = None) -> None:
    """Give up what is held for a client, or one part of it."""
    with _turn:
        if part is None:
            _kept.pop(client, None)
        elif client in _kept:
            _kept[client].parts.pop(part, None)


@njit(cache=True, nogil=True, error_model="numpy")
def _are_within(spans: Spans, foreseen: Spans) -> bool:
    for i in range(len(spans)):
        first, last, top, bottom = spans[i]
        if first > last or top > bottom:
            continue
        if first < foreseen[i, 0] or last > foreseen[i, 1] or top < foreseen[i, 2] or bottom > foreseen[i, 3]:
            return False
    return True
