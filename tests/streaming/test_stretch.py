"""Steps that workers elsewhere take on what they hold: the same bits as here, also when holdings are lost or left."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from small_fits import COLUMNS, waves

from smartsplat_large.config import PRESETS, FitConfig
from smartsplat_large.memory import GiB
from smartsplat_large.progress import Silent
from smartsplat_large.render.cpu import CpuRenderer
from smartsplat_large.sampling import sample
from smartsplat_large.streaming import fit as fit_module
from smartsplat_large.streaming import holding, stretch
from smartsplat_large.streaming.fit import fit_gaussians
from smartsplat_large.streaming.holding import Escaped, GivenBack, Order, Swept
from smartsplat_large.streaming.plan import plan_fit
from smartsplat_large.streaming.state import Best
from smartsplat_large.streaming.workers import Workers, open_workers

CONFIG = PRESETS["balanced"].replace(
    ratio=None, gaussians=1500, steps=24, relocate_every=8, relocate_settle=0, solve_iterations=2, coarse_share=0.3
)


@dataclass
class FakeCrew:
    """Slots of this process; everything travels as bytes, as it would."""

    count: int
    client: str = "client"
    asked: list[Order] = field(default_factory=list)
    replied: list[Any] = field(default_factory=list)
    before: Callable[[Order], None] = lambda order: None

    room_bytes: int = GiB

    most_each = 1

    def __len__(self) -> int:
        return self.count

    def ask(self, function: Callable[..., Any], shared: Any, orders: Mapping[int, Order]) -> list[Any]:
        packed, replies = pickle.dumps(shared), []
        for order in orders.values():
            self.before(order)
            replies.append(function(pickle.loads(packed), pickle.loads(pickle.dumps(order))))
        self.asked += orders.values()
        self.replied += replies
        return [pickle.loads(pickle.dumps(reply)) for reply in replies]


def fitted(crew: FakeCrew | None, monkeypatch: pytest.MonkeyPatch, config: FitConfig = CONFIG) -> Best:
    """A fit here, or by the slots of ``crew``."""
    source, count = waves(300, 260, (150, 120), 3000), config.gaussians or 1
    meta = source.meta
    plan = plan_fit(meta.size, 3, 1, count, config, memory_bytes=GiB, workers=1)
    initial = sample(source.read, meta.size, 3, meta.dtype, count, config.sampling, 0, workers=1)
    monkeypatch.setattr(Workers, "crew", lambda self, held: crew)
    with open_workers(1, progress=Silent()) as pool:
        return fit_gaussians(source, CpuRenderer(), initial, plan, config, pool, Silent())


def assert_same(one: Best, other: Best) -> None:
    assert (one.loss, one.rate, one.lost, one.sums) == (other.loss, other.rate, other.lost, other.sums)
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(one.gaussians, column), getattr(other.gaussians, column))


def steps_of(crew: FakeCrew) -> int:
    return sum(order.step is not None for order in crew.asked if order.part == 0)


@pytest.mark.parametrize("slots", [1, 2, 3, 5])
def test_any_number_of_slots_makes_the_same_bits(slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    crew = FakeCrew(slots)
    assert_same(fitted(crew, monkeypatch), fitted(None, monkeypatch))
    assert steps_of(crew) >= CONFIG.steps // 2, "all but those on levels of a single block"


@pytest.mark.parametrize("parametrisation", ["paper", "relative"])
def test_steps_that_are_taken_back(parametrisation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"lr_xy": 0.5, "lr_scale": 3.0, "lr_rotation": 1.0, "lr_color": 0.5}
    optimizer = CONFIG.optimizer.__class__(parametrisation=parametrisation, **rates)  # type: ignore[arg-type]
    config = CONFIG.replace(optimizer=optimizer, relocate_share=0.0)
    crew = FakeCrew(2)
    there = fitted(crew, monkeypatch, config)
    assert_same(there, fitted(None, monkeypatch, config))
    assert there.lost > 1
    assert sum(order.goes_back for order in crew.asked) > 1


def test_a_gaussian_that_comes_far_ends_a_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (holding, stretch):
        monkeypatch.setattr(module, "WIDENED", 1.0)
        monkeypatch.setattr(module, "BEYOND", 0.0)
    crew = FakeCrew(2)
    assert_same(fitted(crew, monkeypatch), fitted(None, monkeypatch))
    assert sum(isinstance(reply, Escaped) for reply in crew.replied) > 2


def test_what_is_lost_is_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    left = [3, 11, 12, 40]

    def lose(order: Order) -> None:
        left[:] = [count - 1 for count in left]
        if 0 in left:
            holding.forget("client")

    crew, told = FakeCrew(2, before=lose), []
    monkeypatch.setattr(Silent, "advance", lambda self, amount=1, **facts: told.append(facts))
    there = fitted(crew, monkeypatch)
    assert sum(reply is None for reply in crew.replied) >= 3
    assert len([facts for facts in told if "level" in facts]) == CONFIG.steps, "no step is told of twice"
    assert_same(there, fitted(None, monkeypatch))


def test_an_order_that_comes_twice_is_obeyed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stammering(FakeCrew):
        def ask(self, function: Callable[..., Any], shared: Any, orders: Mapping[int, Order]) -> list[Any]:
            if not any(order.last for order in orders.values()):
                super().ask(function, shared, orders)
            return super().ask(function, shared, orders)

    assert_same(fitted(Stammering(2), monkeypatch), fitted(None, monkeypatch))


class Retrying(FakeCrew):
    def ask(self, function: Callable[..., Any], shared: Any, orders: Mapping[int, Order]) -> list[Any]:
        def again(task: Any, order: Order) -> Any:
            try:
                return function(task, order)
            except (OSError, MemoryError):
                return function(task, order)

        return super().ask(again, shared, orders)


def test_a_sweep_that_failed_half_way_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real, failures = holding.fit_block, [5, 9]

    def fails(task: Any, seen: Any) -> Any:
        failures[:] = [count - 1 for count in failures]
        if 0 in failures:
            raise OSError("out of reach for a moment")
        return real(task, seen)

    monkeypatch.setattr(holding, "fit_block", fails)
    crew = Retrying(2)
    there = fitted(crew, monkeypatch)
    assert max(failures) < 0
    assert None not in crew.replied
    assert_same(there, fitted(None, monkeypatch))


def test_what_a_step_left_half_done_is_not_gone_on_from(monkeypatch: pytest.MonkeyPatch) -> None:
    real, failures = holding.gradients_of, [5, 9]

    def fails(*arguments: Any) -> Iterator[Any]:
        yield from real(*arguments)
        failures[:] = [count - 1 for count in failures]
        if 0 in failures:
            raise MemoryError

    monkeypatch.setattr(holding, "gradients_of", fails)
    there = fitted(Retrying(2), monkeypatch)
    assert max(failures) < 0
    assert_same(there, fitted(None, monkeypatch))


def test_an_order_that_came_to_another_worker_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stolen(FakeCrew):
        def ask(self, function: Callable[..., Any], shared: Any, orders: Mapping[int, Order]) -> list[Any]:
            taken = {slot for slot, order in orders.items() if order.share is None and (order.number + slot) % 3 == 1}
            if len(orders) < self.count:  # the second time
                taken = set()
            kept = {slot: order for slot, order in orders.items() if slot not in taken}
            replies = dict(zip(kept, super().ask(function, shared, kept), strict=True))
            return [replies.get(slot) for slot in orders]

    usual, stolen = FakeCrew(2), Stolen(2)
    assert_same(fitted(stolen, monkeypatch), fitted(usual, monkeypatch))
    shares = [sum(order.share is not None for order in crew.asked) for crew in (stolen, usual)]
    assert shares[0] == shares[1], "nothing is begun anew"


def test_little_travels_between_two_moves_of_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = FakeCrew(2)
    fitted(crew, monkeypatch)
    first, steps = [order for order in crew.asked if order.share], [order for order in crew.asked if order.step]
    swept = [reply for reply in crew.replied if isinstance(reply, Swept)]
    given = [reply for reply in crew.replied if isinstance(reply, GivenBack)]
    mean = lambda things: sum(len(pickle.dumps(thing)) for thing in things) / len(things)  # noqa: E731
    assert mean(steps) + mean(swept) < 0.5 * (mean(first) + mean(given))


@pytest.mark.parametrize(("idle_s", "left"), [(10, 1), (7200, 0)])
def test_what_a_killed_client_left_is_given_up_when_another_comes(
    idle_s: float, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_killed(order: Order) -> None:
        if order.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(FakeCrew(2, "killed", before=is_killed), monkeypatch)
    assert holding._kept["killed"].parts
    holding._kept["killed"].used -= idle_s
    fitted(FakeCrew(2, "next"), monkeypatch)
    assert ("killed" in holding._kept) == left
    holding.forget("killed")


def test_slots_without_room_for_their_shares_get_none(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two slots, whose larger share is more than half.
    crew = FakeCrew(2, room_bytes=stretch.held_bytes(1500, 3, 2) // 2)
    assert_same(fitted(crew, monkeypatch), fitted(None, monkeypatch))
    assert not crew.asked


@pytest.mark.parametrize(("every", "longest"), [(6, 6), (1, 4)])
def test_a_stretch_ends_where_no_budget_is_moved_any_more(
    every: int, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, crew = CONFIG.replace(relocate_share=0.0, relocate_every=every), FakeCrew(2)
    assert_same(fitted(crew, monkeypatch, config), fitted(None, monkeypatch, config))
    assert max(order.number for order in crew.asked) == longest


def test_a_fit_that_is_to_be_saved_ends_its_stretch_after_some_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    crew = FakeCrew(2)
    monkeypatch.setattr(fit_module.Checkpoint, "is_due", True)
    assert_same(fitted(crew, monkeypatch), fitted(None, monkeypatch))
    begins = [order.number for order in crew.asked if order.part == 0 and order.share is not None]
    assert max(order.number for order in crew.asked) == 4, "steps of the longest stretch"
    assert len(begins) >= steps_of(crew) / 4
