"""A stage of work as it is shown to people, on a terminal or a page."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping

from smartsplat_large.progress import Costs

_WINDOW_S = 30.0
"""The rate shown is that of so many seconds: long enough to be steady, short enough to follow what else the machine does."""


class Stage:
    """One stage of work: how far it is, how fast it goes, how long it still takes."""

    def __init__(self, name: str, total: float, unit: str, now: float, costs: Costs = ()) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done = 0.0
        self._costs = tuple(costs)
        self.facts: dict[str, object] = {}
        self._began = now
        self._recent = deque([(now, 0.0)])

    def advance(self, amount: float, facts: Mapping[str, object], now: float) -> None:
        """``amount`` more units were done by the time ``now``, in seconds."""
        self.done += amount
        self.facts |= facts
        self._recent.append((now, self._work(self.done)))
        while len(self._recent) > 2 and self._recent[1][0] < now - _WINDOW_S:
            self._recent.popleft()

    @property
    def rate(self) -> float | None:
        """Units a second, of those like the last one, at the pace of late; None while unknown."""
        pace = self._pace
        return pace / self._cost(self.done) if pace else None

    @property
    def left_s(self) -> float | None:
        """Seconds to go at the present pace."""
        pace = self._pace
        return max(self._work(self.total) - self._work(self.done), 0) / pace if pace else None

    @property
    def _pace(self) -> float | None:
        """Work a second."""
        (first, before), (last, after) = self._recent[0], self._recent[-1]
        return (after - before) / (last - first) if after > before and last > first else None

    def _work(self, units: float) -> float:
        """What the first ``units`` take together."""
        work = 0.0
        for count, cost in self._costs:
            work += min(units, count) * cost
            units -= min(units, count)
        return work + units

    def _cost(self, done: float) -> float:
        """What the last of ``done`` units takes."""
        for count, cost in self._costs:
            if done <= count:
                return cost
            done -= count
        return 1.0

    def described(self, room: int | None = None) -> str:
        """Facts, rate and amount, for people; what matters most comes first, and what ``room`` does not hold is left out."""
        rate = self.rate
        speed = [f"{_amount(rate)} {self.unit}/s"] if rate else []
        parts = [*self._facts(), *speed, f"{_amount(self.done)} of {_amount(self.total)} {self.unit}"]
        while room is not None and parts and len(", ".join(parts)) > room:
            parts.pop()
        return ", ".join(parts)

    def finished(self, now: float, compiling_s: float = 0.0) -> str:
        """What it came to, for people."""
        compiling = [f"and {clock(compiling_s)} compiling kernels"] if compiling_s >= 0.5 else []
        return ", ".join(
            [f"{_amount(self.done)} {self.unit} in {clock(now - self._began)}", *compiling, *self._facts()]
        )

    def left(self) -> str:
        """Time to go, for people; empty while unknown."""
        return "" if self.left_s is None else f"{clock(self.left_s)} left"

    @property
    def share(self) -> float:
        """How much of its work is done, 0 to 1."""
        work = self._work(self.total)
        return min(self._work(self.done) / work, 1.0) if work else 1.0

    def _facts(self) -> list[str]:
        return [_fact(name, value) for name, value in self.facts.items()]


class Stages:
    """Stages one after the other, by a clock that stands still while kernels are compiled.

    That happens once, and says nothing of the time left.
    """

    def __init__(self) -> None:
        self.current: Stage | None = None
        self.compiling_s: Callable[[], float] = float
        """Seconds for which kernels have been compiled so far."""
        self._compiled_before_s = 0.0

    def start(self, name: str, total: float, unit: str, costs: Costs = ()) -> Stage:
        """Go on to a stage; the one before should be finished."""
        self._compiled_before_s = self.compiling_s()
        self.current = Stage(name, total, unit, self.now(), costs)
        return self.current

    def finish(self) -> str | None:
        """End the stage under way; what it came to, in a line for people, or None where there is none."""
        stage, self.current = self.current, None
        if stage is None:
            return None
        return f"{stage.name}: {stage.finished(self.now(), self.compiling_s() - self._compiled_before_s)}"

    def now(self) -> float:
        """Seconds of the clock."""
        return time.monotonic() - self.compiling_s()


def _amount(value: float) -> str:
    if value == round(value) or value >= 100:
        return f"{value:.0f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def clock(seconds: float) -> str:
    """A duration, for people: ``9.9 s``, ``2:31``, ``1:02:31``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _fact(name: str, value: object) -> str:
    if name == "psnr" and isinstance(value, float):
        return f"PSNR {value:.2f} dB"
    if name == "bytes":
        return f"{value} bytes"
    return f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
