"""Speed of the renderer and of a whole step, against the machine and against what one would write in PyTorch.

    python pipelines/benchmark_renderer.py [PICTURE] [--yardstick FOLDER] [--json FILE]

Scenes are random Gaussians of a given ratio and overlap; fits are one picture at the start, in the middle and at the end
of training. An evaluation is one pixel inside one Gaussian's ellipse; G/s are thousands of millions of them a second. Kernels
walk down strips of eight lanes: how many lanes an evaluation takes, and how many rows a strip has, say what a scene costs.
Every figure is the best of several runs, on as many threads as there are cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from reporting import fixed, guarded, note, parser, publish, table
from rival_torch import dense_seconds, tiled_seconds
from synthetic import PHOTOGRAPH

from smartsplat_large.config import LossConfig, preset
from smartsplat_large.fitting.block import members
from smartsplat_large.fitting.loss import block_loss
from smartsplat_large.fitting.optimizer import AdamState
from smartsplat_large.gaussians import CUTOFF, Gaussians
from smartsplat_large.lattice import Block, Size, Window
from smartsplat_large.progress import Silent
from smartsplat_large.render.cpu import CpuRenderer
from smartsplat_large.render.records import MX, MY, TILE_HEIGHT, TILE_WIDTH
from smartsplat_large.render.strips import STRIPS, spans, strip_range
from smartsplat_large.sampling import sample
from smartsplat_large.simd import LANES
from smartsplat_large.source import ArraySource, open_source, read_window
from smartsplat_large.streaming.fit import fit_gaussians
from smartsplat_large.streaming.plan import plan_fit
from smartsplat_large.streaming.sweep import prepare_sweep, sweep_gradients
from smartsplat_large.streaming.targets import Targets
from smartsplat_large.streaming.workers import Workers, open_workers

SCENES = ((50, 2.0), (100, 2.0), (100, 3.0), (500, 2.0))
STEPS = {"fit, early": 5, "fit, middle": 100, "fit, end": 400}
FITTED = Size(1024, 1024)
OPERATIONS = 2 * 2 + 2 * 3 + 2
"""Floating-point operations of an evaluation, forward: two fused steps of the recurrence, a fused sum a channel, the floor
and the maximum."""
SQUARED, WITH_SSIM = LossConfig(l1=0, l2=1, ssim=0), LossConfig(l1=0, l2=1, ssim=0.01, ssim_stride=2)
BLOCK = 512
TORCH_SIDE = 512
RENDERER = CpuRenderer()
_FIRST_STEP = """
import os, sys
import smartsplat_large.cli
import smartsplat_large as ss
from smartsplat_large.progress import Silent

class UntilFirstStep(Silent):
    def advance(self, amount=1, **facts):
        if "level" in facts:
            os._exit(0)

