"""Colours and relocations with columns in mapped files: the same, to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from smartsplat_large import columns
from smartsplat_large.config import LossConfig
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.progress import Silent
from smartsplat_large.render.cpu import CpuRenderer
from smartsplat_large.source import ArraySource, ImageSource
from smartsplat_large.streaming.relocate import relocations
from smartsplat_large.streaming.solve import solve_colors
from smartsplat_large.streaming.sweep import prepare_sweep
from smartsplat_large.streaming.workers import open_workers

COUNT = 140_000
"""So many that all columns but rotations are worth mapping, in three chunks."""


@pytest.fixture(scope="module")
def source() -> ImageSource:
    return ArraySource(np.random.default_rng(0).integers(0, 256, (400, 500, 3), np.uint8))


@pytest.fixture(scope="module")
def gaussians() -> Gaussians:
    rng = np.random.default_rng(1)
    scale, color = rng.uniform(0.5, 1, (COUNT, 2)), rng.random((COUNT, 3)) / 4
    xy, rotation = rng.random((COUNT, 2)) * (500, 400), np.zeros(COUNT, np.float32)
    return Gaussians(xy, scale.astype(np.float32), rotation, color.astype(np.float32))


def test_solved_colours(source: ImageSource, gaussians: Gaussians, tmp_path: Path) -> None:
    with open_workers(2, progress=Silent()) as workers:
        how = (source, CpuRenderer(), gaussians, 128, 0, 2, workers, Silent())
        expected = solve_colors(*how)
        with columns.mapped(tmp_path, resident=4 << 20):
            mapped = solve_colors(*how)
    assert not mapped.color.flags.owndata
    np.testing.assert_array_equal(mapped.color, expected.color)


def test_relocations(source: ImageSource, gaussians: Gaussians, tmp_path: Path) -> None:
    with open_workers(2, progress=Silent()) as workers:
        sweep = prepare_sweep(source, CpuRenderer(), gaussians, 128, 0, LossConfig())
        index, newcomers = relocations(sweep, 0.01, 20, workers)
        with columns.mapped(tmp_path, resident=4 << 20):
            mapped_index, mapped = relocations(sweep, 0.01, 20, workers)
    assert len(newcomers) == len(index) + 20 > 500
    np.testing.assert_array_equal(mapped_index, index)
    np.testing.assert_array_equal(mapped.xy, newcomers.xy)
