"""What blocked mode costs in quality, at its blocks' borders too, and what both modes take in seconds.

    python pipelines/blocked_vs_exact.py PICTURE... [--ratios 50 200 1000] [--presets fast balanced]
                                         [--crop 2048x2048] [--steps-per-visit 10] [--json FILE]
                                         [--error-map FILE.jpg]

Runs in the environment that pipelines/check.py sets up. Both modes start from the same Gaussians and end before a file is
made. "seam dB" is how much more blocked mode loses within 8 pixels of the last grid's borders, or of the grid's before it,
than elsewhere: the worse of the two. "chance" is the same where no borders are, a quarter of a block aside of both.

The second table looks for a grid at whatever phase: what blocked mode loses more in rows and columns is folded by a period.
"peak dB" is the phase that departs most. At periods that no grid has there are peaks, too: "shows from" is three standard
deviations above those, and "z" is how many the peak is.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import numpy as np
from reporting import fixed, guarded, lossless_copy, note, parse_size, parser, publish, table
from scipy.ndimage import uniform_filter1d

from smartsplat_large.config import FitConfig, preset
from smartsplat_large.lattice import Size
from smartsplat_large.pixels import to_pixels
from smartsplat_large.progress import Silent
from smartsplat_large.render.cpu import CpuRenderer
from smartsplat_large.sampling import sample
from smartsplat_large.source.array import ArraySource
from smartsplat_large.streaming.budget import gaussian_budget
from smartsplat_large.streaming.fit import fit_gaussians
from smartsplat_large.streaming.plan import plan_fit
from smartsplat_large.streaming.workers import open_workers

BAND = 8
MAP_SIDE = 512
"""Pixels of an error map along its longer side, at most."""
WHITE = 4
"""An error so many times the root mean square of exact mode's is white in the map."""


class Peak(NamedTuple):
    """What stands out most when rows and columns are folded by ``period``."""

    period: int
    peak: float
    """dB that blocked mode is behind there."""
    shows_from: float
    """A peak of more dB is hardly chance."""
    z: float


@dataclass(frozen=True, slots=True)
class Row:
    """One picture, preset and ratio, in both modes."""

    picture: str
    preset: str
    ratio: float
    exact_psnr: float
    blocked_psnr: float
    seam: float
    chance: float
    exact_s: float
    exact_cpu_s: float
    blocked_s: float
    blocked_cpu_s: float
    by_block: Peak
    """Either grid, the shifted one or the other."""
    by_half: Peak
    """Both at once."""


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("pictures", nargs="+", type=Path)
    arguments.add_argument("--ratios", nargs="+", type=float, default=[50, 200, 1000])
    arguments.add_argument("--presets", nargs="+", default=["fast", "balanced"])
    arguments.add_argument("--crop", type=parse_size, metavar="WxH", default=Size(2048, 2048))
    arguments.add_argument("--steps-per-visit", type=int, default=FitConfig().steps_per_visit)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument(
        "--error-map",
        type=Path,
        metavar="FILE.jpg",
        help="draw |error| of exact and blocked mode side by side, a row a fit",
    )
    given = arguments.parse_args()
    rows, maps = [], []
    with tempfile.TemporaryDirectory(prefix="smartsplat-") as folder:
        for path, name, ratio in product(given.pictures, given.presets, given.ratios):
            pixels = np.load(lossless_copy(path, given.crop, Path(folder)))
            config = preset(name).replace(ratio=ratio, steps_per_visit=given.steps_per_visit)
            for mode in ("exact", "blocked"):  # Kernels are compiled or loaded before anything is timed.
                squared_error(pixels[:256, :256], config.replace(mode=mode, steps=12), given.workers)
            row, error = compare(path.stem, pixels, config, given.workers)
            rows.append(row)
            maps.append(error_map(error))
    if given.error_map:
        given.error_map.write_bytes(imagecodecs.jpeg8_encode(stacked(maps), level=70))
    publish(report(rows), given.json, rows, **{k: str(v) for k, v in vars(given).items() if k != "json"})


