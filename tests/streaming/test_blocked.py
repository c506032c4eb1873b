"""Blocked mode: as good as exact mode, the same bits however it is run, and nothing lost when it is cut."""

from __future__ import annotations

import dataclasses
import itertools
import pickle
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from small_fits import COLUMNS, fit_from_start, start, waves

from smartsplat_large.config import PRESETS, FitConfig
from smartsplat_large.fitting.optimizer import AdamState
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import BlockGrid, Size
from smartsplat_large.progress import Costs, Silent
from smartsplat_large.render.base import Projection, Spread, at_once
from smartsplat_large.render.cpu import CpuRenderer
from smartsplat_large.source import ArraySource
from smartsplat_large.streaming.blocked import VisitTask, survey, visit_block
from smartsplat_large.streaming.checkpoint import Checkpoint
from smartsplat_large.streaming.plan import phases, plan_fit
from smartsplat_large.streaming.schedule import Round, relocated_share, rounds
from smartsplat_large.streaming.state import Best
from smartsplat_large.streaming.targets import Targets
from smartsplat_large.streaming.territory import Territory, covered
from smartsplat_large.streaming.workers import open_workers

BLOCKED = PRESETS["balanced"].replace(
    ratio=None, gaussians=260, steps=24, mode="blocked", steps_per_visit=3, relocate_every=8, solve_iterations=2
)


def picture(width: int = 250, height: int = 180) -> ArraySource:
    return waves(width, height, (130, 90), 2000)


def fit(config: FitConfig = BLOCKED, *, block: int = 64, source: ArraySource | None = None, **how: Any) -> Best:
    return fit_from_start(source or picture(), config, block=block, **how)


def assert_identical(a: Best, b: Best) -> None:
    assert (a.sums, a.loss, a.recent, a.rate, a.lost) == (b.sums, b.loss, b.recent, b.rate, b.lost)
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(a.gaussians, column), getattr(b.gaussians, column))


@pytest.fixture(scope="module")
def whole() -> Best:
    """The fit without a cut."""
    return fit()


@pytest.mark.parametrize(("workers", "dashboard"), [(2, False), (4, False), (3, True)])
def test_workers_and_their_kind_do_not_change_a_bit(workers: int, dashboard: bool, whole: Best) -> None:
    assert_identical(fit(workers=workers, dashboard=dashboard, block=64), whole)


