"""What tells a grid in an error map from chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
BLOCK = 128


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "pipelines")
    import blocked_vs_exact

    return blocked_vs_exact


def errors(seed: int = 0) -> dict[str, np.ndarray]:
    """Of two fits to the same picture, which miss much the same of it."""
    rng = np.random.default_rng(seed)
    content = np.kron(rng.lognormal(0, 1, (16, 16)), np.ones((40, 40))) * rng.exponential(1, (640, 640))
    return {mode: content * rng.lognormal(0, 0.3, content.shape) for mode in ("exact", "blocked")}


@pytest.mark.parametrize("phase", [0, 17, 64, 127])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_grid_of_any_phase_stands_out(recipe: Any, phase: int, axis: int) -> None:
    error = errors()
    near = (np.arange(640) - phase + 4) % BLOCK < 8
    np.moveaxis(error["blocked"], axis, 0)[near] *= 1.1
    found = recipe.grid_peak(error, BLOCK)
    assert found.shows_from < found.peak < 0.4


def test_a_grid_that_is_better_than_the_rest_stands_out_too(recipe: Any) -> None:
    error = errors()
    error["blocked"][:, (np.arange(640) + 4) % BLOCK < 8] /= 1.1
    found = recipe.grid_peak(error, BLOCK)
    assert found.peak < -found.shows_from


def test_half_a_period_sees_a_grid_and_the_shifted_one_at_once(recipe: Any) -> None:
    error = errors()
    error["blocked"][:, (np.arange(640) + 4) % (BLOCK // 2) < 8] *= 1.05
    found = recipe.grid_peak(error, BLOCK // 2)
    assert found.peak > found.shows_from


@pytest.mark.parametrize("seed", range(5))
def test_chance_and_content_are_no_grid(recipe: Any, seed: int) -> None:
    error = errors(seed)
    for both in error.values():
        both[::BLOCK] *= 3
    assert recipe.grid_peak(error, BLOCK).z < 3


def test_both_modes_are_drawn_on_one_scale(recipe: Any) -> None:
    error = {"exact": np.full((60, 40), 1e-4), "blocked": np.full((60, 40), 1e-4)}
    error["blocked"][20:30] *= 4
    exact, blocked = np.split(recipe.error_map(error), 2, axis=1)
    np.testing.assert_array_equal(np.unique(exact[2:-2, 2:-2]), [64])
    np.testing.assert_array_equal(np.unique(blocked[22:32, 2:-2]), [128])
    np.testing.assert_array_equal(blocked[32:-2], exact[32:-2])
