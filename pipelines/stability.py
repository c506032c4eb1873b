"""Does more budget ever buy a worse picture, or luck a better one? Hard pictures at every ratio, and with many seeds.

    python pipelines/stability.py [--preset balanced] [--ratios 5 20 50 ...] [--seeds 1] [--side 384]
                                  [--pictures flat noise FILE ...] [--json FILE]

Runs in the environment that pipelines/check.py sets up. The pictures are one colour, noise, lines, text, the bundled
photograph, and a single column of it; or any file, of which the middle is taken, 2 megapixels at most. A ratio whose file would
not even hold the header is left out. With several seeds, a second table has how far their files lie apart; the first is that
of seed 0.
"""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from reporting import fixed, guarded, note, parser, publish, table
from synthetic import PHOTOGRAPH

from smartsplat_large import api
from smartsplat_large.array_types import Pixels
from smartsplat_large.config import FitConfig, preset
from smartsplat_large.errors import UsageError
from smartsplat_large.lattice import Size, Window
from smartsplat_large.source import open_source, read_window

RATIOS = (5.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 3000.0, 5000.0)

LARGEST = Size(1536, 1408)
"""Of a picture from a file, its middle is taken."""


@dataclass(frozen=True, slots=True)
class Row:
    """One picture: PSNR by ratio, None where no file is so small."""

    picture: str
    seed: int
    psnr: dict[float, float | None]
    seconds: float

    @property
    def worst_fall(self) -> float:
        """dB that PSNR falls at most from one ratio to the next smaller one."""
        known = [self.psnr[ratio] for ratio in sorted(self.psnr, reverse=True)]
        found = [psnr for psnr in known if psnr is not None]
        return max((before - after for before, after in itertools.pairwise(found) if before < math.inf), default=0.0)


def flat(side: int) -> Pixels:
    return np.full((side, side, 3), (180, 90, 40), np.uint8)


def noise(side: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)


def lines(side: int) -> Pixels:
    page = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(page)
    for i in range(0, side, 24):
        draw.line((i, 0, side - i, side), "black")
        draw.ellipse((i // 2, i // 2, side - i // 2, side - i // 2), outline="navy")
    return np.asarray(page)


def text(side: int) -> Pixels:
    page = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(page)
    for row in range(4, side, 12):
        draw.text((4, row), "The quick brown fox jumps over the lazy dog. " * (1 + side // 250), "black")
    return np.asarray(page)


def photograph(side: int) -> Pixels:
    with open_source(PHOTOGRAPH) as source:
        return read_window(source, source.meta.size.window)[:side, :side]


def column(side: int) -> Pixels:
    with open_source(PHOTOGRAPH) as source:
        tall = read_window(source, source.meta.size.window)[:, ::64].transpose(1, 0, 2)
    return np.ascontiguousarray(tall.reshape(-1, 1, 3)[: side * side])


PICTURES: dict[str, Callable[[int], Pixels]] = {
    picture.__name__: picture for picture in (flat, noise, lines, text, photograph, column)
}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--preset", default="balanced")
    arguments.add_argument("--ratios", nargs="+", type=float, default=RATIOS)
    arguments.add_argument("--side", type=int, default=384)
    arguments.add_argument("--pictures", nargs="+", default=list(PICTURES), metavar="PICTURE")
    arguments.add_argument("--seeds", type=int, default=1, help="fits of each, with the seeds from 0 on")
    given = arguments.parse_args()
    config = preset(given.preset)
    pictures = {Path(name).stem: _pixels(name, given.side) for name in given.pictures}
    rows = [
        _measured(name, pixels, given.ratios, config.replace(seed=seed))
        for name, pixels in pictures.items()
        for seed in range(given.seeds)
    ]
    tables = [falls(rows, given.ratios)] + ([spread(rows, given.ratios)] if given.seeds > 1 else [])
    publish("\n\n".join(tables), given.json, rows, preset=given.preset, side=given.side)


def _pixels(name: str, side: int) -> Pixels:
    if name in PICTURES:
        return PICTURES[name](side)
    with open_source(name) as source:
        size = source.meta.size
        width, height = min(size.width, LARGEST.width), min(size.height, LARGEST.height)
        return read_window(source, Window((size.width - width) // 2, (size.height - height) // 2, width, height))


def falls(rows: list[Row], ratios: list[float]) -> str:
    """PSNR by ratio with seed 0, and by how much it falls where the budget grows."""
    headings = ["picture", *(f"{ratio:g}" for ratio in ratios), "worst fall", "seconds"]
    cells = [
        [row.picture, *(fixed(row.psnr[r], 2) for r in ratios), fixed(row.worst_fall, 2), fixed(row.seconds, 0)]
        for row in rows
        if row.seed == 0
    ]
    return table(headings, cells)


def spread(rows: list[Row], ratios: list[float]) -> str:
    """The largest PSNR of all seeds less the smallest."""
    cells = []
    for name in dict.fromkeys(row.picture for row in rows):
        found = [[p for row in rows if row.picture == name and (p := row.psnr[r]) is not None] for r in ratios]
        cells.append([name, *(fixed(max(f) - min(f) if f and max(f) < math.inf else None, 3) for f in found)])
    return table(["spread of seeds, dB", *(f"{ratio:g}" for ratio in ratios)], cells)


def _measured(name: str, pixels: Pixels, ratios: list[float], config: FitConfig) -> Row:
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        np.save(picture := Path(folder) / "picture.npy", pixels)
        psnr = {ratio: _psnr(picture, config.replace(ratio=ratio)) for ratio in ratios}
    return Row(name, config.seed, psnr, time.perf_counter() - began)


def _psnr(picture: Path, config: FitConfig) -> float | None:
    note(f"{picture.stem} at ratio {config.ratio:g}")
    try:
        made = api.fit(picture, picture.with_suffix(".ssplat"), config=config, overwrite=True)
    except UsageError:
        return None
    psnr = math.inf if made.psnr is None else made.psnr
    if math.isnan(psnr):
        raise SystemExit(f"{picture.stem} at ratio {config.ratio:g}: no number came out")
    return psnr


if __name__ == "__main__":
    guarded(main)
