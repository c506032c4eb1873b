"""Time and peak memory of the initialisation alone: from pixels to the Gaussians that a fit starts from.

    python pipelines/initialisation.py IMAGE [--ratio 50] [--preset balanced] [--workers N] [--json FILE]

Runs in the environment that pipelines/check.py sets up. A source without cheap windows (PNG, JPEG, one huge strip) is copied
first, as a fit does it; that time is given apart. Kernels are compiled before the clock starts.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from reporting import fixed, guarded, parser, publish, table

from smartsplat_large.config import FitConfig, preset
from smartsplat_large.memory import format_bytes
from smartsplat_large.progress import Costs, Silent
from smartsplat_large.reports import peak_rss_bytes
from smartsplat_large.sampling import sample
from smartsplat_large.sampling.footprint import column_bytes, footprint
from smartsplat_large.source import ArraySource, ImageSource, open_source, working_copy
from smartsplat_large.streaming.budget import gaussian_budget
from smartsplat_large.streaming.workers import default_count


class Stages(Silent):
    """Remembers when each stage began."""

    def __init__(self) -> None:
        self.began: list[tuple[str, float]] = []

    def start(self, stage: str, total: float, unit: str, costs: Costs = ()) -> None:
        self.began.append((stage, time.perf_counter()))

    def seconds(self) -> dict[str, float]:
        """Of each stage, up to now."""
        ends = [start for _, start in self.began[1:]] + [time.perf_counter()]
        return {stage: end - start for (stage, start), end in zip(self.began, ends, strict=True)}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("image", type=Path)
    arguments.add_argument("--ratio", type=float, default=50.0)
    arguments.add_argument("--preset", default="balanced", help="decides how many Gaussians a ratio takes")
    arguments.add_argument("--workers", type=int, default=default_count())
    given = arguments.parse_args()
    config = preset(given.preset).replace(ratio=given.ratio)
    warm_up(config)
    began = time.perf_counter()
    with (
        tempfile.TemporaryDirectory(prefix="smartsplat-") as folder,
        open_source(given.image) as source,
        working_copy(source, 0, Path(folder), levels=1, workers=given.workers) as copy,
    ):
        copied = time.perf_counter() - began
        count, _ = gaussian_budget(source.meta, config)
        row = measure(copy, count, config, given.workers) | {"working_copy_s": copied}
    settings = {"image": given.image.name, "ratio": given.ratio, "preset": given.preset, "workers": given.workers}
    publish(report(row), given.json, [row], **settings)


def warm_up(config: FitConfig) -> None:
    """Compile or load the kernels."""
    source = ArraySource(np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8))
    measure(source, 100, config, 1)


def measure(source: ImageSource, count: int, config: FitConfig, workers: int) -> dict[str, Any]:
    """Initialise once, and say what it took."""
    meta, stages = source.meta, Stages()
    began = time.perf_counter()
    made = sample(
        source.read, meta.size, meta.channels, meta.dtype, count, config.sampling, config.seed,
        workers=workers, progress=stages,
    )  # fmt: skip
    seconds = time.perf_counter() - began
    held = column_bytes(count, meta.channels)
    projected = footprint(
        meta.size, meta.channels, meta.dtype.itemsize, count, config.sampling, workers, held_bytes=held
    ).total
    return {
        "size": str(meta.size), "gaussians": len(made), "seconds": seconds, "stages": stages.seconds(),
        "projected_bytes": projected, "peak_rss_bytes": peak_rss_bytes(),
    }  # fmt: skip


def report(row: dict[str, Any]) -> str:
    """One line for each stage, and one for the whole."""
    stages = [(stage, fixed(seconds, 2), "", "") for stage, seconds in row["stages"].items()]
    memory = (format_bytes(row["peak_rss_bytes"]), format_bytes(row["projected_bytes"]))
    return table(
        (f"{row['gaussians']} Gaussians on {row['size']} pixels", "seconds", "peak memory", "projected"),
        [
            ("working copy", fixed(row["working_copy_s"], 2), "", ""),
            *stages,
            ("initialisation", fixed(row["seconds"], 2), *memory),
        ],
    )


if __name__ == "__main__":
    guarded(main)
