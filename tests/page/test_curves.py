"""Curves of a comparison as they are drawn."""

from __future__ import annotations

import re

import pytest

from smartsplat_large.page import PSNR, Series, figure


def numbers_along(drawing: str) -> list[str]:
    """Those of the axis of rates."""
    return re.findall(r'<text [^>]*text-anchor="middle">([\d.e-]+)</text>', drawing)


@pytest.mark.parametrize("rates", [(0.02, 0.5), (0.24, 0.48), (0.24, 0.24), (0.005, 24.0)])
def test_there_are_enough_numbers_to_read_a_curve_by(rates: tuple[float, float]) -> None:
    numbers = numbers_along(figure([Series("ours", [(rate, 30 + rate) for rate in rates])], PSNR.label))
    assert 3 <= len(numbers) <= 13
    assert [float(number) for number in numbers] == sorted(map(float, numbers))


def test_no_point_is_no_drawing() -> None:
    assert "nothing could be measured" in figure([Series("ours", [])], PSNR.label)


@pytest.mark.parametrize(("low", "lower"), [((30.0, 31.0), False), ((37.0, 39.0), True)])
def test_the_legend_lies_in_the_emptier_corner(low: tuple[float, float], lower: bool) -> None:
    rates = 0.2, 0.5
    drawing = figure(
        [Series("ours", list(zip(rates, low, strict=True))), Series("theirs", list(zip(rates, (30.0, 40.0), strict=True)))],
        PSNR.label,
    )  # fmt: skip
    (y,) = re.findall(r'y="([\d.]+)" fill="currentColor">theirs<', drawing)
    assert (float(y) > 190) == lower
