"""Speed of the renderer and of a whole step, against the machine and against what a user would write in PyTorch.

    python pipelines/benchmark_renderer.py [PICTURE] [--yardstick FOLDER] [--json FILE]

Scenes are random Gaussians of a given ratio and overlap; fits are the same picture at the start, in the middle and at the
end of training. An evaluation is one pixel inside one Gaussian's ellipse; G/s are thousands of millions of them a
second. Every figure is the best of several runs, on as many threads as there are cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from reporting import fixed, note, parser, publish, table
from rival_torch import tiled_seconds
from synthetic import PHOTOGRAPH, picture_of

from smartsplat_large.config import LossConfig, preset
from smartsplat_large.gaussians import CUTOFF, Gaussians
from smartsplat_large.lattice import BlockGrid, Size
from smartsplat_large.progress import Silent
from smartsplat_large.render.cpu import CpuRenderer
from smartsplat_large.sampling import sample
from smartsplat_large.source.array import ArraySource
from smartsplat_large.streaming.fit import fit_gaussians
from smartsplat_large.streaming.plan import plan_fit
from smartsplat_large.streaming.sweep import prepare_sweep
from smartsplat_large.streaming.workers import Workers, open_workers

SCENES = ((50, 2.0), (100, 2.0), (100, 3.0), (500, 2.0))
FITTED_STEPS = {"early": 5, "middle": 100, "end": 400}
OPERATIONS = 2 * 2 + 2 * 3 + 2
"""Floating-point operations an evaluation takes forward: two fused steps of the recurrence, a fused sum a channel, the
floor and the maximum."""
SQUARED = LossConfig(l1=0, l2=1, ssim=0)
BLOCK = 512
RENDERER = CpuRenderer()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One scene or fit: seconds, and what they make."""

    scene: str
    megapixels: float
    gaussians: int
    evaluations_per_pixel: float
    forward_s: float
    backward_s: float
    ssim_s: float
    fused_s: float
    step_s: float
    forward_geval_s: float
    backward_geval_s: float
    to_yardstick_forward: float | None = None
    to_yardstick_backward: float | None = None
    to_tiled_torch: float | None = None


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument(
        "picture", type=Path, nargs="?", default=PHOTOGRAPH, help="to fit; by default the bundled one"
    )
    arguments.add_argument("--yardstick", type=Path, metavar="FOLDER", help="of a yardstick.py to compare with")
    arguments.add_argument("--side", type=int, default=2048, help="of the scenes, pixels")
    arguments.add_argument("--largest", type=int, default=64, help="megapixels that cost is followed up to")
    given = arguments.parse_args()
    with open_workers(None, progress=Silent()) as workers:
        rows = [*scenes(given, workers), *fits(given.picture, workers)]
        exponent = cost_exponent(given.largest, workers)
    rates = [OPERATIONS * row.forward_geval_s for row in rows]
    machine = {
        "sgemm_gflops": sgemm_gflops(),
        "forward_gflops": max(rates),
        "operations_per_evaluation": OPERATIONS,
        "cost_exponent": exponent,
        "dense_torch_over_ours": torch_dense(),
        "first_call_s": start_up(cached=False),
        "cached_start_s": start_up(cached=True),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    publish(f"{rendered(rows)}\n\n{table(['figure', 'value'], [[k, f'{v:.4g}'] for k, v in machine.items()])}",
            given.json, rows, **machine)  # fmt: skip


def rendered(rows: list[Row]) -> str:
    """The table of all rows."""
    headings = ["scene", "MP", "Gaussians", "eval/px", "forward G/s", "backward G/s", "SSIM / forward",
                "step / (f + b)", "yardstick forward", "yardstick backward", "tiled torch"]  # fmt: skip
    cells = [
        [r.scene, f"{r.megapixels:.1f}", r.gaussians, f"{r.evaluations_per_pixel:.1f}", f"{r.forward_geval_s:.2f}",
         f"{r.backward_geval_s:.2f}", f"{r.ssim_s / r.forward_s:.2f}", f"{r.step_s / (r.forward_s + r.backward_s):.2f}",
         fixed(r.to_yardstick_forward, 2), fixed(r.to_yardstick_backward, 2), fixed(r.to_tiled_torch, 0)]
        for r in rows
    ]  # fmt: skip
    return table(headings, cells)


def scenes(given: argparse.Namespace, workers: Workers) -> list[Row]:
    """Random Gaussians; with the yardstick and PyTorch on the very same ones."""
    yardstick = load_yardstick(given.yardstick) if given.yardstick else None
    rows = []
    for ratio, overlap in SCENES:
        note(f"scene: ratio {ratio}, overlap {overlap:g}")
        gaussians = random_scene(Size(given.side, given.side), ratio, overlap)
        row = measure(f"ratio {ratio}, overlap {overlap:g}", gaussians, noise(given.side), workers)
        tiled = tiled_seconds(gaussians, min(given.side, 512)) * (given.side / min(given.side, 512)) ** 2
        row = dataclasses.replace(row, to_tiled_torch=tiled / (row.forward_s + row.backward_s))
        rows.append(against(yardstick, row, gaussians, given.side) if yardstick else row)
    return rows


def fits(picture: Path, workers: Workers) -> list[Row]:
    """One picture at the start, in the middle and at the end of a fit."""
    rows = []
    for name, steps in FITTED_STEPS.items():
        note(f"fit: {name}, {steps} steps")
        source = ArraySource(picture_of(picture, Size(1024, 1024)), levels=3)
        config = preset("balanced").replace(ratio=50.0, steps=steps)
        count = source.meta.size.pixels * 3 // 50 // 4
        initial = sample(
            source.read, source.meta.size, 3, source.meta.dtype, count, config.sampling, 0, workers=workers.count
        )
        plan = plan_fit(source.meta.size, 3, 1, count, config, memory_bytes=1 << 40, workers=workers.count)
        best = fit_gaussians(source, RENDERER, initial, plan, config, workers, Silent(), kept_bytes=1 << 30)
        rows.append(measure(f"fit, {name}", best.gaussians, source, workers))
    return rows


def measure(name: str, gaussians: Gaussians, source: ArraySource, workers: Workers) -> Row:
    """All figures of one batch of Gaussians over one picture."""
    size = source.meta.size
    grid, projection = BlockGrid(size, BLOCK), RENDERER.project(gaussians, 1.0)
    sweep = prepare_sweep(source, RENDERER, gaussians, BLOCK, 0, SQUARED)
    parts = [projection.take(sweep.members.of(block.index)) for block in grid]
    gradients = [np.random.default_rng(1).standard_normal((3, *block.core.shape)).astype(np.float32) for block in grid]

    def on_all(task: Callable[[int], Any]) -> float:
        with ThreadPoolExecutor(workers.count) as threads:
            return best_of(lambda: list(threads.map(task, range(len(grid)))))

    forward = on_all(lambda i: RENDERER.render(parts[i], grid[i].core))
    backward = on_all(lambda i: RENDERER.correlate(parts[i], grid[i].core, gradients[i]))
    plain, with_ssim = (whole_step(gaussians, source, loss, workers) for loss in (SQUARED, LossConfig()))
    fused = on_all(lambda i: RENDERER.descend(parts[i], grid[i].core, sweep.targets.read(grid[i].core)
                   if False else targets[i], 0.0, 1.0)) if (targets := planes_of(source, grid)) else 0.0  # fmt: skip
    evaluations = float(2 * np.pi * CUTOFF * gaussians.scale.prod(1, dtype=np.float64).sum())
    return Row(
        scene=name, megapixels=size.megapixels, gaussians=len(gaussians), evaluations_per_pixel=evaluations / size.pixels,
        forward_s=forward, backward_s=backward, ssim_s=max(with_ssim - plain, 0.0), fused_s=fused, step_s=plain,
        forward_geval_s=evaluations / forward / 1e9, backward_geval_s=evaluations / backward / 1e9,
    )  # fmt: skip
