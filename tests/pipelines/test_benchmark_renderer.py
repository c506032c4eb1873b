"""The benchmark's own arithmetic, on a scene so small that its seconds mean nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Size
from smartsplat_large.progress import Silent
from smartsplat_large.streaming.workers import open_workers

PIPELINES = Path(__file__).parents[2] / "pipelines"


def column(table: str, heading: str) -> str:
    """The cell under a heading of a table of one row."""
    headings, _, cells = ([cell.strip() for cell in line.split("|")] for line in table.splitlines())
    return cells[headings.index(heading)]


def test_a_scene_is_measured_and_laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PIPELINES)
    import benchmark_renderer as benchmark

    size = Size(200, 150)
    with open_workers(2, progress=Silent()) as workers:
        row = benchmark._measured("small", benchmark.random_scene(size, 100, 2.0), benchmark.noise(size), workers)
    assert (row.gaussians, row.megapixels) == (int(3 * 200 * 150 / 700), 0.03)
    # Strips hold all that is evaluated within the picture; the rest of the ellipses lies beyond it.
    assert 0.8 < 8 * row.strip_rows / row.evaluations < 1.6
    seconds, ratios = benchmark._rendered([row]).split("\n\n")
    assert column(seconds, "forward ms") == f"{1e3 * row.forward_s:.1f}"
    assert column(seconds, "loss G/s") == f"{row.evaluations / row.loss_s / 1e9:.2f}"
    assert column(ratios, "SSIM step / (f + b)") == f"{row.ssim_step_s / (row.forward_s + row.backward_s):.2f}"


def test_a_strip_is_walked_from_the_ellipse_s_top_to_its_foot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(PIPELINES)
    import benchmark_renderer as benchmark

    reach = 4.0
    one = Gaussians(
        np.array([[32.5, 16.5]]), np.full((1, 2), reach / np.sqrt(2 * np.log(255)), np.float32), np.zeros(1, np.float32),
        np.ones((1, 3), np.float32),
    )  # fmt: skip
    projection = benchmark.RENDERER.project(one, 1.0)
    start, ids = benchmark.RENDERER.tiles(projection, Size(64, 32).window)
    # Strip 4 has the centre, and nine rows; strip 3 ends a pixel left of it, where the ellipse is seven rows high.
    assert benchmark._walks(projection.records, start, ids, 64, 1) == (2, 7 + 9)
