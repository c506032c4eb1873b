"""Milliseconds a megapixel of the CUDA renderer, beside the CPU renderer on all cores of the same machine.

    python pipelines/benchmark_gpu.py [--sides N ...] [--json FILE]

Scenes are random Gaussians of a given ratio, as in benchmark_renderer.py. "kernel" begins with arrays that are on the GPU;
"GPU" begins and ends with arrays in the host's memory, as windows of a decoding do; the CPU has all its cores. Steps are whole
steps of a fit, with the squared error or with SSIM too: project, bucket, render, compare, gradient, Adam.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from benchmark_renderer import BLOCK, SQUARED, WITH_SSIM, fastest, noise, random_scene, step_seconds
from reporting import guarded, note, parser, publish, table

from smartsplat_large.config import LossConfig, preset
from smartsplat_large.fitting.optimizer import AdamState
from smartsplat_large.fitting.rate import FREE
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Block, Size
from smartsplat_large.progress import Silent
from smartsplat_large.render.base import Projection
from smartsplat_large.render.cpu import CpuRenderer
from smartsplat_large.render.cuda import CudaRenderer
from smartsplat_large.streaming.sweep import prepare_sweep
from smartsplat_large.streaming.sweep_cuda import sweep_on_gpu
from smartsplat_large.streaming.targets import Targets
from smartsplat_large.streaming.workers import Workers, open_workers

SIDES, RATIOS = (1024, 2048, 4096), (50, 100)
CPU = CpuRenderer()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    megapixels: float
    ratio: int
    gaussians: int
    seconds: dict[str, float]
    difference: float
    """Largest, of pixel values."""
    moments_difference: float
    """Of moments, relative to their norm."""


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--sides", type=int, nargs="+", default=SIDES, help="of the scenes, pixels")
    given = arguments.parse_args()
    with open_workers(None, progress=Silent()) as workers:
        rows = [_row(side, ratio, workers) for side in given.sides for ratio in RATIOS]
    parts = list(rows[0].seconds)
    headings = ["MP", "ratio", "Gaussians", *parts, "largest difference", "of moments"]
    cells = [
        [
            f"{row.megapixels:.1f}", row.ratio, row.gaussians,
            *(f"{1e3 * row.seconds[part] / row.megapixels:.3f}" for part in parts),
            f"{row.difference:.1e}", f"{row.moments_difference:.1e}",
        ]
        for row in rows
    ]  # fmt: skip
    publish(table(headings, cells), given.json, rows, device=torch.cuda.get_device_name(), threads=workers.count)


def _row(side: int, ratio: int, workers: Workers) -> Row:
    note(f"{side} x {side}, ratio {ratio}")
    size = Size(side, side)
    scene, window, targets = random_scene(size, ratio, 2.0), size.window, Targets(noise(size), 0, 1 << 40)
    d_planes = np.random.default_rng(1).standard_normal((3, side, side)).astype(np.float32)
    projection = CPU.project(scene, 1.0)
    gaussians, peaks, d_out = (
        torch.from_numpy(array).cuda() for array in (projection.records, projection.peaks, d_planes)
    )
    gpu = CudaRenderer()
    seconds = {
        "forward, kernel": _on_device(lambda: gpu.rendered(gaussians, peaks, window, None)),
        "forward, GPU": fastest(lambda: gpu.render(projection, window)),
        "forward, CPU": _on_all(scene, targets, workers, lambda part, block: CPU.render(part, block.core)),
        "backward, kernel": _on_device(lambda: gpu.moments(gaussians, peaks, window, d_out)),
        "backward, GPU": fastest(lambda: gpu.correlate(projection, window, d_planes)),
        "backward, CPU": _on_all(
            scene, targets, workers,
            lambda part, block: CPU.correlate(part, block.core, d_planes[(slice(None), *block.core.slices(window))]),
        ),
        "step, CPU": step_seconds(scene, targets, SQUARED, workers),
        "step, GPU": _gpu_step(scene, targets, SQUARED, workers),
        "SSIM step, CPU": step_seconds(scene, targets, WITH_SSIM, workers),
        "SSIM step, GPU": _gpu_step(scene, targets, WITH_SSIM, workers),
    }  # fmt: skip
    moments, expected = gpu.correlate(projection, window, d_planes), CPU.correlate(projection, window, d_planes)
    return Row(
        megapixels=size.megapixels, ratio=ratio, gaussians=len(scene), seconds=seconds,
        difference=float(np.abs(gpu.render(projection, window) - CPU.render(projection, window)).max()),
        moments_difference=float(np.linalg.norm(moments - expected) / np.linalg.norm(expected)),
    )  # fmt: skip


def _on_device(call: Callable[[], object]) -> float:
    def finished() -> None:
        call()
        torch.cuda.synchronize()

    return fastest(finished, 20)


def _gpu_step(scene: Gaussians, targets: Targets, loss: LossConfig, workers: Workers) -> float:
    renderer, state = CudaRenderer(), AdamState.start(scene, targets.source.meta.size, preset("balanced").optimizer)

    def step() -> None:
        sweep_on_gpu(targets, renderer, state, renderer.side, loss, workers).step(state, 0.0, FREE)

    return _on_device(step)


def _on_all(scene: Gaussians, targets: Targets, workers: Workers, task: Callable[[Projection, Block], object]) -> float:
    """Seconds for all blocks of the picture, on all threads."""
    sweep = prepare_sweep(targets, CPU, scene, BLOCK, 0, SQUARED)
    work = [(seen.projection, sweep.task.grid[seen.block]) for seen in (sweep[i] for i in range(len(sweep)))]
    return fastest(lambda: deque(workers.map(lambda _, item: task(*item), None, work), maxlen=0))


if __name__ == "__main__":
    guarded(main)
