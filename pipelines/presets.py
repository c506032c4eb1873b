"""Quality, time and bytes of the presets over ratios and pictures, beside JPEG files of the same bytes.

    python pipelines/presets.py PICTURE... [--presets fast balanced paper=5000] [--ratios 20 50 100 200]
                                [--crop 2048x2048] [--json FILE]

Runs in the environment that pipelines/check.py sets up. ``paper=5000`` is a preset with another number of steps,
``balanced:loss.rate=0.0`` one with another setting. A JPEG is the best of at most as many bytes, as ``smartsplat-large
compare`` makes it; where not even the worst is as small, it is that of a smaller copy, enlarged again.
"""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path

from reporting import configured, fixed, guarded, lossless_copy, note, parse_size, parser, publish, table

from smartsplat_large import api
from smartsplat_large.array_types import Pixels
from smartsplat_large.config import FitConfig
from smartsplat_large.errors import UsageError
from smartsplat_large.rivals import RIVALS, Rendition, Rival, require_supported
from smartsplat_large.source import open_source, read_window


@dataclass(frozen=True, slots=True)
class Row:
    """One file, and the JPEG beside it."""

    picture: str
    preset: str
    wanted_ratio: float
    psnr: float | None
    ms_ssim: float | None
    seconds: float
    bytes: int
    ratio: float
    gaussians: int
    peak_rss_bytes: int
    jpeg_psnr: float
    jpeg_ms_ssim: float | None
    jpeg_bytes: int


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("pictures", nargs="+", type=Path)
    arguments.add_argument("--presets", nargs="+", default=["fast", "balanced"], metavar="NAME[=STEPS][:SETTING=VALUE]")
    arguments.add_argument("--ratios", nargs="+", type=float, default=[20, 50, 100, 200])
    arguments.add_argument("--crop", type=parse_size, metavar="WxH", help="take the middle of each picture only")
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="smartsplat-") as folder:
        for picture in given.pictures:
            copy = lossless_copy(picture, given.crop, Path(folder))
            for name, ratio in itertools.product(given.presets, given.ratios):
                note(f"{picture.name}: {name} at ratio {ratio:g}")
                config = configured(name).replace(ratio=ratio, seed=given.seed)
                rows.append(measure(picture.name, copy, name, config, Path(folder)))
    publish(report(rows), given.json, rows, crop=given.crop, seed=given.seed)


def measure(picture: str, copy: Path, name: str, config: FitConfig, folder: Path) -> Row:
    """Fit one picture, and make the JPEG that rivals the file."""
    with open_source(copy) as source:
        pixels = read_window(source, source.meta.size.window)
    require_supported(pixels, picture)
    done = api.fit(copy, folder / "fit.ssplat", config=config, overwrite=True)
    jpeg = best_jpeg(pixels, done.bytes)
    assert config.ratio is not None
    return Row(
        picture, name, config.ratio, done.psnr, done.ms_ssim, done.seconds, done.bytes, done.ratio, done.gaussians,
        done.peak_rss_bytes, jpeg.score.psnr(), jpeg.score.ms_ssim(), jpeg.bytes,
    )  # fmt: skip


def best_jpeg(pixels: Pixels, limit_bytes: int) -> Rendition:
    """The best JPEG of at most ``limit_bytes``.

    Raises
    ------
    UsageError
        There is none so small, not even of a smaller copy.
    """
    rival = Rival(RIVALS["jpeg"], pixels)
    found = rival.direct(limit_bytes) or rival.reduced(limit_bytes)
    if found is None:
        raise UsageError(f"no JPEG is as small as {limit_bytes} bytes", hint="lower --ratios")
    return found


def report(rows: list[Row]) -> str:
    """A row a file."""
    headings = (
        "picture",
        "preset",
        "ratio",
        "PSNR dB",
        "MS-SSIM",
        "seconds",
        "bytes",
        "JPEG PSNR dB",
        "JPEG MS-SSIM",
        "JPEG bytes",
    )
    return table(
        headings,
        [
            (
                row.picture, row.preset, f"{row.wanted_ratio:g}", fixed(row.psnr, 2), fixed(row.ms_ssim, 4),
                fixed(row.seconds, 1), row.bytes, fixed(row.jpeg_psnr, 2), fixed(row.jpeg_ms_ssim, 4), row.jpeg_bytes,
            )
            for row in rows
        ],
    )  # fmt: skip


if __name__ == "__main__":
    guarded(main)
