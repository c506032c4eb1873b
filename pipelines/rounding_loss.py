"""What writing a fit to a file costs: PSNR of its Gaussians as they were fitted, and of the file.

    python pipelines/rounding_loss.py PICTURE... [--ratios 50 100 200] [--presets balanced] [--seed 0] [--json FILE]

Runs in the environment that pipelines/check.py sets up. Both have the same number of Gaussians; the file may leave some
out. ``filled`` is the share of its bytes that the file uses.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from reporting import configured, fixed, guarded, note, parser, publish, table

from smartsplat_large.codec import SplatFile, write_atomic
from smartsplat_large.config import FitConfig
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.memory import GiB
from smartsplat_large.picture import view_of
from smartsplat_large.progress import Silent
from smartsplat_large.render.cpu import CpuRenderer
from smartsplat_large.sampling import sample
from smartsplat_large.source import ImageSource, open_source, working_copy
from smartsplat_large.streaming.background import background_of
from smartsplat_large.streaming.budget import encode_within, gaussian_budget
from smartsplat_large.streaming.evaluate import measure_psnr
from smartsplat_large.streaming.fit import fit_gaussians
from smartsplat_large.streaming.plan import plan_fit
from smartsplat_large.streaming.workers import open_workers


@dataclass(frozen=True, slots=True)
class Row:
    """One fit and its file."""

    picture: str
    preset: str
    ratio: float
    fit_psnr: float
    psnr: float
    gaussians: int
    bytes: int
    filled: float
    fit_cpu_s: float
    encode_cpu_s: float


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("pictures", nargs="+", type=Path)
    arguments.add_argument("--ratios", nargs="+", type=float, default=[50, 100, 200])
    arguments.add_argument("--presets", nargs="+", default=["balanced"], metavar="NAME[=STEPS][:SETTING=VALUE]")
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    rows = []
    for picture, name, ratio in itertools.product(given.pictures, given.presets, given.ratios):
        note(f"{picture.name}: {name} at ratio {ratio:g}")
        rows.append(measure(picture, name, configured(name).replace(ratio=ratio, seed=given.seed)))
    publish(report(rows), given.json, rows, seed=given.seed)


def measure(picture: Path, name: str, config: FitConfig) -> Row:
    """Fit, and write the file, as ``smartsplat-large fit`` does."""
    quiet = Silent()
    with open_source(picture) as source, open_workers(None, progress=quiet) as pool:
        meta = source.meta
        count, limit = gaussian_budget(meta, config)
        about = (meta.size, meta.channels, meta.dtype.itemsize, count)
        plan = plan_fit(*about, config, memory_bytes=4 * GiB, workers=pool.count)
        with (
            tempfile.TemporaryDirectory(prefix="smartsplat-") as folder,
            working_copy(
                source, GiB, Path(folder), levels=plan.coarsest + 1, progress=quiet, workers=pool.count
            ) as copy,
        ):
            renderer = CpuRenderer(background_of(copy, config))
            began = time.process_time()
            initial = sample(
                copy.read, meta.size, meta.channels, meta.dtype, count, config.sampling, config.seed,
                workers=pool.count, progress=quiet,
            )  # fmt: skip
            fitted = fit_gaussians(
                copy, renderer, initial, plan, config, pool, quiet, GiB, budget_bytes=limit
            ).gaussians
            done = time.process_time()
            encoded = encode_within(fitted, copy, renderer, config, limit, pool, quiet)
            encode_s = time.process_time() - done
            path = Path(folder) / "fit.ssplat"
            write_atomic(path, encoded.parts)
            with SplatFile(path) as file:
                psnr = measure_psnr(copy, view_of(file), pool)
            fit_psnr = unrounded_psnr(copy, renderer, fitted)
    assert config.ratio is not None
    assert limit is not None
    return Row(
        picture.name, name, config.ratio, fit_psnr, psnr, len(fitted), encoded.size_bytes, encoded.size_bytes / limit,
        done - began, encode_s,
    )  # fmt: skip


def unrounded_psnr(source: ImageSource, renderer: CpuRenderer, gaussians: Gaussians) -> float:
    """Of Gaussians as they are, to whole pixels."""
    size, peak = source.meta.size, float((1 << 8 * source.meta.dtype.itemsize) - 1)
    planes = renderer.forward(gaussians, size.window).clip(0, 1)
    difference = np.rint(planes.transpose(1, 2, 0) * peak) - source.read(size.window, 0)
    return float(20 * np.log10(peak) - 10 * np.log10(np.square(difference, dtype=np.float64).mean()))


def report(rows: list[Row]) -> str:
    """A row a file."""
    headings = (
        "picture", "preset", "ratio", "fit PSNR dB", "file PSNR dB", "loss dB", "bytes", "filled", "bytes a Gaussian",
        "encode / fit",
    )  # fmt: skip
    return table(
        headings,
        [
            (
                row.picture, row.preset, f"{row.ratio:g}", fixed(row.fit_psnr, 2), fixed(row.psnr, 2),
                fixed(row.fit_psnr - row.psnr, 2), row.bytes, fixed(row.filled, 4), fixed(row.bytes / row.gaussians, 2),
                fixed(row.encode_cpu_s / row.fit_cpu_s, 2),
            )
            for row in rows
        ],
    )  # fmt: skip


if __name__ == "__main__":
    guarded(main)
