"""When a fit does what: learning rates, moves of budget, and the rounds between two of these.."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from smartsplat_large.config import FitConfig, OptimizerConfig

_TAPER = (1.75, 0.25)
"""The first and the last relocation, as multiples of the average one."""
_UNSETTLED = 0.2
"""Factor on the rates right after one."""


def relocated_share(taken: int, config: FitConfig) -> float:
    """Share of the Gaussians to move after step ``taken``: none most of the time, falling linearly from move to move."""
    last = _last_relocation(config)
    if not config.relocate_share or taken % config.relocate_every or taken > last:
        return 0.0
    first, least = _TAPER
    return config.relocate_share * (first + (least - first) * taken / last)


def _last_relocation(config: FitConfig) -> int:
    return math.floor(config.relocate_until * config.steps)


def rate_at(taken: int, relocated: int, config: FitConfig) -> float:
    """Factor on the learning rates after step ``taken``, where budget was moved last after step ``relocated``, 0 for never."""
    since, settle = taken - relocated, config.relocate_settle
    grown = since / settle if relocated and since < settle else 1.0
    return (_UNSETTLED + (1 - _UNSETTLED) * grown) * _decayed(taken / config.steps, config.optimizer)


def _decayed(progressed: float, config: OptimizerConfig) -> float:
    """Factor after a share ``progressed`` of the steps: constant, then down to the floor."""
    if config.decay_share == 0 or progressed <= 1 - config.decay_share:
        return 1.0
    left = (1 - progressed) / config.decay_share
    if config.decay == "cosine":
        left = (1 - math.cos(math.pi * left)) / 2
    return config.decay_floor + (1 - config.decay_floor) * left


@dataclass(frozen=True, slots=True)
class Round:
    """Steps that every Gaussian takes in one go, block by block."""

    begin: int
    """Steps of the fit before it."""
    steps: int
    shifted: bool
    """Whether the grid lies half a block aside."""


def rounds(begin: int, end: int, config: FitConfig) -> list[Round]:
    """The rounds of the steps from ``begin`` to ``end``: at most ``steps_per_visit`` long, none across a move of budget.

    Every other one has the grid shifted, the last one among them, so that no block border is at the same place twice in a
    row and the last word on every border is that of a block around it.
    """
    last = _last_relocation(config) if config.relocate_share else -1
    moves = [t for t in range(begin + 1, end) if t % config.relocate_every == 0 and t <= last]
    edges = [begin, *moves, end]
    parts: list[tuple[int, int]] = []
    for first, after in itertools.pairwise(edges):
        count = -(-(after - first) // config.steps_per_visit)
        cuts = [first + (after - first) * i // count for i in range(count + 1)] if count else []
        parts += itertools.pairwise(cuts)
    return [Round(a, b - a, (len(parts) - i) % 2 == 1) for i, (a, b) in enumerate(parts)]
