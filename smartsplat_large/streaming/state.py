"""The state of a fit between two steps: the best so far, the place in the plan, and both as something to be saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from enum import Enum
from typing import Any

import numpy as np

from smartsplat_large.config import OptimizerConfig
from smartsplat_large.fitting.guard import Checkable, Patience
from smartsplat_large.fitting.loss import LossSums
from smartsplat_large.fitting.optimizer import AdamState
from smartsplat_large.gaussians import COLUMNS, Gaussians

_EXACT = 1e-12
"""A loss that cannot be bettered: what is below is rounding, and may be below zero."""

_RAW = ("xy", "raw", "mean", "square")


class Verdict(Enum):
    """What a state is, to the guard over a fit."""

    LOST = "no place to go on from"
    GOOD = "not the best"
    BEST = "the best so far"


@dataclass(slots=True)
class Best:
    """The state with the smallest full-size loss so far, and the guard that returns to it."""

    gaussians: Gaussians
    sums: LossSums | None = None
    loss: float = math.inf
    recent: float = math.inf
    """Smallest loss of late; budget that is moved may cost at first, and is no divergence."""
    rate: float = 1.0
    """Factor on all learning rates; halved at every divergence, and slowly made good."""
    lost: int = 0
    """How often the rates were halved."""

    @property
    def is_exact(self) -> bool:
        """Whether nothing is left to better."""
        return self.loss <= _EXACT

    def slow_down(self) -> None:
        """Halve the rates."""
        self.rate /= 2
        self.lost += 1

    def judge(self, gaussians: Checkable, sums: LossSums, loss: float, patience: Patience) -> Verdict:
        """Take note of the loss of a state. Of a lost one, rates are halved; the best one is for the caller to keep."""
        if patience.is_lost(gaussians, loss, self.recent):
            self.recent = self.loss
            self.slow_down()
            return Verdict.LOST
        self.recent = min(self.recent, loss)
        self.rate = min(patience.recovery * self.rate, 1.0)
        if loss >= self.loss or self.is_exact:
            return Verdict.GOOD
        self.sums, self.loss = sums, loss
        return Verdict.BEST


@dataclass(slots=True)
class Place:
    """How far a fit has come."""

    phase: int = 0
    """The phase under way, by its number in the plan."""
    taken: int = 0
    """Steps of all phases."""
    relocated: int = 0
    """Steps after which budget was moved last."""
    group: int = 0
    """Of a round of visits that has begun, the group of blocks that is next."""


@dataclass(slots=True)
class Account:
    """What a blocked phase knows beside the state: it sees the image whole only when it begins, and when budget has moved."""

    sums: LossSums | None = None
    """Of the image, kept up with what every visit changes; None where they are to be taken anew."""
    homes: np.ndarray | None = None
    """The owners of all Gaussians in a round that has begun."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state to be saved, or one that was. To be saved, its arrays are the fit's own: write them before it goes on."""

    stage: str
    """What is behind it: ``sampled``, ``solved``, ``descent`` (begun, at least) or ``fitted``."""
    arrays: Mapping[str, np.ndarray]
    values: Mapping[str, Any]
    """Plain values, as JSON takes and returns them. With the stage they tell any two states of one fit apart."""

    @property
    def gaussians(self) -> Gaussians:
        """Those every stage has: the start of the next, or the best so far."""
        return Gaussians(*(self.arrays[name] for name in COLUMNS))

    @property
    def best(self) -> Best:
        """Of a descent, or of what it came to."""
        told = self.values["best"]
        sums = None if told["sums"] is None else LossSums(*told["sums"])
        return Best(self.gaussians, sums, told["loss"], told["recent"], told["rate"], told["lost"])

    @property
    def place(self) -> Place:
        """Of a descent."""
        return Place(**self.values["place"])

    @property
    def account(self) -> Account:
        """Of a descent."""
        told = self.values["account"]
        return Account(None if told is None else LossSums(*told), self.arrays.get("homes"))

    def adam_state(self, config: OptimizerConfig) -> AdamState:
        """Of a descent, under the settings it had."""
        told = self.values["adam"]
        x, y = told["rate_xy"]
        return AdamState(
            config, **{name: self.arrays[f"adam_{name}"] for name in _RAW},
            rate_xy=(x, y), max_scale=told["max_scale"], steps=told["steps"],
        )  # fmt: skip


def start_snapshot(stage: str, gaussians: Gaussians) -> Snapshot:
    """Before the descent: ``sampled`` or ``solved``."""
    return Snapshot(stage, _columns(gaussians), {})


def descent_snapshot(state: AdamState, best: Best, place: Place, account: Account) -> Snapshot:
    """Between two steps, or two groups of visits."""
    arrays = _columns(best.gaussians) | {f"adam_{name}": getattr(state, name) for name in _RAW}
    if account.homes is not None:
        arrays["homes"] = account.homes
    adam = {"rate_xy": list(state.rate_xy), "max_scale": state.max_scale, "steps": state.steps}
    values = {"place": asdict(place), "adam": adam, "best": _told(best), "account": _listed(account.sums)}
    return Snapshot("descent", arrays, values)


def fitted_snapshot(best: Best) -> Snapshot:
    """After the last step."""
    return Snapshot("fitted", _columns(best.gaussians), {"best": _told(best)})


def _columns(gaussians: Gaussians) -> dict[str, np.ndarray]:
    return {name: getattr(gaussians, name) for name in COLUMNS}


def _told(best: Best) -> dict[str, Any]:
    return {"sums": _listed(best.sums), "loss": best.loss, "recent": best.recent, "rate": best.rate, "lost": best.lost}


def _listed(sums: LossSums | None) -> list[float] | None:
    return None if sums is None else list(astuple(sums))