def test_a_cluster_elsewhere_does_not_change_a_bit(whole: Best, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed")
    with (
        dask.config.set({"temporary-directory": str(tmp_path)}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, protocol="tcp://", host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
    ):  # fmt: skip
        assert_identical(fit(scheduler=cluster.scheduler_address), whole)


@pytest.mark.parametrize("preset", list(PRESETS))
@pytest.mark.parametrize("count", [1, 40, 2000])
def test_every_density_stays_finite_and_gets_no_worse(preset: str, count: int) -> None:
    config = PRESETS[preset].replace(ratio=None, gaussians=count, steps=20, mode="blocked")
    before, after = fit(config.replace(steps=0), block=32), fit(config, block=32)
    assert len(after.gaussians) == count
    assert all(np.isfinite(getattr(after.gaussians, column)).all() for column in COLUMNS)
    assert before.sums is not None
    assert after.sums is not None
    assert after.sums.psnr > before.sums.psnr - 0.2


@pytest.mark.parametrize("ssim", [0.0, 0.1])
def test_a_picture_of_one_block_is_fitted_as_in_exact_mode(ssim: float) -> None:
    """All Gaussians are the block's own, and several steps at a time are the same steps, but for the price of bits: it is set
    once a round."""
    loss = dataclasses.replace(BLOCKED.loss, ssim=ssim, ssim_from=0.0, rate=0.0)
    config = BLOCKED.replace(loss=loss, optimizer=dataclasses.replace(BLOCKED.optimizer, lr_xy=0.05))
    blocked, exact = fit(config, block=4096), fit(config.replace(mode="exact"), block=4096)
    for column in COLUMNS:
        np.testing.assert_allclose(
            getattr(blocked.gaussians, column), getattr(exact.gaussians, column), rtol=1e-3, atol=1e-3
        )
    assert blocked.loss == pytest.approx(exact.loss, rel=1e-5)


def test_quality_is_that_of_exact_mode_and_no_seam_shows() -> None:
    config = BLOCKED.replace(gaussians=700, steps=80, steps_per_visit=8)
    source = picture()
    size, error = source.meta.size, {}
    for mode in ("exact", "blocked"):
        best = fit(config.replace(mode=mode), block=64, source=source)
        shown = CpuRenderer().forward(best.gaussians, size.window).clip(0, 1)
        error[mode] = np.square(shown - source.read(size.window).transpose(2, 0, 1) / 255).mean(0)
    gain = 10 * np.log10(error["exact"].mean() / error["blocked"].mean())
    assert gain > -0.2
    for shift in (0, 32):
        y, x = (np.abs((np.arange(n) + shift + 32) % 64 - 32) < 4 for n in error["exact"].shape)
        seams = y[:, None] | x[None, :]
        there = 10 * np.log10(error["exact"][seams].mean() / error["blocked"][seams].mean())
        assert there > gain - 0.2


def test_a_visit_done_twice_or_elsewhere_comes_to_the_same_and_changes_nothing() -> None:
    source, config = picture(), BLOCKED
    state = AdamState.start(start(source, config), source.meta.size, config.optimizer)
    round_ = Round(0, 5, shifted=True)
    with open_workers(1, progress=Silent()) as pool:
        course = course_of(source, config, round_)
        group = survey(state, course, 64, round_, pool).group(1, 5)
    task = VisitTask(course, Targets(source, 0))
    for visit in group:
        kept = pickle.dumps(visit)
        first, second = visit_block(task, visit), visit_block(task, visit)
        elsewhere = visit_block(pickle.loads(pickle.dumps(task)), pickle.loads(kept))
        assert pickle.dumps(visit) == kept
        for other in (second, elsewhere):
            assert (first.before, first.after, first.peak) == (other.before, other.after, other.peak)
            for column in ("xy", "raw", "mean", "square"):
                np.testing.assert_array_equal(getattr(first.state, column), getattr(other.state, column))
        assert first.state.steps == 5
        assert len(visit.own) + len(visit.neighbours) < len(state)


def course_of(source: ArraySource, config: FitConfig, round_: Round):
    from smartsplat_large.fitting.visit import Course

    return Course(CpuRenderer(), config.loss, 1.0, (1.0,) * round_.steps, source.meta.size)


@pytest.mark.parametrize("shift", [0, 24])
def test_every_gaussian_has_one_owner_that_sees_all_of_it(shift: int) -> None:
    rng = np.random.default_rng(1)
    size, count = Size(230, 170), 300
    scale = np.exp(rng.uniform(-1, 3, (count, 2))).astype(np.float32)
    gaussians = Gaussians(
        rng.uniform(-10, 240, (count, 2)), scale, rng.uniform(0, 3, count).astype(np.float32),
        np.ones((count, 3), np.float32),
    )  # fmt: skip
    state = AdamState.start(gaussians, size, BLOCKED.optimizer)
    grid = BlockGrid(size, 48, 24, shift)
    with open_workers(2, progress=Silent()) as pool:
        territory = Territory.survey(state, grid, 1.0, pool)
    boxes = covered(state.gaussians(), 1.0)
    owned: list[int] = []
    for number in range(4):
        group = territory.group(number, 5)
        for i, (rows, window, others) in enumerate(zip(group.own, group.windows, group.neighbours, strict=True)):
            owned += rows.tolist()
            assert all(window.intersection(other).is_empty for other in group.windows[:i])
            clipped = boxes[rows].clip(0, [size.width, size.width, size.height, size.height])
            inside = (clipped[:, 0] >= window.x) & (clipped[:, 1] <= window.x_end)
            inside &= (clipped[:, 2] >= window.y) & (clipped[:, 3] <= window.y_end)
            beside = (boxes[rows][:, 1] < 0) | (boxes[rows][:, 0] > size.width)
            beside |= (boxes[rows][:, 3] < 0) | (boxes[rows][:, 2] > size.height)
            assert (inside | beside).all()
            shows = (boxes[:, 0] < window.x_end + 6) & (boxes[:, 1] > window.x - 6)
            shows &= (boxes[:, 2] < window.y_end + 6) & (boxes[:, 3] > window.y - 6)
            shows[rows] = False
            np.testing.assert_array_equal(others, np.nonzero(shows)[0])
    assert sorted(owned) == np.nonzero(territory.homes >= 0)[0].tolist()
    assert 0.4 * count < len(owned) < count


def test_rounds_cover_all_steps_and_stop_where_budget_moves() -> None:
    config = PRESETS["balanced"].replace(steps=100, relocate_every=20, steps_per_visit=8)
    found = rounds(50, 100, config)
    assert [r.begin for r in found][:5] == [50, 55, 60, 68, 76]
    assert sum(r.steps for r in found) == 50
    assert max(r.steps for r in found) <= 8
    ends = {r.begin + r.steps for r in found}
    assert all(t in ends for t in range(51, 100) if relocated_share(t, config))
    assert found[-1].shifted
    assert all(a.shifted != b.shifted for a, b in itertools.pairwise(found))
    assert rounds(7, 7, config) == []


class Killed(Exception):
    """Stands for the end of a process."""


class Mortal(CpuRenderer):
    """A renderer whose process is killed at its n-th projection."""

    def __init__(self, last: int = 0) -> None:
        self.last, self.calls = last, 0

    def project(
        self, gaussians: Gaussians, pitch: float, spread: Spread = at_once, room: Room = np.empty
    ) -> Projection:
        self.calls += 1
        if self.calls == self.last:
            raise Killed
        return super().project(gaussians, pitch, spread, room)


def opened(folder: Path) -> Checkpoint:
    checkpoint = Checkpoint(
        folder, {"version": "1", "state format": 1, "image": {}, "settings": {}, "plan": {}}, Silent(), interval_s=0
    )
    checkpoint.open(folder.with_name("out"), resume=True)
    return checkpoint


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.8, 0.99])
def test_a_killed_fit_goes_on_from_its_last_colour(
    share: float, whole: Best, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two groups of a round, in the middle of a group, beside moves of budget: the same end, little done twice."""
    monkeypatch.setattr("os.fsync", lambda handle: None)
    counted = Mortal()
    fit(renderer=counted)
    at = round(share * counted.calls)
    with pytest.raises(Killed):
        fit(renderer=Mortal(at), checkpoint=opened(tmp_path / "state"))
    again = Mortal()
    assert_identical(fit(renderer=again, checkpoint=opened(tmp_path / "state"), workers=3), whole)
    a_group = 12 * 5
    assert again.calls <= counted.calls - at + a_group


class Amounts(Silent):
    """Keeps what is done of the stage."""

    def __init__(self) -> None:
        self.done: list[float] = []

    def start(self, stage: str, total: float, unit: str, costs: Costs = ()) -> None:
        self.done = []

    def advance(self, amount: float = 1, **facts: object) -> None:
        self.done.append(amount)


def test_progress_goes_on_within_a_colour() -> None:
    amounts = Amounts()
    fit(BLOCKED.replace(coarse_share=0.0), progress=amounts)
    assert sum(amounts.done) == pytest.approx(BLOCKED.steps)
    assert max(amounts.done) < BLOCKED.steps_per_visit / 4


def test_hasty_rates_are_halved_and_what_is_lost_is_taken_back() -> None:
    rates = dataclasses.replace(BLOCKED.optimizer, lr_color=5.0, lr_scale=3.0)
    wild = BLOCKED.replace(optimizer=rates, steps=40)
    before, after = fit(wild.replace(steps=0)), fit(wild)
    assert after.lost
    assert after.loss <= 1.05 * before.loss


def test_auto_is_blocked_where_a_level_is_large() -> None:
    config = PRESETS["balanced"]
    assert not any(phase.blocked for phase in phases(Size(2000, 2000), 50_000, config))
    large = phases(Size(60_000, 40_000), 5_000_000, config)
    assert large[-1].blocked
    assert all(phase.blocked for phase in phases(Size(100, 90), 500, config.replace(mode="blocked")) if not phase.level)
    assert not any(phase.blocked for phase in phases(Size(60_000, 40_000), 5_000_000, config.replace(mode="exact")))


def test_a_blocked_plan_counts_its_wider_windows() -> None:
    size, blocked = Size(20_000, 20_000), BLOCKED.replace(gaussians=None, ratio=200.0)
    about, exact = (size, 3, 1, 1_000_000), blocked.replace(mode="exact")
    plans = {c.mode: plan_fit(*about, c, memory_bytes=1 << 40, workers=4) for c in (blocked, exact)}
    assert plans["blocked"].footprint.working > 1.5 * plans["exact"].footprint.working
    tight = plan_fit(*about, blocked, memory_bytes=2 << 30, workers=2)
    assert tight.block < plans["blocked"].block
    assert tight.footprint.total <= 2 << 30
