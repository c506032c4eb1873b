"""Fitting in blocks, on any number of workers, at any ratio."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from small_fits import COLUMNS, fit_from_start, waves

from smartsplat_large.array_types import Moments
from smartsplat_large.config import PRESETS
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Size
from smartsplat_large.progress import Silent
from smartsplat_large.render.base import Gradients, Projection
from smartsplat_large.render.cpu import CpuRenderer
from smartsplat_large.sampling import sample
from smartsplat_large.source import ArraySource
from smartsplat_large.streaming.plan import Phase, plan_fit
from smartsplat_large.streaming.solve import solve_colors
from smartsplat_large.streaming.workers import open_workers


def picture(width: int = 150, height: int = 110) -> ArraySource:
    return waves(width, height, (70, 50), 900)


def assert_same(a: Gaussians, b: Gaussians, tolerance: float) -> None:
    for column in COLUMNS:
        np.testing.assert_allclose(getattr(a, column), getattr(b, column), rtol=tolerance, atol=tolerance)


def test_block_streamed_and_whole_image_fits_agree() -> None:
    """50 steps of the paper's recipe (L1 and SSIM, so halos matter): the same parameters to 1e-4."""
    config = PRESETS["paper"].replace(ratio=None, gaussians=120, steps=50)
    whole = fit_from_start(picture(), config, block=4096)
    blocks = fit_from_start(picture(), config, block=32)
    assert_same(blocks.gaussians, whole.gaussians, 1e-4)
    assert blocks.loss == pytest.approx(whole.loss, rel=1e-6)


@pytest.mark.parametrize("preset", ["paper", "balanced"])
def test_the_number_of_workers_does_not_change_a_bit(preset: str) -> None:
    config = PRESETS[preset].replace(ratio=None, gaussians=150, steps=12)
    one = fit_from_start(picture(), config, workers=1)
    for workers in (2, 3, 4):
        more = fit_from_start(picture(), config, workers=workers)
        for column in COLUMNS:
            np.testing.assert_array_equal(getattr(one.gaussians, column), getattr(more.gaussians, column))


def test_rows_parted_among_threads_give_the_same_bits() -> None:
    """So many Gaussians that every one of four threads has rows of its own to project and to step."""
    config = PRESETS["balanced"].replace(ratio=None, gaussians=9000, steps=4, coarse_share=0.0)
    one = fit_from_start(picture(300, 220), config, block=128, workers=1)
    for workers in (1, 2, 3, 4):
        more = fit_from_start(picture(300, 220), config, block=128, workers=workers)
        assert more.sums == one.sums
        for column in COLUMNS:
            np.testing.assert_array_equal(getattr(one.gaussians, column), getattr(more.gaussians, column))


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_fit_gets_better_and_ends_in_its_best_state(preset: str) -> None:
    config = PRESETS[preset].replace(ratio=None, gaussians=300)
    before, after = (fit_from_start(picture(), config.replace(steps=n)) for n in (0, 60))
    assert after.sums is not None
    assert before.sums is not None
    assert after.loss < 0.8 * before.loss
    assert after.sums.psnr > before.sums.psnr + 1


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("count", [1, 3, 40, 6000])
def test_every_density_stays_finite(preset: str, count: int) -> None:
    best = fit_from_start(picture(90, 60), PRESETS[preset].replace(ratio=None, gaussians=count, steps=15))
    assert best.gaussians is not None
    assert len(best.gaussians) == count
    for column in COLUMNS:
        assert np.isfinite(getattr(best.gaussians, column)).all()
    assert (best.gaussians.scale > 0).all()


@pytest.mark.parametrize("coarse_share", [0.0, 0.5])
def test_divergence_returns_to_the_best_state(coarse_share: float) -> None:
    """With absurd learning rates the guard halves them until the fit recovers, at every change of level, too."""
    balanced = PRESETS["balanced"]
    rates = dataclasses.replace(balanced.optimizer, lr_color=50.0, lr_scale=3.0)
    wild = balanced.replace(ratio=None, gaussians=900, steps=40, coarse_share=coarse_share, optimizer=rates)
    source = picture(300, 220)
    start, best = fit_from_start(source, wild.replace(steps=0)), fit_from_start(source, wild)
    assert best.lost
    assert best.loss <= 1.05 * start.loss


def test_a_last_coarse_step_that_is_lost_is_taken_back() -> None:
    balanced = PRESETS["balanced"]
    rates = dataclasses.replace(balanced.optimizer, lr_color=50.0)
    wild = balanced.replace(ratio=None, gaussians=100, steps=2, coarse_share=0.5, optimizer=rates)
    source = picture(300, 220)
    start, best = fit_from_start(source, wild.replace(steps=0)), fit_from_start(source, wild)
    assert best.lost
    assert best.loss <= 1.05 * start.loss


class Failing(CpuRenderer):
    """A renderer whose gradients are spoilt once, at a given call."""

    def __init__(self, at: int, spoilt: float) -> None:
        self.at, self.spoilt, self.calls = at, spoilt, 0

    def gradients(
        self, gaussians: Gaussians, projection: Projection, moments: Moments, pitch: float, rows: slice, out: Gradients
    ) -> None:
        self.calls += 1
        if self.calls == self.at:
            moments[:] = self.spoilt
        super().gradients(gaussians, projection, moments, pitch, rows, out)


