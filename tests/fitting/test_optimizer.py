"""Adam against torch's own, in every parametrisation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from smartsplat_large import columns
from smartsplat_large.config import OptimizerConfig
from smartsplat_large.fitting.optimizer import MIN_SCALE, AdamState, GradientsOf
from smartsplat_large.fitting.rate import FREE, RatePrice
from smartsplat_large.gaussians import Gaussians, scale_rotation_to_covariance
from smartsplat_large.lattice import Size
from smartsplat_large.render.base import Gradients

SIZE = Size(200, 100)


def of(gradients: Gradients) -> GradientsOf:
    """All rows in two parts."""

    def parts(rows: slice) -> Iterator[tuple[slice, Gradients]]:
        middle = (rows.start + rows.stop) // 2
        for part in (slice(rows.start, middle), slice(middle, rows.stop)):
            columns = (getattr(gradients, name)[part] for name in ("xy", "scale", "rotation", "color"))
            yield part, Gradients(*columns)

    return parts


def some(n: int = 7) -> Gaussians:
    rng = np.random.default_rng(0)
    f32 = np.float32
    return Gaussians(
        rng.uniform(0, 100, (n, 2)), rng.uniform(1, 5, (n, 2)).astype(f32),
        rng.uniform(-1.5, 1.5, n).astype(f32), rng.uniform(0, 1, (n, 3)).astype(f32),
    )  # fmt: skip


@pytest.mark.parametrize("price", [FREE, RatePrice(0.7, 2.0)])
@pytest.mark.parametrize("parametrisation", ["paper", "relative"])
def test_steps_are_those_of_torch(parametrisation: str, price: RatePrice) -> None:
    config = OptimizerConfig(parametrisation=parametrisation, lr_xy=0.01)
    start = some()
    state = AdamState.start(start, SIZE, config)
    xy = torch.tensor(start.xy, requires_grad=True)
    raw = torch.tensor(state.raw.astype(np.float64), requires_grad=True)
    spacing = np.sqrt(SIZE.pixels / len(start))
    reach = torch.tensor([100.0, 50.0] if parametrisation == "paper" else [spacing, spacing], dtype=torch.float64)
    units = torch.zeros_like(xy, requires_grad=True)
    rates = [0.01, config.lr_scale, config.lr_rotation, config.lr_color]
    parts = [raw[:, :2].detach().clone(), raw[:, 2:3].detach().clone(), raw[:, 3:].detach().clone()]
    variables = [units, *(p.requires_grad_() for p in parts)]
    adam = torch.optim.Adam(
        [{"params": [v], "lr": r} for v, r in zip(variables, rates, strict=True)], betas=(0.9, 0.999), eps=1e-15
    )
    for step in range(5):
        rng = np.random.default_rng(step)
        g = Gradients(*(rng.normal(size=s) for s in [(7, 2), (7, 2), (7,), (7, 3)]))
        state.step(of(g), 1.0, price=price)
        adam.zero_grad()
        scale = variables[1].abs() if parametrisation == "paper" else variables[1].exp()
        turn = 2 * np.pi * torch.sigmoid(variables[2]) if parametrisation == "paper" else variables[2]
        moved = xy.detach() + units * reach
        terms = [(moved, g.xy), (scale, g.scale), (turn[:, 0], g.rotation), (variables[3], g.color)]
        energy = (variables[3] ** 2).sum(1) * scale.prod(1)
        rate = price.strength * torch.log1p(energy / price.step_energy).sum() / 2
        (rate + sum((value * torch.tensor(d)).sum() for value, d in terms)).backward()
        adam.step()
    np.testing.assert_allclose(state.xy, (xy + units * reach).detach().numpy(), rtol=0, atol=2e-5)
    np.testing.assert_allclose(state.raw, torch.cat(variables[1:], 1).detach().numpy(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("parametrisation", ["paper", "relative", "own"])
def test_the_start_is_what_was_given(parametrisation: str) -> None:
    start = some()
    again = AdamState.start(start, SIZE, OptimizerConfig(parametrisation=parametrisation)).gaussians()
    np.testing.assert_allclose(
        scale_rotation_to_covariance(again.scale, again.rotation),
        scale_rotation_to_covariance(start.scale, start.rotation),
        rtol=1e-4,
    )
    np.testing.assert_array_equal(again.xy, start.xy)
    np.testing.assert_array_equal(again.color, start.color)


@pytest.mark.parametrize("parametrisation", ["paper", "relative", "own"])
def test_scales_stay_within_their_limits(parametrisation: str) -> None:
    config = OptimizerConfig(parametrisation=parametrisation, lr_scale=3.0)
    state = AdamState.start(some(), SIZE, config)
    zero = Gradients(np.zeros((7, 2)), np.ones((7, 2)), np.zeros(7), np.zeros((7, 3)))
    for _ in range(20):
        state.step(of(zero), 1.0)
        scale = state.gaussians().scale
        assert np.isfinite(scale).all()
        assert scale.min() >= MIN_SCALE * (1 - 1e-6)
        assert scale.max() <= state.max_scale * (1 + 1e-6)


def test_replaced_rows_start_afresh() -> None:
    state = AdamState.start(some(), SIZE, OptimizerConfig(parametrisation="relative"))
    state.step(of(Gradients(np.ones((7, 2)), np.ones((7, 2)), np.ones(7), np.ones((7, 3)))), 1.0)
    index = np.array([2, 5])
    state = state.replaced(index, some().take(index), SIZE)
    assert not state.mean[index].any()
    assert state.mean[[0, 1, 3, 4, 6]].all()
    np.testing.assert_allclose(state.gaussians().scale[index], some().scale[index], rtol=1e-6)


@pytest.mark.parametrize("newcomers", [0, 1, 4])
def test_rows_come_and_go(newcomers: int) -> None:
    state = AdamState.start(some(), SIZE, OptimizerConfig(parametrisation="own"))
    state.step(of(Gradients(np.ones((7, 2)), np.ones((7, 2)), np.ones(7), np.ones((7, 3)))), 1.0)
    before = state.gaussians()
    state = state.replaced(np.array([5, 2]), some().take(np.arange(newcomers)), SIZE)
    assert len(state) == len(state.gaussians()) == len(state.mean) == len(state.square) == 5 + newcomers
    stayed = [i for i in range(7) if i not in (2, 5)]
    still = np.flatnonzero(state.mean.all(axis=1))
    np.testing.assert_array_equal(state.gaussians(still).color, before.take(np.array(stayed)).color)
    fresh = np.flatnonzero(~state.mean.any(axis=1))
    assert sorted(state.gaussians(fresh).scale[:, 0]) == pytest.approx(sorted(some().scale[:newcomers, 0]))


def test_own_steps_follow_the_axes_and_the_size_of_each_gaussian() -> None:
    """A first Adam step is the learning rate along every variable: one per standard deviation, along the Gaussian's axes."""
    f32 = np.float32
    scale = np.array([[6.0, 1.0], [2.0, 2.0]], f32)
    turn = np.array([np.pi / 6, 0.0], f32)
    start = Gaussians(np.full((2, 2), 50.0), scale, turn, np.ones((2, 3), f32))
    state = AdamState.start(start, SIZE, OptimizerConfig(parametrisation="own", lr_xy=0.1, lr_rotation=0.0))
    g = Gradients(np.array([[3.0, 0.1], [-1.0, 2.0]]), np.zeros((2, 2)), np.zeros(2), np.zeros((2, 3)))
    state.step(of(g), 1.0)
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    along, across = 0.6, 0.1 * np.sign(c * 0.1 - s * 3.0)
    expected = -np.array([[c * along - s * across, s * along + c * across], [-0.2, 0.2]])
    np.testing.assert_allclose(state.xy - 50.0, expected, atol=1e-5)


