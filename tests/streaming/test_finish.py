"""Integers fitted to the image: better than each rounded by itself, within the budget, the same for any workers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from smartsplat_large.codec.budget import encode_to_budget
from smartsplat_large.codec.quantize import amplitude_step, dequantize
from smartsplat_large.codec.writer import Extras, quantized
from smartsplat_large.config import preset
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.pixels import to_planes
from smartsplat_large.progress import Silent
from smartsplat_large.render.cpu import CpuRenderer
from smartsplat_large.sampling import sample
from smartsplat_large.source import ImageSource, open_source
from smartsplat_large.streaming.finish import Finish, finish_within
from smartsplat_large.streaming.solve import solve_colors
from smartsplat_large.streaming.workers import open_workers

PICTURE = Path(__file__).parents[1] / "data" / "flower.png"
COUNT, BUDGET = 900, 3600


@pytest.fixture(scope="module")
def source():
    with open_source(PICTURE) as opened:
        yield opened


@pytest.fixture(scope="module")
def fitted(source: ImageSource) -> Gaussians:
    meta, settings = source.meta, preset("balanced").sampling
    initial = sample(
        source.read, meta.size, meta.channels, meta.dtype, COUNT, settings, 0, workers=1, progress=Silent()
    )  # fmt: skip
    with open_workers(1, progress=Silent()) as pool:
        return solve_colors(source, CpuRenderer(), initial, 128, 0, 8, pool, Silent())


def squared_error(source: ImageSource, gaussians: Gaussians) -> float:
    window = source.meta.size.window
    difference = CpuRenderer().forward(gaussians, window).clip(0, 1) - to_planes(source.read(window, 0))
    return float(np.square(difference).mean())


def finished(source: ImageSource, fitted: Gaussians, workers: int):
    plain = encode_to_budget(fitted, size=source.meta.size, bits=8, budget_bytes=BUDGET)
    with open_workers(workers, progress=Silent()) as pool:
        return plain, finish_within(plain, fitted, BUDGET, 8, Extras(), source, CpuRenderer(), pool, Silent(), 2)


def test_a_finished_file_keeps_to_its_budget_whatever_the_workers(source, fitted):
    _, first = finished(source, fitted, 1)
    _, second = finished(source, fitted, 3)
    assert first.data == second.data
    assert 0.99 * BUDGET <= first.size_bytes <= BUDGET
    assert (np.diff(first.kept) > 0).all()


def test_passes_lower_the_error_for_few_bytes(source, fitted):
    plain = encode_to_budget(fitted, size=source.meta.size, bits=8, budget_bytes=BUDGET)
    symbols, layout = quantized(fitted, source.meta.size, plain.step_index)
    step = amplitude_step(plain.step_index)
    before = squared_error(source, dequantize(symbols, step, layout.leaf))
    with open_workers(1, progress=Silent()) as pool:
        finish = Finish.begin(fitted, plain.step_index, 8, Extras(), source, CpuRenderer(), pool, Silent(), 5)
        size = finish.encoded.size_bytes
        for _ in range(3):
            finish.improve(0.05)
    assert finish.encoded.size_bytes < 1.1 * size
    assert squared_error(source, dequantize(finish.symbols, step, layout.leaf)) < 0.9 * before
