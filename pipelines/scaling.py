"""Time and memory of whole fits as pictures grow, and the peak that their plans projected.

    python pipelines/scaling.py [PICTURE...] [--megapixels 1 4 16 64] [--preset fast] [--steps N] [--ratio 50]
                                [--memory 4GiB] [--workers 2] [--no-dashboard] [--json FILE]

Runs in the environment that pipelines/check.py sets up. Without pictures, it fits the bundled photograph laid out mirrored, so
many megapixels of it. Each fit is a process of its own. Without ``--memory`` it is held to the very memory that its plan asks
for, so that no spare room hides an error. It exits with 1 if any takes more than projected, or than allowed.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from reporting import configured, fixed, guarded, note, parser, publish, table
from synthetic import write_mosaic

from smartsplat_large import api
from smartsplat_large.config import FitConfig
from smartsplat_large.lattice import Size
from smartsplat_large.memory import MiB, parse_bytes
from smartsplat_large.source import ImageMeta, open_source
from smartsplat_large.streaming.allowance import footprints
from smartsplat_large.streaming.budget import gaussian_budget
from smartsplat_large.streaming.plan import plan_fit

UNLIMITED = 1 << 60


@dataclass(frozen=True, slots=True)
class Row:
    """One fit."""

    picture: str
    megapixels: float
    gaussians: int
    bytes: int
    psnr: float
    projected_bytes: int
    """The least memory that its plan can do with."""
    allowed_bytes: int
    measured_bytes: int
    seconds: float
    cpu_s: float


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("pictures", nargs="*", type=Path)
    arguments.add_argument("--megapixels", nargs="+", type=float, default=[1, 4, 16, 64])
    arguments.add_argument("--preset", default="fast", metavar="NAME[=STEPS][:SETTING=VALUE]")
    arguments.add_argument("--ratio", type=float, default=50.0)
    arguments.add_argument("--memory", type=parse_bytes, help="of each fit; by default the least it can do with")
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--no-dashboard", action="store_true", help="threads alone, without a local dask cluster")
    arguments.add_argument("--measure", type=int, metavar="BYTES", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    config = configured(given.preset).replace(ratio=given.ratio)
    if given.measure:
        measure(given.pictures[0], given.measure, config, given.workers, dashboard=not given.no_dashboard)
        return
    rows = [row(picture, config, given) for picture in pictures(given.pictures, given.megapixels)]
    publish(report(rows), given.json, rows, preset=given.preset, ratio=given.ratio, memory=given.memory)
    raise SystemExit(any(r.measured_bytes > r.allowed_bytes for r in rows))


def pictures(given: Sequence[Path], megapixels: Sequence[float]) -> Iterator[Path]:
    """Those that are given, or else some that are made for as long as they are needed."""
    yield from given
    for each in [] if given else megapixels:
        side = round(math.sqrt(each * 1e6))
        with tempfile.TemporaryDirectory(prefix="smartsplat-") as folder:
            picture = Path(folder) / f"{side}x{side}.tif"
            note(f"{picture.stem}: picture")
            write_mosaic(picture, Size(side, side))
            yield picture


def row(picture: Path, config: FitConfig, given: argparse.Namespace) -> Row:
    """Fit a picture in a process of its own."""
    with open_source(picture) as source:
        meta = source.meta
        projected = project(meta, config, given.workers)
    allowed = given.memory or projected
    note(f"{picture.name}: fit within {allowed / MiB:.0f} MiB")
    again = [
        sys.executable, __file__, str(picture), "--preset", given.preset, "--ratio", str(given.ratio),
        "--workers", str(given.workers), "--measure", str(allowed), *["--no-dashboard"] * given.no_dashboard,
    ]  # fmt: skip
    done = json.loads(subprocess.run(again, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return Row(picture.name, meta.size.pixels / 1e6, projected_bytes=projected, allowed_bytes=allowed, **done)


def project(meta: ImageMeta, config: FitConfig, workers: int) -> int:
    """The memory that a fit asks for: the larger one of what its stages do."""
    count, _ = gaussian_budget(meta, config)
    about = (meta.size, meta.channels, meta.dtype.itemsize, count)
    plan = plan_fit(*about, config, memory_bytes=UNLIMITED, workers=workers)
    return max(each.total for each in footprints(meta, config, plan, workers).values())


def measure(picture: Path, memory_bytes: int, config: FitConfig, workers: int, *, dashboard: bool) -> None:
    """Fit within ``memory_bytes`` and print what it took as JSON."""
    with tempfile.TemporaryDirectory(prefix="smartsplat-") as folder:
        output = Path(folder) / "picture.ssplat"
        done = api.fit(picture, output, config=config, memory_bytes=memory_bytes, workers=workers, dashboard=dashboard)
    used = resource.getrusage(resource.RUSAGE_SELF)
    facts = {
        "gaussians": done.gaussians, "bytes": done.bytes, "psnr": done.psnr, "measured_bytes": done.peak_rss_bytes,
        "seconds": done.seconds, "cpu_s": used.ru_utime + used.ru_stime,
    }  # fmt: skip
    print(json.dumps(facts))


def report(rows: list[Row]) -> str:
    """A row a picture, and how time grows."""
    heads = (
        "picture", "MP", "Gaussians", "bytes", "PSNR dB", "projected MiB", "allowed MiB", "measured MiB", "of allowed",
        "seconds", "CPU s",
    )  # fmt: skip
    body = table(
        heads,
        [
            (
                r.picture, f"{r.megapixels:.1f}", r.gaussians, r.bytes, fixed(r.psnr, 2),
                fixed(r.projected_bytes / MiB, 0), fixed(r.allowed_bytes / MiB, 0), fixed(r.measured_bytes / MiB, 0),
                fixed(r.measured_bytes / r.allowed_bytes, 2), fixed(r.seconds, 1), fixed(r.cpu_s, 1),
            )
            for r in rows
        ],
    )  # fmt: skip
    if len({r.megapixels for r in rows}) < 2:
        return body
    by_clock, by_cpu = (exponent(rows, [getattr(r, name) for r in rows]) for name in ("seconds", "cpu_s"))
    return f"{body}\n\nTime grows with pixels to the power of {by_clock:.2f} by the clock, {by_cpu:.2f} by processors."


def exponent(rows: Sequence[Row], seconds: Sequence[float]) -> float:
    """Slope of the line through the logarithms of pixels and seconds, by least squares."""
    return float(np.polyfit(np.log([r.megapixels for r in rows]), np.log(seconds), 1)[0])


if __name__ == "__main__":
    guarded(main)
