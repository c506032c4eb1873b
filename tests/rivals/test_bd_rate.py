"""One number for two curves."""

from __future__ import annotations

import pytest

from smartsplat_large.rivals.bd_rate import bd_rate

CURVE = [(0.1, 25.0), (0.3, 29.0), (0.8, 33.5), (2.0, 38.0)]


def test_a_curve_against_itself_is_worth_nothing() -> None:
    assert bd_rate(CURVE, CURVE[::-1]) == pytest.approx(0, abs=1e-9)


def test_half_the_rate_is_half() -> None:
    assert bd_rate(CURVE, [(rate / 2, quality) for rate, quality in CURVE]) == pytest.approx(-50)
    assert bd_rate([(rate / 2, quality) for rate, quality in CURVE], CURVE) == pytest.approx(100)


def test_only_the_shared_range_counts() -> None:
    assert bd_rate(CURVE, CURVE[1:]) == pytest.approx(0, abs=2)


@pytest.mark.parametrize("other", [[], CURVE[:1], [(1.0, 50.0), (2.0, 60.0)]])
def test_without_a_shared_range_there_is_none(other: list[tuple[float, float]]) -> None:
    assert bd_rate(CURVE, other) is None
    assert bd_rate(other, CURVE) is None


def test_a_point_that_costs_more_for_less_is_left_out() -> None:
    assert bd_rate(CURVE, [*CURVE, (0.9, 30.0)]) == pytest.approx(0, abs=1e-9)