ss.fit(*sys.argv[1:], config=ss.preset("balanced"), progress=UntilFirstStep())
sys.exit("no step was taken")
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One scene: seconds, and what they make."""

    scene: str
    megapixels: float
    gaussians: int
    evaluations: float
    strips: int
    """Columns of eight pixels that the kernels walk down, each for one Gaussian in one tile."""
    strip_rows: int
    """Rows of all of them."""
    forward_s: float
    backward_s: float
    bucket_s: float
    """Finding which Gaussians touch which block and tile."""
    step_s: float
    """Bucket, render, squared error, backward and Adam."""
    loss_s: float
    """L2 and SSIM with their gradient, as `balanced` takes them, of images that are there."""
    ssim_step_s: float
    """A step with that loss."""
    alike_s: float | None = None
    """A step of as many random Gaussians with as many evaluations."""
    yardstick_forward_s: float | None = None
    yardstick_backward_s: float | None = None
    tiled_torch_s: float | None = None


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument(
        "picture", type=Path, nargs="?", default=PHOTOGRAPH, help="to fit; by default the bundled one"
    )
    arguments.add_argument("--yardstick", type=Path, metavar="FOLDER", help="of a yardstick.py to compare with")
    arguments.add_argument("--side", type=int, default=2048, help="of the scenes, pixels")
    arguments.add_argument("--largest", type=int, default=64, help="megapixels up to which the cost is followed")
    given = arguments.parse_args()
    with open_workers(None, progress=Silent()) as workers:
        rows = [*_scenes(given, workers), *_fits(given.picture, workers)]
        costs = _costs(given.largest, workers)
        threads = _step_seconds_on(1) / _step_seconds_on(workers.count)
    figures = {
        "sgemm Gflop/s": _sgemm(),
        "operations an evaluation, forward": OPERATIONS,
        "Gflop/s forward, best scene": max(OPERATIONS * r.evaluations / r.forward_s for r in rows) / 1e9,
        f"speed of {workers.count} threads over one": threads,
        "exponent of a step's cost over megapixels": _exponent(costs),
        **{f"step of {megapixels:.0f} MP, ms a MP": 1e3 * s / megapixels for megapixels, s in costs.items()},
        "dense PyTorch / ours, 256 x 256": _dense_ratio(),
        "start to first step of 4 MP, kernels compiled, s": _start(fresh=True),
        "start to first step of 4 MP, later, s": min(_start(fresh=False) for _ in range(3)),
        "peak memory of this recipe, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    markdown = f"{_rendered(rows)}\n\n{table(['figure', 'value'], [[k, f'{v:.4g}'] for k, v in figures.items()])}"
    publish(markdown, given.json, rows, figures=figures, seconds_by_megapixels=costs)


def _rendered(rows: list[Row]) -> str:
    return f"{_seconds(rows)}\n\n{_ratios(rows)}"


def _seconds(rows: list[Row]) -> str:
    """What each scene is, and milliseconds and evaluations a second of each part of a step."""
    parts = ("forward", "backward", "loss", "step", "SSIM step")
    headings = ["scene", "MP", "Gaussians", "eval / px", "lanes / eval", "rows / strip",
                *(f"{part} ms" for part in parts), *(f"{part} G/s" for part in parts)]  # fmt: skip
    cells = []
    for r in rows:
        seconds = (r.forward_s, r.backward_s, r.loss_s, r.step_s, r.ssim_step_s)
        cells.append([
            r.scene, f"{r.megapixels:.1f}", r.gaussians, f"{r.evaluations / r.megapixels / 1e6:.1f}",
            f"{LANES * r.strip_rows / r.evaluations:.2f}", f"{r.strip_rows / r.strips:.1f}",
            *(f"{1e3 * s:.1f}" for s in seconds), *(f"{r.evaluations / s / 1e9:.2f}" for s in seconds),
        ])  # fmt: skip
    return table(headings, cells)


def _ratios(rows: list[Row]) -> str:
    """How the parts of a step stand to one another, and others to ours."""
    headings = [
        "scene", "bucket / step", "step / (f + b)", "loss / f", "SSIM step / (f + b)", "SSIM step / (f + loss + b)",
        "as random", "yardstick f", "yardstick b", "tiled PyTorch",
    ]  # fmt: skip
    cells = []
    for r in rows:
        both = r.forward_s + r.backward_s
        others = (
            (r.step_s if r.alike_s else None, r.alike_s or 1.0, 2),
            (r.yardstick_forward_s, r.forward_s, 2),
            (r.yardstick_backward_s, r.backward_s, 2),
            (r.tiled_torch_s, both, 0),
        )
        cells.append([
            r.scene, f"{r.bucket_s / r.step_s:.3f}", f"{r.step_s / both:.2f}", f"{r.loss_s / r.forward_s:.2f}",
            f"{r.ssim_step_s / both:.2f}", f"{r.ssim_step_s / (both + r.loss_s):.2f}",
            *(fixed(theirs / ours if theirs else None, digits) for theirs, ours, digits in others),
        ])  # fmt: skip
    return table(headings, cells)


def _scenes(given: argparse.Namespace, workers: Workers) -> Iterator[Row]:
    """Random Gaussians; PyTorch and the yardstick get the very same ones."""
    yardstick = _load(given.yardstick / "yardstick.py") if given.yardstick else None
    size = Size(given.side, given.side)
    for ratio, overlap in SCENES:
        note(f"scene: ratio {ratio}, overlap {overlap:g}")
        gaussians = random_scene(size, ratio, overlap)
        row = _measured(f"ratio {ratio}, overlap {overlap:g}", gaussians, noise(size), workers)
        share = TORCH_SIDE**2 / size.pixels
        row = dataclasses.replace(row, tiled_torch_s=tiled_seconds(gaussians, TORCH_SIDE) / share)
        if yardstick:
            forward, backward = _by_yardstick(yardstick, gaussians, size)
            row = dataclasses.replace(row, yardstick_forward_s=forward, yardstick_backward_s=backward)
        yield row


def _fits(picture: Path, workers: Workers) -> Iterator[Row]:
    """One picture early, in the middle and at the end of a fit at ratio 50."""
    with open_source(picture) as opened:
        size = Size(min(FITTED.width, opened.meta.size.width), min(FITTED.height, opened.meta.size.height))
        pixels = read_window(opened, Window(0, 0, size.width, size.height))
    source, count = ArraySource(pixels, levels=4), size.pixels * 3 // 50 // 4
    for name, steps in STEPS.items():
        note(name)
        config = preset("balanced").replace(ratio=50.0, steps=steps)
        start = sample(source.read, size, 3, pixels.dtype, count, config.sampling, 0, workers=workers.count)
        plan = plan_fit(size, 3, 1, count, config, memory_bytes=1 << 40, workers=workers.count)
        best = fit_gaussians(source, RENDERER, start, plan, config, workers, Silent(), kept_bytes=1 << 30)
        row = _measured(name, best.gaussians, source, workers)
        alike = random_scene(size, 3 * size.pixels / (7 * count), 1.0)
        wider = math.sqrt(row.evaluations / _evaluations(alike))
        alike = dataclasses.replace(alike, scale=np.float32(wider) * alike.scale)
        yield dataclasses.replace(row, alike_s=step_seconds(alike, Targets(source, 0, 1 << 40), SQUARED, workers))


def _measured(name: str, gaussians: Gaussians, source: ArraySource, workers: Workers) -> Row:
    size = source.meta.size
    targets = Targets(source, 0, 1 << 40)
    sweep = prepare_sweep(targets, RENDERER, gaussians, BLOCK, 0, SQUARED)
    blocks = list(sweep.task.grid)
    parts = [sweep.projection.take(sweep.members.of(block.index)) for block in blocks]
    d_images = [np.random.default_rng(1).standard_normal((3, *block.core.shape)).astype(np.float32) for block in blocks]

    def render(_: None, i: int) -> Any:
        return RENDERER.render(parts[i], blocks[i].core)

    def correlate(_: None, i: int) -> Any:
        return RENDERER.correlate(parts[i], blocks[i].core, d_images[i])

    def bucket() -> None:
        for part, block in zip(parts, blocks, strict=True):
            RENDERER.tiles(part, block.core)

    images = [RENDERER.render(parts[i], blocks[i].core) for i in range(len(blocks))]
    wanted = [targets.read(block.core) for block in blocks]

    def compare(_: None, i: int) -> Any:
        alone = Block(i, blocks[i].core, blocks[i].core)
        return block_loss(images[i], wanted[i], alone, WITH_SSIM, size)

    def on_all(task: Callable[[None, int], Any]) -> float:
        # As in a fit, nothing but sums outlives its block: fresh memory for every image would cost more than rendering it.
        return fastest(lambda: deque(workers.map(task, None, range(len(blocks))), maxlen=0))

    strips, strip_rows = _walks(
        sweep.projection.records,
        *RENDERER.tiles(sweep.projection, size.window),
        size.width,
        -(-size.width // TILE_WIDTH),
    )
    listing = fastest(lambda: members(sweep.projection, sweep.task.grid))
    plain, similar = (
        step_seconds(gaussians, Targets(source, 0, 1 << 40), loss, workers) for loss in (SQUARED, WITH_SSIM)
    )
    return Row(
        scene=name, megapixels=size.megapixels, gaussians=len(gaussians), evaluations=_evaluations(gaussians),
        strips=strips, strip_rows=strip_rows,
        forward_s=on_all(render), backward_s=on_all(correlate), step_s=plain, ssim_step_s=similar, loss_s=on_all(compare),
        bucket_s=listing + fastest(bucket) / workers.count,
    )  # fmt: skip


@njit
def _walks(records: Any, start: Any, ids: Any, width: int, columns: int) -> Any:
    """Strips that a pass over an image walks down, and their rows."""
    firsts, ends = np.empty(STRIPS, np.int32), np.empty(STRIPS, np.int32)
    strips, rows = 0, 0
    for tile in range(len(start) - 1):
        x, y = tile % columns * TILE_WIDTH, tile // columns * TILE_HEIGHT
        for i in ids[start[tile] : start[tile + 1]]:
            mx, my = records[i, MX] - x, records[i, MY] - y
            reached = strip_range(records[i], mx, 0, min(width - x, TILE_WIDTH) - 1)
            spans(records[i], mx, my, firsts, ends)
            for strip in range(reached[0], reached[1]):
                strips += ends[strip] > firsts[strip]
                rows += max(ends[strip] - firsts[strip], 0)
    return strips, rows


def step_seconds(gaussians: Gaussians, targets: Targets, loss: LossConfig, workers: Workers, repeat: int = 5) -> float:
    """Seconds of a whole step, its Adam included."""
    state = AdamState.start(gaussians, targets.source.meta.size, preset("balanced").optimizer)

    def step() -> None:
        sweep = prepare_sweep(targets, RENDERER, state.gaussians(), BLOCK, 0, loss, workers.spread)
        state.step(sweep_gradients(sweep, workers)[1], 0.0, workers.spread)

    return fastest(step, repeat)


def _costs(largest: int, workers: Workers) -> dict[float, float]:
    """Seconds of a step by megapixels, at ratio 100."""
    costs = {}
    side = 1024
    while side * side <= largest << 20:
        note(f"cost: {side} x {side}")
        size = Size(side, side)
        costs[size.megapixels] = step_seconds(
            random_scene(size, 100, 2.0), Targets(noise(size), 0, 1 << 40), SQUARED, workers, 3
        )
        side *= 2
    return costs


def _exponent(costs: dict[float, float]) -> float:
    return float(np.polyfit(np.log(list(costs)), np.log(list(costs.values())), 1)[0])


def _step_seconds_on(threads: int) -> float:
    size = Size(2048, 2048)
    with open_workers(threads, progress=Silent()) as workers:
        return step_seconds(random_scene(size, 100, 2.0), Targets(noise(size), 0, 1 << 40), SQUARED, workers)


def random_scene(size: Size, ratio: float, overlap: float, seed: int = 0) -> Gaussians:
    """As many as eq. 5 has, anywhere, ``overlap`` times as wide as the circles of eq. 14, of any shape."""
    count = int(3 * size.pixels / (7 * ratio))
    rng = np.random.default_rng(seed)
    width = math.sqrt(size.pixels / (count * math.pi)) / 3 * overlap
    scale = (width * np.exp(rng.normal(0, 0.4, (count, 2)))).astype(np.float32)
    rotation = rng.uniform(0, 2 * np.pi, count).astype(np.float32)
    xy = rng.uniform(0, 1, (count, 2)) * [size.width, size.height]
    return Gaussians(xy, scale, rotation, rng.uniform(-0.2, 1, (count, 3)).astype(np.float32))


def noise(size: Size) -> ArraySource:
    return ArraySource(np.random.default_rng(0).integers(0, 256, (size.height, size.width, 3), np.uint8))


def _evaluations(gaussians: Gaussians) -> float:
    return float(2 * np.pi * CUTOFF * gaussians.scale.prod(1, dtype=np.float64).sum())


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("yardstick", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Yardstick()


def _by_yardstick(yardstick: Any, gaussians: Gaussians, size: Size) -> tuple[float, float]:
    c, s = np.cos(gaussians.rotation), np.sin(gaussians.rotation)
    x, y = 1 / np.square(gaussians.scale).T
    conic = np.stack([c * c * x + s * s * y, c * s * (x - y), s * s * x + c * c * y], 1).astype(np.float32)
    scene = dict(width=size.width, height=size.height, xy=gaussians.xy.astype(np.float32), scale=gaussians.scale,
                 rotation=gaussians.rotation, conic=conic, color=gaussians.color)  # fmt: skip
    gradient = np.random.default_rng(1).standard_normal((3, size.height, size.width)).astype(np.float32)
    return yardstick.forward(scene, 5)[0], yardstick.backward(scene, gradient, 5)[0]


def _dense_ratio() -> float:
    size = Size(256, 256)
    gaussians = random_scene(size, 100, 2.0)
    d_planes = np.ones((3, 256, 256), np.float32)
    ours = fastest(lambda: RENDERER.forward(gaussians, size.window)) + fastest(
        lambda: RENDERER.backward(gaussians, size.window, d_planes)
    )
    return dense_seconds(gaussians, 256) / ours


def _start(*, fresh: bool) -> float:
    """Seconds from the start of the program to the end of the first step on a picture of four megapixels."""
    package = Path(sys.modules["smartsplat_large"].__file__ or "").parent
    if fresh:
        for kernel in package.rglob("__pycache__/*.nb[ci]"):
            kernel.unlink()
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.npy"
        np.save(picture, np.random.default_rng(0).integers(0, 256, (2048, 2048, 3), np.uint8))
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", _FIRST_STEP, str(picture), f"{folder}/a.ssplat"], check=True)
        return time.perf_counter() - began


def _sgemm(side: int = 2048) -> float:
    a = np.random.default_rng(0).standard_normal((side, side)).astype(np.float32)
    return 2 * side**3 / fastest(lambda: a @ a) / 1e9


def fastest(call: Callable[[], Any], repeat: int = 5) -> float:
    """Seconds of the fastest of some calls, after one that does not count."""
    call()
    best = math.inf
    for _ in range(repeat):
        began = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - began)
    return best


if __name__ == "__main__":
    guarded(main)