@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
@pytest.mark.parametrize("at", [1, 7, 20, 45])
def test_a_failure_in_the_middle_is_taken_back(at: int, spoilt: float) -> None:
    """At the first step, in the middle, before budget is moved (that move is lost), and late."""
    config = PRESETS["balanced"].replace(ratio=None, gaussians=100, steps=50, solve_iterations=0)
    rates = {name: getattr(config.optimizer, name) / 2 for name in ("lr_xy", "lr_scale", "lr_rotation", "lr_color")}
    slow = config.replace(optimizer=dataclasses.replace(config.optimizer, **rates))
    failing, sound = Failing(at, spoilt), fit_from_start(picture(), slow, block=4096)
    best = fit_from_start(picture(), config, block=4096, renderer=failing)
    assert failing.calls > at
    assert best.lost
    for column in COLUMNS:
        assert np.isfinite(getattr(best.gaussians, column)).all()
    assert best.sums is not None
    assert sound.sums is not None
    assert best.sums.psnr > sound.sums.psnr - 1.5


@pytest.mark.parametrize("kind", ["black", "white", "flat"])
def test_pictures_without_features(kind: str) -> None:
    value = {"black": 0, "white": 255, "flat": 77}[kind]
    source = ArraySource(np.full((70, 90, 3), value, np.uint8), levels=3)
    best = fit_from_start(source, PRESETS["balanced"].replace(ratio=None, gaussians=80, steps=30))
    assert best.sums is not None
    assert best.sums.psnr > 25


def test_solved_colors_are_the_least_squares_ones() -> None:
    """Against numpy's solver on the explicit matrix of kernel values."""
    source = picture(60, 40)
    size = source.meta.size
    start = sample(source.read, size, 3, source.meta.dtype, 30, PRESETS["balanced"].sampling, 0, workers=1)
    cpu = CpuRenderer()
    unit = np.ones((1, 1), np.float32)
    kernel = np.stack(
        [
            cpu.forward(
                Gaussians(start.xy[i : i + 1], start.scale[i : i + 1], start.rotation[i : i + 1], unit), size.window
            )
            for i in range(30)
        ]
    ).reshape(30, -1)
    target = source.read(size.window).reshape(-1, 3) / 255
    normal = kernel @ kernel.T
    damped = normal + 0.02 * np.diag(np.pi * start.scale.prod(1))
    expected = np.linalg.solve(damped, kernel @ target)
    with open_workers(1, progress=Silent()) as pool:
        solved = solve_colors(source, cpu, start, 32, 0, 60, pool, Silent())
    np.testing.assert_allclose(solved.color, expected, atol=2e-3)


def test_coarse_phases_come_first_and_the_last_is_full_size() -> None:
    source = picture(1200, 900)
    plan = plan_fit(source.meta.size, 3, 1, 800, PRESETS["balanced"], memory_bytes=1 << 40, workers=2)
    levels = [phase.level for phase in plan.phases]
    assert levels == sorted(levels, reverse=True)
    assert levels[0] >= 2
    assert levels[-1] == 0
    assert sum(phase.steps for phase in plan.phases) == PRESETS["balanced"].steps
    dense = plan_fit(source.meta.size, 3, 1, 500_000, PRESETS["balanced"], memory_bytes=1 << 40, workers=2)
    early = round(PRESETS["balanced"].loss.ssim_from * PRESETS["balanced"].steps)
    assert dense.phases == (Phase(0, early, ssim=False), Phase(0, PRESETS["balanced"].steps - early))


def test_ssim_joins_after_its_share_of_the_steps_whatever_the_level() -> None:
    config = PRESETS["balanced"].replace(steps=100)
    for share in (0.0, 0.2, 0.5, 0.7, 1.0):
        late = config.replace(loss=dataclasses.replace(config.loss, ssim_from=share))
        plan = plan_fit(Size(1200, 900), 3, 1, 800, late, memory_bytes=1 << 40, workers=2)
        assert sum(phase.steps for phase in plan.phases) == 100
        assert sum(phase.steps for phase in plan.phases if not phase.ssim) == round(100 * share)
        assert [phase.ssim for phase in plan.phases] == sorted(phase.ssim for phase in plan.phases)


def test_costs_of_steps_follow_pixels_and_terms_of_the_loss() -> None:
    config = PRESETS["balanced"].replace(ratio=None, gaussians=2000, steps=100)
    plan = plan_fit(Size(1024, 1024), 3, 1, 2000, config, memory_bytes=1 << 32, workers=2)
    costs = plan.costs(0)
    assert sum(steps for steps, _ in costs) == 100
    assert costs[0][1] < costs[1][1] <= 1 < costs[-1][1]
    begun = plan.costs(costs[0][0] + 3)
    assert [steps for steps, _ in begun[:2]] == [0, costs[1][0] - 3]
    assert sum(steps for steps, _ in plan.costs(100)) == 0
