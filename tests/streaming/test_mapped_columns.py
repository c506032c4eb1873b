"""Fits, colours and relocations with columns in mapped files: the same, to the bit, also after there was no room for one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cut_fits import CONFIG, Killed, Steps, assert_identical, fit, opened

from smartsplat_large import columns
from smartsplat_large.config import LossConfig
from smartsplat_large.errors import DiskFullError
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


def test_columns_in_files_are_saved_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = dataclasses.replace(CONFIG.replace(bytes=800), relocate_every=1, relocate_until=0.9)
    whole = fit(None, config, budget_bytes=800)
    monkeypatch.setattr(columns, "_WORTH_COUNTING", 1)
    with columns.mapped(tmp_path):
        with pytest.raises(Killed):
            fit(opened(tmp_path / "state"), config, steps=Steps(10), budget_bytes=800)
        resumed = fit(opened(tmp_path / "state"), config, budget_bytes=800)
    assert not resumed.gaussians.xy.flags.owndata
    assert_identical(resumed, whole)


@pytest.mark.parametrize("mode", ["exact", "blocked"])
def test_a_disk_that_has_no_room_for_a_column_ends_the_fit_at_one_moment(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it is: what is saved then goes on to the same bits."""
    config = dataclasses.replace(CONFIG.replace(bytes=800, mode=mode), relocate_every=3, relocate_until=0.9)
    whole, made, last = fit(None, config, budget_bytes=800), 0, 0
    empty = columns.empty

    def limited(*about: Any) -> np.ndarray:
        nonlocal made
        made += 1
        if made == last:
            raise DiskFullError("no room")
        return empty(*about)

    monkeypatch.setattr(columns, "empty", limited)
    fit(None, config, budget_bytes=800)
    for last in np.linspace(20, made - 1, 6, dtype=int).tolist():
        made = 0
        with pytest.raises(DiskFullError):
            fit(opened(tmp_path / f"{last}"), config, budget_bytes=800)
        made = -(1 << 30)
        assert_identical(fit(opened(tmp_path / f"{last}"), config, budget_bytes=800), whole)
