"""Quality against time and against work: presets and their variants on the same kernels, from the same number of Gaussians.

    python pipelines/time_to_quality.py PICTURE... [--runs paper=5000 balanced fast] [--ablation] [--ratios 50]
                                        [--crop 512x512] [--bytes-each 7] [--json FILE] [--reuse FILE...] [--plot FILE.png]
                                        [--details FILE.png]

Runs in the environment that pipelines/check.py sets up; --plot needs matplotlib. A run is a preset with changes:
``paper=5000`` for another number of steps, ``balanced:relocate_share=0:loss.ssim=0`` for other settings. ``--ablation`` adds
balanced with one part changed at a time. N is that of eq. 5 (7 bytes a Gaussian, or ``--bytes-each``), and nothing is
quantised: what is measured is the fit alone, its pixels clamped and rounded to 8 bits.

The first run is the yardstick: the table says after how many seconds the others reach the PSNR of its last and of its
best state. Seconds are those of one processor: what one worker would take on a machine that does nothing else. ``--json``
grows with every run, and ``--reuse`` takes runs from such files instead of repeating them. ``--details`` lays the most detailed
192 x 192 pixels of each picture and ratio beside those of every run made: a row each, the original first.
Evaluations are those of one pixel and one Gaussian that a forward pass makes; a step also makes as many backward.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import imagecodecs
import numpy as np
from reporting import configured, fixed, guarded, keep, note, parse_size, parser, table

from smartsplat_large.array_types import Moments, Pixels, Planes
from smartsplat_large.config import FitConfig
from smartsplat_large.errors import MissingDependencyError, UsageError
from smartsplat_large.gaussians import CUTOFF
from smartsplat_large.lattice import Size, Window
from smartsplat_large.metrics import Score, score_window
from smartsplat_large.page.gallery import detailed_windows
from smartsplat_large.pixels import to_pixels, to_planes
from smartsplat_large.progress import Silent
from smartsplat_large.render.base import PointwiseLoss, Projection
from smartsplat_large.render.cpu import CpuRenderer
from smartsplat_large.render.records import MX, MY, A, D
from smartsplat_large.sampling import sample
from smartsplat_large.source import ArraySource, open_source, read_window
from smartsplat_large.streaming.background import background_of
from smartsplat_large.streaming.fit import fit_gaussians
from smartsplat_large.streaming.plan import plan_fit
from smartsplat_large.streaming.workers import open_workers

ABLATION = (
    "balanced",
    "balanced:relocate_share=0.0",
    'balanced:optimizer.parametrisation="relative"',
    "balanced:coarse_share=0.0",
    "balanced:loss.ssim=0.0",
    "balanced:loss.ssim_from=0.0",
    "balanced:solve_iterations=0",
    "balanced:sampling.overlap=1.5",
    "balanced:sampling.gradient_weight=0.5",
    "balanced:sampling.variational_share=0.4",
    'balanced:sampling.means="random"',
    'balanced:sampling.colors="random"',
)
"""The default, then it with one part changed."""
DETAIL = 192
"""Pixels of a detail's side."""


@dataclass(slots=True)
class Trace(Silent):
    """PSNR of full-size steps, by seconds and by evaluations."""

    renderer: Counting
    began: float = field(default_factory=time.process_time)
    seconds: list[float] = field(default_factory=list)
    evaluations: list[float] = field(default_factory=list)
    psnr: list[float] = field(default_factory=list)

    def advance(self, amount: float = 1, **facts: object) -> None:
        if facts.get("level") == 0 and isinstance(psnr := facts.get("psnr"), float):
            self.seconds.append(time.process_time() - self.began)
            self.evaluations.append(self.renderer.evaluations)
            self.psnr.append(psnr)


class Counting(CpuRenderer):
    """A renderer that counts how many pixels its Gaussians cover in forward passes."""

    def __init__(self, background: tuple[float, ...]) -> None:
        super().__init__(background)
        self.evaluations = 0.0

    def render(self, projection: Projection, window: Window, base: Planes | None = None) -> Planes:
        self._count(projection, window)
        return super().render(projection, window, base)

    def descend(
        self, projection: Projection, window: Window, loss: PointwiseLoss, base: Planes | None = None
    ) -> tuple[float, float, Moments]:
        self._count(projection, window)
        return super().descend(projection, window, loss, base)

    def _count(self, projection: Projection, window: Window) -> None:
        x, y, a, d = (projection.records[:, column] for column in (MX, MY, A, D))
        # By the centre, so that no Gaussian is counted once a block.
        here = (x >= window.x) & (x < window.x_end) & (y >= window.y) & (y < window.y_end)
        self.evaluations += 2 * CUTOFF * math.pi * float((1 / np.sqrt(a[here] * d[here])).sum())


