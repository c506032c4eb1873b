"""The page itself: what was measured, filled into ``page.html``."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from smartsplat_large.page.curves import MS_SSIM, PSNR, figure, series_of
from smartsplat_large.page.gallery import Gallery
from smartsplat_large.reports import Comparison, Contest, Measured

_TEMPLATE = Path(__file__).with_name("page.html")
CANNOT = "cannot go that low"


def html(report: Comparison, gallery: Gallery) -> str:
    """A whole document that names no other: images, curves, style and script are in it."""
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(Path(report.image).name),
        about=escape(_about(report)),
        psnr=figure(series_of(report, PSNR), PSNR.label),
        ms_ssim=figure(series_of(report, MS_SSIM), MS_SSIM.label),
        rows="".join(_rows(report)),
        rates="".join(_rates(report)),
        settings="".join(_settings(report)),
        # A file's name may hold </script>.
        crops=json.dumps(_crops(report, gallery)).replace("<", "\\u003c"),
    )


def _about(report: Comparison) -> str:
    kind = "grey" if report.channels == 1 else "RGB"
    return f"{report.width} x {report.height} pixels, 8-bit {kind}, {report.raw_bytes:,} bytes raw"


def _rows(report: Comparison) -> list[str]:
    """One row of the table a codec and ratio, ratio by ratio."""
    rows = []
    for ratio in sorted({contest.wanted_ratio for contest in report.results}):
        contests = [contest for contest in report.results if contest.wanted_ratio == ratio]
        best = max((c.best.psnr for c in contests if c.best and c.best.psnr is not None), default=None)
        for place, contest in enumerate(contests):
            start = f'<th rowspan="{len(contests)}">{ratio:g}</th>' if place == 0 else ""
            kind = "ours" if contest.codec == next(iter(report.codecs)) else ""
            title = escape(report.codecs[contest.codec]["title"])
            rows.append(f'<tr class="{kind}">{start}<td>{title}</td>{_cells(contest, best)}</tr>')
    return rows


def _cells(contest: Contest, best: float | None) -> str:
    file = contest.best
    if file is None:
        return f'<td colspan="7" class="cannot">{CANNOT}, not even at 1/8 of the size</td>'
    texts = [_number(file.psnr, ".2f"), _number(file.ssim, ".4f"), _number(file.ms_ssim, ".4f"), f"{file.bytes:,}"]
    texts += [_number(file.encode_s, ".2f"), _number(file.decode_s, ".3f")]
    if best is not None and file.psnr == best:
        texts[0] = f"<b>{texts[0]}</b>"
    return "".join(f"<td>{text}</td>" for text in texts) + f"<td>{_remark(contest, file)}</td>"


def _remark(contest: Contest, file: Measured) -> str:
    if contest.direct is None:
        return f'<span class="cannot">{CANNOT}</span>: at 1/{file.factor} of the size, {escape(file.setting)}'
    return escape(file.setting)


def _rates(report: Comparison) -> list[str]:
    return [
        f"<tr><td>{escape(report.codecs[name]['title'])}</td>"
        + "".join(f"<td>{_number(rate[key], '+.1f', ' %')}</td>" for key in ("psnr", "ms_ssim"))
        + "</tr>"
        for name, rate in report.bd_rate.items()
    ]


def _settings(report: Comparison) -> list[str]:
    return [f"<dt>{escape(a['title'])}</dt><dd>{escape(a['settings'])}</dd>" for a in report.codecs.values()]


def _crops(report: Comparison, gallery: Gallery) -> dict[str, Any]:
    """What the script needs: windows, titles, and for every ratio and codec its crops and a caption."""
    shown: dict[str, dict[str, Any]] = {}
    for contest in report.results:
        if contest.best is not None:
            entry = {"images": gallery.restored[contest.codec, contest.wanted_ratio], "caption": _caption(contest)}
            shown.setdefault(f"{contest.wanted_ratio:g}", {})[contest.codec] = entry
    return {
        "windows": [[w.x, w.y, w.width, w.height] for w in gallery.windows],
        "original": gallery.original,
        "titles": {name: about["title"] for name, about in report.codecs.items()},
        "ratios": shown,
    }


def _caption(contest: Contest) -> str:
    file = contest.best
    assert file is not None
    shrunk = f" · {CANNOT}; at 1/{file.factor} of the size" if contest.direct is None else ""
    return f"{_number(file.psnr, '.2f')} dB · MS-SSIM {_number(file.ms_ssim, '.4f')} · {file.bytes:,} bytes{shrunk}"


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else f"{value:{form}}{unit}"
