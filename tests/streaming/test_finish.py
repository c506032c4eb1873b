"""Integers fitted to the image: better than each rounded by itself, within the budget, the same for any workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from smartsplat_large import columns
from smartsplat_large.codec.budget import encode_to_budget
from smartsplat_large.codec.quantize import amplitude_step, dequantize
from smartsplat_large.codec.writer import Extras, quantized
from smartsplat_large.config import preset
from smartsplat_large.fitting.block import members
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import BlockGrid, Size
from smartsplat_large.pixels import to_planes
from smartsplat_large.progress import Silent
from smartsplat_large.render.cpu import CpuRenderer
from smartsplat_large.sampling import sample
from smartsplat_large.source import ImageSource, open_source
from smartsplat_large.streaming import rounding
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
    before = squared_error(source, dequantize(symbols.take(slice(None)), step, layout.leaf))
    with open_workers(1, progress=Silent()) as pool:
        finish = Finish.begin(fitted, plain.step_index, 8, Extras(), source, CpuRenderer(), pool, Silent(), 5)
        size = finish.encoded.size_bytes
        for _ in range(3):
            finish.improve(0.05)
    assert finish.encoded.size_bytes < 1.1 * size
    assert squared_error(source, dequantize(finish.symbols.take(slice(None)), step, layout.leaf)) < 0.9 * before


def test_columns_in_files_give_the_same_files(source, fitted, tmp_path, monkeypatch):
    def files() -> list[bytes]:
        plain = encode_to_budget(fitted, size=source.meta.size, bits=8, budget_bytes=BUDGET)
        with open_workers(2, progress=Silent()) as pool:
            finish = Finish.begin(fitted, plain.step_index, 8, Extras(), source, CpuRenderer(), pool, Silent(), 1)
            finish.improve(0.07)
        trimmed = finish.trimmed(int(0.95 * finish.encoded.size_bytes))
        assert trimmed is not None
        return [plain.data, finish.encoded.data, trimmed.data, trimmed.kept.tobytes()]

    expected, parted = files(), columns.chunks
    monkeypatch.setattr(columns, "chunks", lambda count, *_: parted(count, 128))
    monkeypatch.setattr(columns, "_WORTH_COUNTING", 1)
    with columns.mapped(tmp_path):
        assert files() == expected


def test_blocks_of_a_round_do_not_see_each_others_gaussians():
    """What one has done is put in place while others of its round have yet to begin."""
    count, grid = 20_000, BlockGrid(Size(900, 700), 128, 64)
    rng = np.random.default_rng(0)
    xy = rng.uniform(-30, (930, 730), (count, 2))
    scale = np.exp(rng.uniform(-1, 3.5, (count, 2))).astype(np.float32)
    shape = Gaussians(xy, scale, rng.uniform(-2, 2, count).astype(np.float32), np.ones((count, 1), np.float32))
    home, seen = rounding._home(shape, grid), members(CpuRenderer().project(shape, 1.0), grid)
    assert 0.4 < (home >= 0).mean() < 0.9
    for group in range(4):
        blocks = grid.group(group)
        for block in blocks:
            others = set(blocks) - {block}
            assert others.isdisjoint(home[seen.of(block)].tolist())


@pytest.mark.skipif(not columns._STATM.exists(), reason="only Linux tells how much is in memory")
def test_what_is_not_in_columns_is_little(tmp_path: Path) -> None:
    """Anonymous memory of encoding 250000 Gaussians to a budget, and of a pass over their integers."""
    program = f"""
import threading
from pathlib import Path
import numpy as np
from smartsplat_large import columns
from smartsplat_large.codec.budget import encode_to_budget
from smartsplat_large.codec.writer import Extras
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Size
from smartsplat_large.progress import Silent
from smartsplat_large.render.cpu import CpuRenderer
from smartsplat_large.source.array import ArraySource
from smartsplat_large.streaming.finish import Finish
from smartsplat_large.streaming.workers import open_workers

def anonymous():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024

def made(count, side):
    rng = np.random.default_rng(0)
    scale = np.full((count, 2), 0.5 * side / np.sqrt(count), np.float32)
    color = rng.laplace(0, 0.1, (count, 3)).astype(np.float32)
    return Gaussians(rng.random((count, 2)) * side, scale, np.zeros(count, np.float32), color)

def file_of(gaussians, side):
    source = ArraySource(np.full((side, side, 3), 99, np.uint8))
    plain = encode_to_budget(gaussians, size=source.meta.size, bits=8, budget_bytes=3 * len(gaussians))
    with open_workers(1, progress=Silent()) as pool:
        finish = Finish.begin(
            gaussians, plain.step_index, 8, Extras(), source, CpuRenderer(), pool, Silent(), 1
        )
        finish.improve(0.07)

def look():
    while not ended.wait(0.01):
        seen.append(anonymous())

file_of(made(2000, 128), 128)
gaussians = made(250_000, 512)
seen, ended = [anonymous()], threading.Event()
thread = threading.Thread(target=look)
thread.start()
with columns.mapped(Path({str(tmp_path)!r})):
    file_of(gaussians, 512)
ended.set()
thread.join()
print(max(seen) - seen[0])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 64 * 250_000 + (48 << 20)