@dataclass(frozen=True, slots=True)
class Run:
    """One fit: its best state, its last step, and the way there."""

    picture: str
    ratio: float
    run: str
    gaussians: int
    psnr: float
    ssim: float | None
    ms_ssim: float | None
    last_psnr: float
    seconds: float
    evaluations: float
    to_yardstick_last_s: float | None
    to_yardstick_best_s: float | None
    trace: dict[str, list[float]]

    def seconds_to(self, psnr: float) -> float | None:
        """When a step first had this PSNR."""
        steps = zip(self.trace["seconds"], self.trace["psnr"], strict=True)
        return next((seconds for seconds, reached in steps if reached >= psnr), None)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("pictures", nargs="+", type=Path)
    arguments.add_argument("--runs", nargs="+", default=["paper=5000", "balanced", "fast"], metavar="RUN")
    arguments.add_argument("--ablation", action="store_true", help="add balanced with one part changed at a time")
    arguments.add_argument("--ratios", nargs="+", type=float, default=[50.0])
    arguments.add_argument("--bytes-each", type=float, default=7.0, help="bytes of a Gaussian; eq. 5 assumes 7")
    arguments.add_argument("--crop", type=parse_size, metavar="WxH", help="take the middle of each picture only")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--workers", type=int, default=1)
    arguments.add_argument(
        "--reuse", nargs="+", type=Path, default=[], metavar="FILE", help="JSON whose runs count as made"
    )
    arguments.add_argument("--plot", type=Path, metavar="FILE", help="draw PSNR against seconds and evaluations")
    arguments.add_argument("--details", type=Path, metavar="FILE", help="show a detail of every run made")
    given = arguments.parse_args()
    if given.details and given.reuse:
        arguments.error("--details shows runs that are made, which --reuse saves")
    names = list(dict.fromkeys([*given.runs, *(ABLATION if given.ablation else ())]))
    configs = {name: configured(name).replace(seed=given.seed) for name in names}
    measure(_warm_up(), configs[names[0]].replace(gaussians=20, steps=3), 1)
    settings = {"crop": given.crop, "seed": given.seed, "bytes_each": given.bytes_each}
    made, runs, details = _made(given.reuse, settings), [], []
    for path in given.pictures:
        pixels = _pixels(path, given.crop)
        for ratio in given.ratios:
            count = max(1, math.floor(pixels.size / (given.bytes_each * ratio)))
            row = Details(pixels)
            for run in compare(path.stem, ratio, pixels, count, configs, given.workers, made, row):
                runs.append(run)
                keep(given.json, runs, **settings)
            details.append(row.tiles)
    print(report(runs))
    if given.plot:
        plot(runs, given.plot)
    if given.details:
        imagecodecs.imwrite(given.details, np.concatenate([np.concatenate(tiles, axis=1) for tiles in details]))


class Details:
    """The same most detailed window of a picture and of what was fitted to it."""

    def __init__(self, pixels: Pixels) -> None:
        (self._window,) = detailed_windows(pixels, DETAIL, 1)
        self._whole = Size(pixels.shape[1], pixels.shape[0]).window
        self.tiles: list[Pixels] = []
        self.add(pixels)

    def add(self, pixels: Pixels) -> None:
        self.tiles.append(pixels[self._window.slices(self._whole)])


def _made(files: list[Path], settings: dict[str, object]) -> dict[tuple[str, float, str], Run]:
    """Runs that files hold, by picture, ratio and name.

    Raises
    ------
    UsageError
        A file is of other settings.
    """
    made: dict[tuple[str, float, str], Run] = {}
    for file in files:
        held = json.loads(file.read_text())
        if held["settings"] != json.loads(json.dumps(settings, default=str)):
            raise UsageError(f"{file} is of other settings: {held['settings']}", hint=f"those of this run: {settings}")
        made |= {(run.picture, run.ratio, run.run): run for run in (Run(**row) for row in held["rows"])}
    return made