def compare(picture: str, pixels: np.ndarray, config: FitConfig, workers: int) -> tuple[Row, dict[str, np.ndarray]]:
    """Both modes from the same start; and the squared error of every pixel, by mode."""
    note(f"{picture}: {config.preset} at ratio {config.ratio:g}")
    error, seconds, block = {}, {}, 0
    for mode in ("exact", "blocked"):
        began, busy = time.perf_counter(), time.process_time()
        error[mode], block = squared_error(pixels, config.replace(mode=mode), workers)
        seconds[mode] = time.perf_counter() - began, time.process_time() - busy
    lines = [near(block, quarter * block // 4, pixels) for quarter in range(4)]
    seams = [lost(error, line) - lost(error, ~line) for line in lines]
    psnr = {mode: -10 * np.log10(e.mean()) for mode, e in error.items()}
    return Row(
        picture, config.preset, config.ratio or 0, psnr["exact"], psnr["blocked"], max(seams[::2]), max(seams[1::2]),
        *seconds["exact"], *seconds["blocked"], grid_peak(error, block), grid_peak(error, block // 2),
    ), error  # fmt: skip


def squared_error(pixels: np.ndarray, config: FitConfig, workers: int) -> tuple[np.ndarray, int]:
    """Of every pixel, after a fit; and the side of its blocks."""
    source = ArraySource(pixels, name="picture", levels=8)
    meta = source.meta
    count, _ = gaussian_budget(meta, config)
    plan = plan_fit(meta.size, meta.channels, pixels.itemsize, count, config, memory_bytes=1 << 40, workers=workers)
    with open_workers(workers, progress=Silent()) as pool:
        start = sample(source.read, meta.size, meta.channels, meta.dtype, count, config.sampling, 0, workers=workers)
        best = fit_gaussians(source, CpuRenderer(), start, plan, config, pool, Silent(), pixels.nbytes * 4)
    shown = to_pixels(CpuRenderer().forward(best.gaussians, meta.size.window), pixels.dtype)
    return np.square((shown.astype(float) - pixels) / np.iinfo(pixels.dtype).max).mean(2), plan.block


def near(block: int, shift: int, pixels: np.ndarray) -> np.ndarray:
    """The pixels close to a border inside the picture."""
    y, x = (np.abs((np.arange(n) + shift + block // 2) % block - block // 2) for n in pixels.shape[:2])
    for line in (y, x) if not shift else ():
        line[:BAND], line[-BAND:] = block, block
    return (y[:, None] < BAND) | (x[None, :] < BAND)


def lost(error: dict[str, np.ndarray], where: np.ndarray) -> float:
    """dB that blocked mode is behind."""
    return float(10 * np.log10(error["blocked"][where].mean() / error["exact"][where].mean()))


def grid_peak(error: dict[str, np.ndarray], period: int) -> Peak:
    """What is behind most of all phases of ``period``, beside chance.

    That is known from periods a quarter shorter to a quarter longer, apart from those too near to tell.
    """
    lines = [_behind(error, axis) for axis in (0, 1)]
    aside = range(period // 16, period // 4, max(1, period // 64))
    others = [period + sign * pixels for sign in (-1, 1) for pixels in aside]
    chance = np.abs([_folded(lines, other) for other in others])
    peak, mean, spread = _folded(lines, period), chance.mean(), chance.std()
    return Peak(period, peak, float(mean + 3 * spread), float((abs(peak) - mean) / spread))


def _behind(error: dict[str, np.ndarray], axis: int) -> np.ndarray:
    """dB that blocked mode is behind in a band around every row or column, beside wider ones; without a picture's border.

    Squares count alike, whatever they lose: a grid is seen where the picture is smooth.
    """
    blocked, exact = (_squares(np.moveaxis(error[mode], axis, 0)) for mode in ("blocked", "exact"))
    behind: np.ndarray = 10 * np.log10(blocked / exact).mean(1)
    behind -= uniform_filter1d(behind, 16 * BAND)
    behind[:BAND] = behind[-BAND:] = 0
    return behind


def _squares(error: np.ndarray) -> np.ndarray:
    """Means of squares two bands wide around every row; of an error that is nowhere less than rounding to bytes."""
    side = 2 * BAND
    columns = error.shape[1] // side
    runs = error[:, : columns * side].reshape(len(error), columns, side).mean(2)
    squares: np.ndarray = uniform_filter1d(runs, side, axis=0) + 1 / 12 / 255**2
    return squares


def _folded(lines: list[np.ndarray], period: int) -> float:
    """The phase that departs most from 0, rows and columns together."""
    phases = np.mean([_phases(line, period) for line in lines], 0)
    return float(phases[np.abs(phases).argmax()])


def _phases(line: np.ndarray, period: int) -> np.ndarray:
    """The mean of each phase; one that is met less often counts less, as its noise is larger."""
    phases = np.arange(len(line)) % period
    met = np.bincount(phases, minlength=period)
    means: np.ndarray = np.bincount(phases, line, period) * np.sqrt(period / np.maximum(met, 1) / len(line))
    return means


def error_map(error: dict[str, np.ndarray]) -> np.ndarray:
    """The root mean square error of small squares of pixels in both modes, exact left, as grey values of one scale."""
    cell = -(-max(error["exact"].shape) // MAP_SIDE)
    white = WHITE * np.sqrt(error["exact"].mean())
    sides = []
    for mode in ("exact", "blocked"):
        rows, columns = (n // cell for n in error[mode].shape)
        squares = error[mode][: rows * cell, : columns * cell].reshape(rows, cell, columns, cell).mean((1, 3))
        sides.append(np.pad(np.sqrt(squares) / white, 2, constant_values=1))
    grey: np.ndarray = np.rint(255 * np.minimum(np.concatenate(sides, 1), 1)).astype(np.uint8)
    return grey


def stacked(maps: list[np.ndarray]) -> np.ndarray:
    """One below the other, of different widths perhaps."""
    width = max(drawn.shape[1] for drawn in maps)
    return np.concatenate([np.pad(drawn, ((0, 0), (0, width - drawn.shape[1]))) for drawn in maps])


def report(rows: list[Row]) -> str:
    """Two tables, a row a picture, preset and ratio each."""
    headings = ("picture", "preset", "ratio", "exact dB", "blocked dB", "gain", "seam dB", "chance", "exact s", "CPU s",
                "blocked s", "CPU s")  # fmt: skip
    costs = table(headings, [
        (r.picture, r.preset, f"{r.ratio:g}", fixed(r.exact_psnr, 2), fixed(r.blocked_psnr, 2),
         f"{r.blocked_psnr - r.exact_psnr:+.2f}", f"{r.seam:+.3f}", f"{r.chance:+.3f}", fixed(r.exact_s, 1),
         fixed(r.exact_cpu_s, 1), fixed(r.blocked_s, 1), fixed(r.blocked_cpu_s, 1))
        for r in rows
    ])  # fmt: skip
    grids = table(("picture", "preset", "ratio", "period", "peak dB", "shows from", "z"), [
        (r.picture, r.preset, f"{r.ratio:g}", p.period, f"{p.peak:+.3f}", fixed(p.shows_from, 3), f"{p.z:+.1f}")
        for r in rows for p in (r.by_block, r.by_half)
    ])  # fmt: skip
    return f"{costs}\n\n{grids}"


if __name__ == "__main__":
    guarded(main)
