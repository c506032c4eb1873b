"""The price of bits."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from smartsplat_large.config import PRESETS
from smartsplat_large.fitting.loss import LossSums
from smartsplat_large.fitting.rate import FREE, rate_price
from smartsplat_large.lattice import Size
from smartsplat_large.progress import Silent
from smartsplat_large.render.cpu import CpuRenderer
from smartsplat_large.sampling import sample
from smartsplat_large.source.array import ArraySource
from smartsplat_large.streaming.fit import fit_gaussians
from smartsplat_large.streaming.plan import plan_fit
from smartsplat_large.streaming.workers import open_workers

SIZE, COUNT = Size(300, 200), 500
SUMS = LossSums(1.0, 0.01 * 180_000, 0.0, 180_000)


def test_a_nat_is_worth_what_rounding_saves_by_it() -> None:
    """The error of rounding, by how finely one rounds, falls as fast as the price of the bits that takes."""
    price = rate_price(SUMS, SIZE, COUNT, 3, 0.3, 1.0)
    samples, numbers = SIZE.pixels * 3, COUNT * 8

    def error(step: float) -> float:
        return numbers * math.pi * step**2 / 12 / samples

    step = math.sqrt(price.step_energy)
    assert error(step) == pytest.approx(0.3 * 0.01)
    nats = 1e-6  # more for every number
    saved = error(step) - error(step * math.exp(-nats))
    paid = price.strength / 8 * numbers * nats  # a Gaussian has eight numbers
    assert saved == pytest.approx(paid, rel=1e-4)


def test_levels_agree() -> None:
    quarter = LossSums(0.25, SUMS.squared / 4, 0.0, SUMS.samples // 4)
    assert rate_price(quarter, SIZE, COUNT, 3, 0.3, 1.0) == rate_price(SUMS, SIZE, COUNT, 3, 0.3, 1.0)


@pytest.mark.parametrize("squared", [0.0, math.nan, math.inf])
def test_where_there_is_no_error_bits_are_free(squared: float) -> None:
    assert rate_price(LossSums(0, squared, 0, 10), SIZE, COUNT, 3, 0.3, 1.0) == FREE
    assert rate_price(SUMS, SIZE, COUNT, 3, 0.0, 1.0) == FREE


def test_bits_are_saved_where_they_buy_little() -> None:
    """With the price, a fit needs fewer bits for the same error: amplitudes do not grow against each other."""
    y, x = np.mgrid[:192, :256]
    smooth = np.stack([128 + 90 * np.sin(x / 40 + c) * np.cos(y / 31) for c in range(3)], 2).astype(np.uint8)
    source = ArraySource(smooth, levels=3)
    energies = {}
    for share in (0.0, 0.3):
        balanced = PRESETS["balanced"]
        config = balanced.replace(ratio=None, gaussians=150, steps=150, loss=replace(balanced.loss, rate=share))
        start = sample(source.read, source.meta.size, 3, smooth.dtype, 150, config.sampling, 0)
        plan = plan_fit(source.meta.size, 3, 1, 150, config, memory_bytes=1 << 40, workers=2)
        with open_workers(2, progress=Silent()) as workers:
            best = fit_gaussians(source, CpuRenderer(), start, plan, config, workers, Silent()).gaussians
        energy = np.square(best.color).sum(1) * best.scale.prod(1)
        energies[share] = float(np.log1p(energy).sum())
    assert energies[0.3] < 0.95 * energies[0.0]
