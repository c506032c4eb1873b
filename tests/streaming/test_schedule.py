"""What learning rates are when."""

from __future__ import annotations

import pytest

from smartsplat_large.config import PRESETS
from smartsplat_large.streaming.schedule import rate_at

CONFIG = PRESETS["balanced"].replace(steps=100, relocate_settle=10)


def test_rates_fall_at_the_end() -> None:
    end = 1 - CONFIG.optimizer.decay_share
    assert rate_at(0, 0, CONFIG) == rate_at(round(100 * end), 0, CONFIG) == 1
    assert rate_at(99, 0, CONFIG) == pytest.approx(CONFIG.optimizer.decay_floor, abs=0.02)


def test_rates_grow_again_after_budget_was_moved() -> None:
    assert rate_at(20, 20, CONFIG) == pytest.approx(0.2)
    assert rate_at(25, 20, CONFIG) == pytest.approx(0.6)
    assert rate_at(30, 20, CONFIG) == 1
    assert rate_at(85, 80, CONFIG) == pytest.approx(0.6 * rate_at(85, 0, CONFIG))


def test_without_settling_a_move_changes_no_rate() -> None:
    config = CONFIG.replace(relocate_settle=0)
    assert [rate_at(t, 20, config) for t in (20, 25, 95)] == [rate_at(t, 0, config) for t in (20, 25, 95)]
