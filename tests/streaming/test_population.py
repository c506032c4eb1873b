"""The number of Gaussians that a file pays for."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from smartsplat_large.config import PRESETS, FitConfig
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.streaming.population import MOST, affordable_count, is_adaptive, most_gaussians

BALANCED = PRESETS["balanced"]


def some(count: int, strength: float = 0.3) -> Gaussians:
    rng = np.random.default_rng(0)
    color = rng.normal(0, strength, (count, 3)).astype(np.float32)
    scale = rng.uniform(2, 8, (count, 2)).astype(np.float32)
    return Gaussians(rng.uniform(0, 100, (count, 2)), scale, np.zeros(count, np.float32), color)


def test_more_bytes_and_coarser_steps_pay_for_more() -> None:
    usual = affordable_count(some(1000), 0.02, 20_000)
    assert affordable_count(some(1000), 0.02, 40_000) == pytest.approx(2 * usual, rel=0.03)
    assert affordable_count(some(1000), 0.08, 20_000) > usual
    assert affordable_count(some(1000, strength=0.6), 0.02, 20_000) < usual
    assert affordable_count(some(5), 1e-9, 10) == 1


def test_the_head_of_a_small_file_is_small() -> None:
    each = affordable_count(some(1000), 0.02, 1_000_000) / 1_000_000
    assert 0.8 * each * 440 < affordable_count(some(1000), 0.02, 440) < each * 440


def test_a_bit_of_every_number_is_counted() -> None:
    """Four times the step halves the size of every number that is well above it: eight bits of a Gaussian in RGB."""
    fine, coarse = (affordable_count(some(1000), energy, 10_000_000) for energy in (1e-8, 4e-8))
    bits = 8 * 10_000_000
    assert bits / fine - bits / coarse == pytest.approx(8, rel=0.01)


@pytest.mark.parametrize(
    "config",
    [
        BALANCED.replace(gaussians=100),
        BALANCED.replace(psnr=30.0),
        dataclasses.replace(BALANCED, adaptive_count=False),
        dataclasses.replace(BALANCED, relocate_share=0.0),
        dataclasses.replace(BALANCED, loss=dataclasses.replace(BALANCED.loss, rate=0.0)),
        PRESETS["paper"],
    ],
)
def test_without_a_size_a_price_or_moves_the_number_stays(config: FitConfig) -> None:
    assert not is_adaptive(config)
    assert most_gaussians(100, config) == 100


def test_memory_is_planned_for_the_most() -> None:
    assert most_gaussians(100, BALANCED) == math.floor(100 * MOST)