def test_a_state_that_returned_stands_almost_still() -> None:
    """A first step with fresh moments is a full one for every variable; one that knows its gradients is a tenth of that."""
    config = OptimizerConfig(parametrisation="relative", lr_xy=0.01)
    start, g = some(), Gradients(np.ones((7, 2)), np.ones((7, 2)), np.ones(7), np.ones((7, 3)))
    state = AdamState.start(start, SIZE, config)
    for _ in range(200):
        state.step(of(g), 1.0)
    state.square[3] = np.nan
    back = state.returned_to(start, SIZE)
    np.testing.assert_array_equal(back.raw, AdamState.start(start, SIZE, config).raw)
    assert not back.mean.any()
    before = back.raw.copy()
    back.step(of(g), 1.0)
    moved = np.abs(back.raw - before)[:, 3:] / config.lr_color
    assert moved[[0, 1, 2, 4, 5, 6]].max() < 0.2
    assert np.isfinite(back.raw).all()


def test_a_visit_takes_no_files(tmp_path: Path) -> None:
    """A group of them is held at a time: a process may have about a thousand files open."""
    gaussians = Gaussians.room(40_000, 3)
    for column in (gaussians.xy, gaussians.scale, gaussians.rotation, gaussians.color):
        column[:] = 0.5
    with columns.mapped(tmp_path):
        state = AdamState.start(gaussians, Size(100, 100), OptimizerConfig())
        assert columns._held[-1]._files
        known = len(columns._held[-1]._files)
        copy = state.take(np.arange(40_000)).copy()
        assert len(columns._held[-1]._files) == known
    assert (copy.raw == state.raw).all()
