"""What a page would be told of a fit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from smartsplat_large.dashboard import Record
from smartsplat_large.lattice import BlockGrid, Size, Window
from smartsplat_large.progress import Costs, Silent

SIZE = Size(1000, 500)


class Told(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def start(self, stage: str, total: float, unit: str, costs: Costs = ()) -> None:
        self.calls.append(("start", stage, total, unit, costs))

    def advance(self, amount: float = 1, **facts: object) -> None:
        self.calls.append(("advance", amount, facts))

    def note(self, message: str) -> None:
        self.calls.append(("note", message))


def record() -> Record:
    return Record(Silent(), SIZE, None)


def test_all_is_passed_on() -> None:
    told = Told()
    record = Record(told, SIZE, None)
    record.start("fit", 10, "steps", [(6, 0.25)])
    record.advance(2, psnr=30.0)
    record.note("so it goes")
    began = ("start", "fit", 10, "steps", [(6, 0.25)])
    assert told.calls == [began, ("advance", 2, {"psnr": 30.0}), ("note", "so it goes")]
    assert record.snapshot().share == pytest.approx(0.5 / 5.5)


def test_quality_is_kept_by_level() -> None:
    kept = record()
    kept.start("fit", 4, "steps")
    for psnr, level in [(20.0, 1), (25.0, 1), (math.inf, 1), (23.0, 0)]:
        kept.advance(psnr=psnr, level=level)
    now = kept.snapshot()
    assert now.psnr == {1: [(1, 20.0), (2, 25.0)], 0: [(4, 23.0)]}
    assert (now.stage, now.share) == ("fit", 1.0)
    assert now.described.endswith("4 of 4 steps")


def test_a_long_fit_keeps_a_short_curve() -> None:
    kept = record()
    kept.start("fit", 50_000, "steps")
    for step in range(50_000):
        kept.advance(psnr=step / 1000, level=0)
    (points,) = kept.snapshot().psnr.values()
    assert 900 < len(points) <= 1001
    assert points[-1][0] > 49_900


def test_another_fit_begins_another_curve() -> None:
    kept = record()
    kept.start("fit", 10, "steps")
    kept.advance(psnr=30.0, level=2)
    kept.start("encode", 1, "file")
    kept.advance(bytes=1234)
    assert kept.snapshot().psnr == {2: [(1, 30.0)]}
    kept.start("fit", 10, "steps")
    kept.advance(psnr=20.0, level=1)
    assert kept.snapshot().psnr == {1: [(1, 20.0)]}
    assert kept.snapshot().file_bytes == 1234


def test_a_sweep_fills_the_map() -> None:
    kept = record()
    assert kept.snapshot().residuals.shape == (64, 128)
    assert np.isnan(kept.snapshot().residuals).all()
    grid = BlockGrid(SIZE.at_level(1), 125)
    for block in grid:
        kept.block_done(block.index + 1, len(grid), block.core, grid.size, 0.25 * block.index)
    now = kept.snapshot()
    assert (now.blocks_done, now.blocks) == (8, 8)
    np.testing.assert_array_equal(now.residuals, np.kron(0.25 * np.arange(8).reshape(2, 4), np.ones((32, 32))))


@pytest.mark.parametrize("side", [1, 3, 1000])
def test_no_block_is_too_small_for_the_map(side: int) -> None:
    kept = Record(Silent(), Size(side, side), None)
    kept.block_done(1, 1, Window(side - 1, side - 1, 1, 1), Size(side, side), 0.5)
    assert kept.snapshot().residuals[-1, -1] == 0.5


def test_a_new_stage_has_done_no_blocks() -> None:
    kept = record()
    kept.block_done(1, 2, SIZE.window, SIZE, 0.5)
    kept.start("encode", 1, "file")
    assert kept.snapshot().blocks == 0
