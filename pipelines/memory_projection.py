"""Projected against measured peak memory of whole fits, on pictures of 1, 4, 16 and 64 megapixels.

    python pipelines/memory_projection.py [--megapixels 1 4 16 64] [--preset fast] [--steps 4] [--ratio 50] [--json FILE]

Runs in the environment that pipelines/check.py sets up. The pictures are the bundled photograph, laid out mirrored. Each
fit is a process of its own, held to the very memory that its plan asks for, so that no spare room hides an error; it exits
with 1 if any takes more.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from reporting import fixed, guarded, note, parser, publish, table
from synthetic import write_mosaic

from smartsplat_large import api
from smartsplat_large.config import FitConfig, preset
from smartsplat_large.lattice import Size
from smartsplat_large.memory import MiB
from smartsplat_large.sampling.footprint import footprint
from smartsplat_large.source import ImageMeta, open_source
from smartsplat_large.streaming.budget import gaussian_budget
from smartsplat_large.streaming.plan import plan_fit

UNLIMITED = 1 << 60


@dataclass(frozen=True, slots=True)
class Row:
    """One fit."""

    megapixels: float
    gaussians: int
    projected_bytes: int
    measured_bytes: int
    seconds: float


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--megapixels", nargs="+", type=float, default=[1, 4, 16, 64])
    arguments.add_argument("--preset", default="fast")
    arguments.add_argument("--steps", type=int, default=4)
    arguments.add_argument("--ratio", type=float, default=50.0)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    config = preset(given.preset).replace(ratio=given.ratio, steps=given.steps)
    if given.measure:
        measure(Path(given.measure[0]), int(given.measure[1]), config, given.workers)
        return
    rows = [row(megapixels, config, given.workers) for megapixels in given.megapixels]
    publish(
        report(rows), given.json, rows, **{k: str(v) for k, v in vars(given).items() if k not in ("json", "measure")}
    )
    raise SystemExit(any(r.measured_bytes > r.projected_bytes for r in rows))


def row(megapixels: float, config: FitConfig, workers: int) -> Row:
    """Make a picture, and fit it in a process of its own."""
    side = round(math.sqrt(megapixels * 1e6))
    with tempfile.TemporaryDirectory(prefix="smartsplat-") as folder:
        picture = Path(folder) / "picture.tif"
        note(f"{side}x{side}: picture")
        write_mosaic(picture, Size(side, side))
        with open_source(picture) as source:
            projected = project(source.meta, config, workers)
        note(f"{side}x{side}: fit")
        again = [sys.executable, *sys.argv, "--workers", str(workers), "--measure", str(picture), str(projected)]
        done = subprocess.run(again, check=True, stdout=subprocess.PIPE, text=True)
    report = json.loads(done.stdout)
    return Row(megapixels, report["gaussians"], projected, report["peak_rss_bytes"], report["seconds"])


def project(meta: ImageMeta, config: FitConfig, workers: int) -> int:
    """The memory that a fit asks for: the larger one of what its stages do."""
    count, _ = gaussian_budget(meta, config)
    about = (meta.size, meta.channels, meta.dtype.itemsize, count)
    plan = plan_fit(*about, config, memory_bytes=UNLIMITED, workers=workers)
    return max(plan.footprint.total, footprint(*about, config.sampling, workers).total)


def measure(picture: Path, memory_bytes: int, config: FitConfig, workers: int) -> None:
    """Fit within ``memory_bytes`` and print what it took as JSON."""
    output = picture.with_suffix(".ssplat")
    done = api.fit(picture, output, config=config, memory_bytes=memory_bytes, workers=workers, dashboard=True)
    print(json.dumps({"gaussians": done.gaussians, "peak_rss_bytes": done.peak_rss_bytes, "seconds": done.seconds}))


def report(rows: list[Row]) -> str:
    """A row a picture, in MiB."""
    return table(
        ("MP", "Gaussians", "projected MiB", "measured MiB", "share", "seconds"),
        [
            (
                f"{r.megapixels:g}", r.gaussians, fixed(r.projected_bytes / MiB, 0), fixed(r.measured_bytes / MiB, 0),
                fixed(r.measured_bytes / r.projected_bytes, 2), fixed(r.seconds, 1),
            )
            for r in rows
        ],
    )  # fmt: skip


if __name__ == "__main__":
    guarded(main)
