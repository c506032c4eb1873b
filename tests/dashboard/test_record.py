"""What a page would be told of a fit."""

from __future__ import annotations

import math
from types import SimpleNamespace

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
    return Record(Silent(), "a.tif", SIZE, None)


def test_all_is_passed_on() -> None:
    told = Told()
    record = Record(told, "a.tif", SIZE, None)
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
    kept = Record(Silent(), "a.tif", Size(side, side), None)
    kept.block_done(1, 1, Window(side - 1, side - 1, 1, 1), Size(side, side), 0.5)
    assert kept.snapshot().residuals[-1, -1] == 0.5


def test_a_new_stage_has_done_no_blocks() -> None:
    kept = record()
    kept.block_done(1, 2, SIZE.window, SIZE, 0.5)
    kept.start("encode", 1, "file")
    assert kept.snapshot().blocks == 0


def test_what_is_over_is_listed_the_latest_first() -> None:
    kept = record()
    kept.start("drawing points", 12, "tiles")
    kept.advance(12)
    kept.note("so it goes")
    kept.start("fit", 10, "steps")
    kept.advance(5, psnr=30.0)
    # A stage is listed when the next one begins.
    over, noted = kept.snapshot().lines
    assert over.startswith("drawing points: 12 tiles in ")
    assert noted == "so it goes"


def test_the_curve_ends_where_the_steps_do() -> None:
    kept = record()
    kept.start("fit", 600, "steps")
    kept.advance(psnr=30.0, level=0)
    kept.start("encode", 1, "file")
    assert kept.snapshot().steps == 600


def test_kernels_that_are_compiled_are_said_and_left_out_of_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, compiling_s = 100.0, 0.0
    for module in ("dashboard.record", "stages"):
        monkeypatch.setattr(f"smartsplat_large.{module}.time", SimpleNamespace(monotonic=lambda: now_s))
    kept = record()
    kept.compiling(lambda: compiling_s)
    kept.start("fit", 10, "steps")
    kept.compiles(True)
    assert kept.snapshot().described == "compiling kernels (first run only)"
    now_s, compiling_s = 107.0, 5.0
    kept.compiles(False)
    kept.advance(5)
    assert kept.snapshot().left == "2.0 s left"
    kept.start("encode", 1, "file")
    assert kept.snapshot().lines == ["fit: 5 steps in 2.0 s, and 5.0 s compiling kernels"]


def test_an_end_is_good_if_the_file_was_verified() -> None:
    good, bad = record(), record()
    for kept in (good, bad):
        kept.start("verify", 1, "MP")
        assert not kept.snapshot().ended
    good.verified(1234, 40.5)
    for kept in (good, bad):
        kept.end()
    now = good.snapshot()
    assert (now.ended, now.verified, now.file_bytes, now.file_psnr) == (True, True, 1234, 40.5)
    assert now.lines[0].startswith("verify: ")
    now = bad.snapshot()
    assert (now.ended, now.verified, now.lines) == (True, False, [])
