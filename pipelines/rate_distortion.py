"""Our files and those of JPEG, WebP, JPEG XL, AVIF and JPEG 2000 at equal bytes, over pictures and ratios.

    python pipelines/rate_distortion.py PICTURE... [--ratios 20 50 100 200] [--preset balanced] [--steps N]
                                        [--codecs jpeg avif] [--crop 2048x2048] [--json FILE] [--reuse FILE...]
                                        [--figure FILE.svg]

Runs in the environment that pipelines/check.py sets up. Each picture goes through ``smartsplat-large compare``; the last
tables are means over the pictures. A mean that a codec owes to smaller copies, because it cannot go that low at
full size, has a star. ``--json`` grows with every picture, and ``--reuse`` takes what rivals did from such files.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from reporting import fixed, guarded, keep, lossless_copy, note, parse_size, parser, table

from smartsplat_large.comparison import bd_rates, compare
from smartsplat_large.config import PRESETS, preset
from smartsplat_large.errors import UsageError
from smartsplat_large.page import PSNR, Series, figure
from smartsplat_large.reports import Comparison, Contest, Measured
from smartsplat_large.rivals import RIVALS, USUAL


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("pictures", nargs="+", type=Path)
    arguments.add_argument("--ratios", nargs="+", type=float, default=[20, 50, 100, 200])
    arguments.add_argument("--preset", choices=list(PRESETS), default="balanced")
    arguments.add_argument("--steps", type=int, help="instead of the preset's")
    arguments.add_argument("--codecs", nargs="+", choices=list(RIVALS), default=list(USUAL))
    arguments.add_argument("--crop", type=parse_size, metavar="WxH", help="take the middle of each picture only")
    arguments.add_argument(
        "--reuse", nargs="+", type=Path, default=[], metavar="FILE", help="JSON whose rivals count as made"
    )
    arguments.add_argument("--figure", type=Path, metavar="FILE.svg", help="draw the means there")
    given = arguments.parse_args()
    config = preset(given.preset)
    config = config if given.steps is None else config.replace(steps=given.steps)
    settings = {"crop": given.crop and str(given.crop), "preset": given.preset}
    made, reports = _made(given.reuse, settings["crop"]), []
    with tempfile.TemporaryDirectory(prefix="smartsplat-") as folder:
        for picture in given.pictures:
            copy = lossless_copy(picture, given.crop, Path(folder))
            earlier = made.get(picture.name)
            rivals = [] if earlier and _covers(earlier, given.codecs, given.ratios) else given.codecs
            note(f"{picture.name}: {', '.join([given.preset, *rivals])}")
            done = compare(copy, ratios=given.ratios, config=config, codecs=rivals)
            done = dataclasses.replace(done, image=picture.name)
            reports.append(done if rivals or earlier is None else _joined(done, earlier, given.codecs))
            keep(given.json, reports, **settings)
    markdown = "\n\n".join([*map(picture_table, reports), mean_table(reports), rate_table(reports)])
    print(markdown)
    if given.figure:
        given.figure.write_text(figure(mean_curves(reports), PSNR.label, background="white"))


def _made(files: Sequence[Path], crop: str | None) -> dict[str, Comparison]:
    """Comparisons that files hold, by picture.

    Raises
    ------
    UsageError
        A file is of other crops.
    """
    made: dict[str, Comparison] = {}
    for file in files:
        held = json.loads(file.read_text())
        if held["settings"]["crop"] != crop:
            raise UsageError(f"{file} is of crops {held['settings']['crop']}", hint="give --crop as it was given then")
        for row in held["rows"]:
            results = [
                Contest(**contest | {key: contest[key] and Measured(**contest[key]) for key in ("direct", "reduced")})
                for contest in row["results"]
            ]
            made[row["image"]] = Comparison(**row | {"results": results})
    return made


def _covers(earlier: Comparison, codecs: Sequence[str], ratios: Sequence[float]) -> bool:
    return all(set(ratios) <= {contest.wanted_ratio for contest in earlier.of(name)} for name in codecs)


def _joined(ours: Comparison, earlier: Comparison, codecs: Sequence[str]) -> Comparison:
    """Our new files beside what rivals did earlier."""
    ratios = {contest.wanted_ratio for contest in ours.results}
    theirs = [contest for name in codecs for contest in earlier.of(name) if contest.wanted_ratio in ratios]
    results = [*ours.results, *theirs]
    titles = ours.codecs | {name: earlier.codecs[name] for name in codecs}
    return dataclasses.replace(ours, results=results, codecs=titles, bd_rate=bd_rates(results))


def picture_table(report: Comparison) -> str:
    """A row a codec and ratio."""
    headings = (report.image, "ratio", "PSNR dB", "SSIM", "MS-SSIM", "bytes", "encode s", "decode s", "of a copy")
    return table(headings, [row(contest, report) for contest in report.results])


def row(contest: Contest, report: Comparison) -> list[object]:
    """Figures, or dashes where a codec makes no such file even of a small copy."""
    start = [report.codecs[contest.codec]["title"], f"{contest.wanted_ratio:g}"]
    file = contest.best
    if file is None:
        return [*start, *["-"] * 6, "none"]
    return [
        *start, fixed(file.psnr, 2), fixed(file.ssim, 4), fixed(file.ms_ssim, 4), file.bytes, fixed(file.encode_s, 2),
        fixed(file.decode_s, 3), "" if contest.direct else f"1/{file.factor}",
    ]  # fmt: skip


def mean_table(reports: Sequence[Comparison]) -> str:
    """PSNR / MS-SSIM, a row a codec, a column a ratio; a dash where a picture has none."""
    ratios = sorted({contest.wanted_ratio for contest in reports[0].results})
    rows = []
    for name, about in reports[0].codecs.items():
        cells = [about["title"]]
        for ratio in ratios:
            contests = [c for report in reports for c in report.of(name) if c.wanted_ratio == ratio]
            star = "" if all(contest.direct for contest in contests) else " *"
            files = [contest.best for contest in contests]
            cells.append(f"{mean(files, 'psnr', 2)} / {mean(files, 'ms_ssim', 4)}{star}")
        rows.append(cells)
    return table((f"mean of {len(reports)}", *(f"ratio {ratio:g}" for ratio in ratios)), rows)


def mean(files: Sequence[Measured | None], key: str, digits: int) -> str:
    """A dash unless every picture has it."""
    values = [getattr(file, key) for file in files if file is not None and getattr(file, key) is not None]
    return f"{fmean(values):.{digits}f}" if len(values) == len(files) else "-"


def rate_table(reports: Sequence[Comparison]) -> str:
    """Means of the BD-rates of the pictures that have one, and how many those are."""
    rows = []
    for name in reports[0].bd_rate:
        cells = [reports[0].codecs[name]["title"]]
        for key in ("psnr", "ms_ssim"):
            rates = [rate for report in reports if (rate := report.bd_rate[name][key]) is not None]
            cells.append(f"{fmean(rates):+.1f} % ({len(rates)})" if rates else "-")
        rows.append(cells)
    return table(("BD-rate against JPEG", "by PSNR (pictures)", "by MS-SSIM (pictures)"), rows)


def mean_curves(reports: Sequence[Comparison]) -> list[Series]:
    """Mean PSNR over mean bits per pixel, at the ratios that a codec reaches on every picture."""
    curves = []
    for name, about in reports[0].codecs.items():
        by_ratio = zip(*(report.of(name) for report in reports), strict=True)
        points = []
        for contests in by_ratio:
            files = [contest.direct for contest in contests if contest.direct and contest.direct.psnr is not None]
            if len(files) == len(reports):
                points.append((fmean(file.bpp for file in files), fmean(file.psnr or 0 for file in files)))
        curves.append(Series(about["title"], sorted(points)))
    return curves


if __name__ == "__main__":
    guarded(main)
