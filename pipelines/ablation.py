"""What each part of the initialisation is worth: the paper's Table 3, from settings alone.

    python pipelines/ablation.py PICTURE... [--ratio 50] [--run paper=1000] [--crop 1024x1024]
                                 [--rates-of 5436x5880] [--json FILE]

Runs in the environment that pipelines/check.py sets up. All rows differ only in [sampling]; ``--run balanced`` has the fit
of that preset in place of the paper's. Measured are the pixels decoded from the file. The paper's rows, after 10 000 steps on
its own pictures: 22.34, 22.18, 23.12 and 24.38 dB: features for the means alone are worth nothing, and pay once scales follow
from them.

The paper's rate for means is a share of the picture's size, so on a small crop they creep, and the gaps are others.
``--rates-of 5436x5880``, the mean size of the paper's DIV8K, moves them as many pixels a step as there.
"""

from __future__ import annotations

import dataclasses
import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

from reporting import configured, fixed, guarded, lossless_copy, note, parse_size, parser, publish, table

from smartsplat_large import api
from smartsplat_large.config import FitConfig, SamplingConfig
from smartsplat_large.lattice import Size
from smartsplat_large.source import open_source

VARIANTS = {
    "full random": SamplingConfig(means="random", scales="random", colors="random"),
    "+ sampled means": SamplingConfig(scales="random", colors="random"),
    "+ sampled scales": SamplingConfig(colors="random"),
    "+ sampled colours": SamplingConfig(),
}
"""Each adds one part to the one above it; the last is the whole initialisation."""


@dataclass(frozen=True, slots=True)
class Run:
    """One fit."""

    picture: str
    variant: str
    psnr: float
    ms_ssim: float | None
    gaussians: int
    bytes: int
    seconds: float


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("pictures", nargs="+", type=Path)
    arguments.add_argument("--ratio", type=float, default=50.0)
    arguments.add_argument("--run", default="paper=1000", help="a preset, perhaps with other settings")
    arguments.add_argument("--crop", type=parse_size, metavar="WxH", help="take the middle of each picture only")
    arguments.add_argument("--rates-of", type=parse_size, metavar="WxH", help="move means as in a picture of that size")
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    config = configured(given.run).replace(ratio=given.ratio, seed=given.seed)
    runs = []
    with tempfile.TemporaryDirectory(prefix="smartsplat-") as folder:
        copies = [lossless_copy(picture, given.crop, Path(folder)) for picture in given.pictures]
        for picture, copy in zip(given.pictures, copies, strict=True):
            rated = with_rates_of(given.rates_of, copy, config) if given.rates_of else config
            runs += [run(picture.name, copy, name, rated, Path(folder)) for name in VARIANTS]
    publish(report(runs), given.json, runs, crop=given.crop, rates_of=given.rates_of, config=config.to_dict())


def with_rates_of(size: Size, copy: Path, config: FitConfig) -> FitConfig:
    """``config`` with means that move as many pixels a step as it moves them in a picture of ``size``."""
    with open_source(copy) as source:
        factor = math.sqrt(size.pixels / source.meta.size.pixels)
    optimizer = config.optimizer
    return config.replace(optimizer=dataclasses.replace(optimizer, lr_xy=factor * optimizer.lr_xy))


def run(name: str, copy: Path, variant: str, config: FitConfig, folder: Path) -> Run:
    """Fit one picture from one kind of start."""
    note(f"{name}: {variant}")
    config = config.replace(sampling=VARIANTS[variant])
    done = api.fit(copy, folder / "fit.ssplat", config=config, overwrite=True)
    assert done.psnr is not None, "a lossy file of a photograph is never exact"
    return Run(name, variant, done.psnr, done.ms_ssim, done.gaussians, done.bytes, done.seconds)


def report(runs: list[Run]) -> str:
    """A row a run, with the gap to the row above."""
    rows = []
    for before, this in zip([None, *runs], runs, strict=False):
        gap = "" if before is None or before.picture != this.picture else f"{this.psnr - before.psnr:+.2f}"
        scores = (fixed(this.psnr, 2), gap, fixed(this.ms_ssim, 4))
        rows.append((this.picture, this.variant, *scores, this.gaussians, this.bytes, fixed(this.seconds, 0)))
    return table(("picture", "start", "PSNR dB", "gap", "MS-SSIM", "Gaussians", "bytes", "seconds"), rows)


if __name__ == "__main__":
    guarded(main)
