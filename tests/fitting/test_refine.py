"""Matching pursuit: the gain that is promised is the gain that is had."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from smartsplat_large.fitting.refine import BestProposals, Proposals, exchange, propose, reach, removal_cost
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import BlockGrid, Size
from smartsplat_large.render.cpu import CpuRenderer

SIZE = Size(120, 90)
CPU = CpuRenderer()


def one(x: float, y: float, scale: float, color: float = 0.5) -> Gaussians:
    f32 = np.float32
    return Gaussians(np.array([[x, y]]), np.full((1, 2), scale, f32), np.zeros(1, f32), np.full((1, 3), color, f32))


def test_a_missing_gaussian_is_found_where_it_was() -> None:
    missing = one(40.5, 30.5, 3.0)
    residual = CPU.forward(missing, SIZE.window)
    block = BlockGrid(SIZE, 200)[0]
    best = propose(residual, block, 1.0, spacing=10.0, count=1)
    np.testing.assert_allclose(best.xy[0], missing.xy[0], atol=1)
    after = residual - CPU.forward(best.gaussians(), SIZE.window)
    had = np.square(residual).sum() - np.square(after).sum()
    assert had == pytest.approx(best.gain[0], rel=0.1)
    assert had > 0.9 * np.square(residual).sum()


def test_proposals_lie_in_the_core() -> None:
    rng = np.random.default_rng(0)
    grid = BlockGrid(SIZE, 50, 5)
    for block in grid:
        residual = rng.normal(size=(3, *block.outer.shape)).astype(np.float32)
        found = propose(residual, block, 2.0, spacing=12.0, count=50)
        x, y = found.xy.T / 2
        assert len(found.gain) > 5
        assert ((x >= block.core.x) & (x < block.core.x_end)).all()
        assert ((y >= block.core.y) & (y < block.core.y_end)).all()


def test_removal_costs_the_energy_of_an_isolated_gaussian() -> None:
    gaussian = one(60, 45, 4.0)
    energy = np.square(CPU.forward(gaussian, SIZE.window)).sum()
    assert removal_cost(gaussian, np.zeros((1, 3)))[0] == pytest.approx(energy, rel=0.05)


def test_removal_of_what_the_picture_does_not_have_gains_its_energy() -> None:
    wrong = one(60, 45, 4.0)
    residual = -CPU.forward(wrong, SIZE.window)
    projection = CPU.backward(wrong, SIZE.window, residual).color
    energy = np.square(residual).sum()
    assert removal_cost(wrong, projection)[0] == pytest.approx(-energy, rel=0.05)


def test_newcomers_keep_apart_and_neighbouring_blocks_do_not_propose_the_same() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(3, *SIZE.window.shape)).astype(np.float32)
    grid = BlockGrid(SIZE, 30, reach(1.0, 8.0))
    parts = [propose(noise[(slice(None), *b.outer.slices(SIZE.window))], b, 1.0, 8.0, 8) for b in grid]
    for part in parts:
        for i in range(len(part.gain)):
            better = np.hypot(*(part.xy[:i] - part.xy[i]).T)
            assert (better > 2 * part.scale[:i, 0] - 1.5).all()
    blob = CPU.forward(one(60.0, 45.0, 3.0), SIZE.window)
    parts = [propose(blob[(slice(None), *b.outer.slices(SIZE.window))], b, 1.0, 8.0, 8).best(1) for b in grid]
    found = Proposals.concatenate(parts)
    assert np.count_nonzero(found.gain > 0.5 * found.gain.max()) == 1


def test_only_profitable_exchanges_are_made() -> None:
    weak, strong = one(10, 10, 2, 0.01), one(100, 80, 5, 0.9)
    both = Gaussians.concatenate([strong, weak])
    residual = CPU.forward(one(50.5, 40.5, 3), SIZE.window)
    proposals = propose(residual, BlockGrid(SIZE, 200)[0], 1.0, spacing=10.0, count=5)
    index, accepted = exchange(removal_cost(both, np.zeros((2, 3))), proposals, limit=2)
    assert index.tolist() == [1], "the weak one goes, the strong one stays"
    np.testing.assert_allclose(accepted.xy[0], [50.5, 40.5], atol=1)
    faint = propose(residual * 1e-3, BlockGrid(SIZE, 200)[0], 1.0, 10.0, 5)
    index, _ = exchange(removal_cost(strong, np.zeros((1, 3))), faint, limit=1)
    assert not len(index)


@pytest.mark.parametrize("growth", [-2, -1, 0, 1, 2])
def test_an_exchange_may_grow_or_shrink(growth: int) -> None:
    weak = Gaussians.concatenate([one(10 + i, 10, 2, 0.01) for i in range(6)])
    noise = np.random.default_rng(0).normal(size=(3, *SIZE.window.shape)).astype(np.float32)
    proposals = propose(noise, BlockGrid(SIZE, 200)[0], 1.0, spacing=10.0, count=12)
    index, accepted = exchange(removal_cost(weak, np.zeros((6, 3))), proposals, 2, growth)
    assert len(index) == 2
    assert len(accepted.gain) - len(index) == growth
    unprofitable = dataclasses.replace(proposals, gain=0 * proposals.gain)
    index, accepted = exchange(removal_cost(weak, np.zeros((6, 3))), unprofitable, 2, growth)
    assert len(accepted.gain) - len(index) == growth


@pytest.mark.parametrize("limit", [0, 1, 70_000, 150_000, 200_000])
def test_the_cheapest_are_given_up_and_of_equal_ones_the_first(limit: int) -> None:
    cost = np.random.default_rng(0).integers(-3, 4, 150_000).astype(np.float64)
    f32, n = np.float32, len(cost)
    gainful = Proposals(np.zeros((n, 2)), np.ones((n, 2), f32), np.ones((n, 3), f32), np.full(n, 9, f32))
    index, _ = exchange(cost, gainful, limit)
    assert index.tolist() == np.argsort(cost, kind="stable")[:limit].tolist()


def test_the_best_proposals_are_those_of_all_blocks() -> None:
    rng, f32 = np.random.default_rng(2), np.float32
    gains = [rng.integers(0, 9, n).astype(f32) for n in (3, 0, 40, 7, 25, 12)]
    parts = [Proposals(rng.random((len(g), 2)), np.ones((len(g), 2), f32), np.ones((len(g), 3), f32), g) for g in gains]
    best = BestProposals(10, 3)
    for part in parts:
        best.add(part)
        assert len(best.all.gain) <= 20
    np.testing.assert_array_equal(best.all.best(10).xy, Proposals.concatenate(parts).best(10).xy)