def _pixels(path: Path, crop: Size | None) -> Pixels:
    with open_source(path) as source:
        size = source.meta.size
        taken = size if crop is None else Size(min(crop.width, size.width), min(crop.height, size.height))
        x, y = (size.width - taken.width) // 2, (size.height - taken.height) // 2
        return read_window(source, Window(x, y, taken.width, taken.height))


def _warm_up() -> Pixels:
    return np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)


def compare(
    picture: str,
    ratio: float,
    pixels: Pixels,
    count: int,
    configs: dict[str, FitConfig],
    workers: int,
    made: dict[tuple[str, float, str], Run],
    details: Details,
) -> Iterator[Run]:
    """All runs on one picture; the first is the yardstick of the others. Those in ``made`` are not repeated, nor shown."""
    bar: tuple[float, float] | None = None
    for name, config in configs.items():
        run = made.get((picture, ratio, name))
        if run is None:
            note(f"{picture} at ratio {ratio:g}: {name}")
            score, trace, shown = measure(pixels, config.replace(gaussians=count), workers)
            details.add(shown)
            run = Run(
                picture, ratio, name, count, score.psnr(), score.ssim(), score.ms_ssim(),
                trace.psnr[-1] if trace.psnr else -math.inf, trace.seconds[-1], trace.renderer.evaluations, None, None,
                {"seconds": trace.seconds, "evaluations": trace.evaluations, "psnr": trace.psnr},
            )  # fmt: skip
        bar = bar or (run.last_psnr, max(run.trace["psnr"], default=run.last_psnr))
        yield replace(run, to_yardstick_last_s=run.seconds_to(bar[0]), to_yardstick_best_s=run.seconds_to(bar[1]))


def measure(pixels: Pixels, config: FitConfig, workers: int) -> tuple[Score, Trace, Pixels]:
    """Fit, score the best state and show it; the clock starts before sampling."""
    height, width, channels = pixels.shape
    size, count = Size(width, height), config.gaussians or 1
    plan = plan_fit(size, channels, pixels.itemsize, count, config, memory_bytes=1 << 40, workers=workers)
    source = ArraySource(pixels, levels=plan.coarsest + 1)
    trace = Trace(Counting(background_of(source, config)))
    with open_workers(workers, progress=trace) as pool:
        start = sample(source.read, size, channels, pixels.dtype, count, config.sampling, config.seed, workers=workers)
        best = fit_gaussians(source, trace.renderer, start, plan, config, pool, trace)
    shown = to_pixels(CpuRenderer(trace.renderer.background).forward(best.gaussians, size.window), pixels.dtype)
    return score_window(to_planes(shown), to_planes(pixels), size.window, size), trace, shown


def report(runs: list[Run]) -> str:
    """A row a run."""
    headings = ("picture", "ratio", "run", "PSNR dB", "SSIM", "MS-SSIM", "last PSNR dB", "seconds", "10^9 evaluations",
                "s to yardstick's last", "s to its best")  # fmt: skip
    rows = [
        (
            r.picture, f"{r.ratio:g}", f"`{r.run}`", fixed(r.psnr, 2), fixed(r.ssim, 4), fixed(r.ms_ssim, 4),
            fixed(r.last_psnr, 2), fixed(r.seconds, 1), fixed(r.evaluations / 1e9, 2),
            fixed(r.to_yardstick_last_s, 1), fixed(r.to_yardstick_best_s, 1),
        )
        for r in runs
    ]  # fmt: skip
    return table(headings, rows)


def plot(runs: list[Run], path: Path) -> None:
    """PSNR of the best state so far against seconds, above, and evaluations, below; a column a picture and ratio."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("--plot needs matplotlib", hint="pip install matplotlib") from error
    cases = list(dict.fromkeys((r.picture, r.ratio) for r in runs))
    figure = Figure(figsize=(5 * len(cases), 7), layout="constrained")
    axes = figure.subplots(2, len(cases), squeeze=False)
    for column, case in enumerate(cases):
        for row, along in enumerate(("seconds", "evaluations")):
            for run in (r for r in runs if (r.picture, r.ratio) == case):
                best = np.maximum.accumulate(run.trace["psnr"])
                axes[row, column].semilogx(run.trace[along], best, label=run.run)
            axes[row, column].set(title=f"{case[0]}, ratio {case[1]:g}", xlabel=along, ylabel="PSNR dB")
            axes[row, column].grid(alpha=0.3)
    axes[0, 0].legend(fontsize="small")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    guarded(main)
