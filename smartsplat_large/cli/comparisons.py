"""What ``compare`` prints: a table of files, BD-rates and settings, or one JSON object."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from smartsplat_large.cli import results

if TYPE_CHECKING:
    from smartsplat_large.reports import Comparison, Contest, Measured

_HEADINGS = ("ratio", "codec", "PSNR dB", "SSIM", "MS-SSIM", "bytes", "encode s", "decode s", "")


def write(report: Comparison, *, as_json: bool) -> None:
    """To stdout."""
    if as_json:
        results.write(dataclasses.asdict(report), [], as_json=True)
        return
    click.echo(f"{report.image}: {report.width} x {report.height}, {report.raw_bytes} bytes of pixels\n")
    contests = sorted(report.results, key=lambda contest: contest.wanted_ratio)
    for line in aligned([_HEADINGS, *(_cells(contest, report) for contest in contests)]):
        click.echo(line)
    if report.bd_rate:
        click.echo("\nbytes against JPEG at equal quality (BD-rate)")
        rates = [(report.codecs[name]["title"], rate) for name, rate in report.bd_rate.items()]
        rows = [(title, _percent(rate["psnr"]), _percent(rate["ms_ssim"])) for title, rate in rates]
        for line in aligned([("codec", "by PSNR", "by MS-SSIM"), *rows]):
            click.echo(line)
    click.echo("\nsettings")
    for line in aligned([(about["title"], about["settings"]) for about in report.codecs.values()]):
        click.echo(line)
    if report.output:
        click.echo(f"\noutput  {report.output}")


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width, two blanks apart."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cells(contest: Contest, report: Comparison) -> tuple[str, ...]:
    start = (f"{contest.wanted_ratio:g}", report.codecs[contest.codec]["title"])
    file = contest.best
    if file is None:
        return (*start, *["-"] * 6, "cannot go that low, not even at 1/8 of the size")
    return (*start, *_figures(file), _remark(contest, file))


def _figures(file: Measured) -> tuple[str, ...]:
    return (
        _number(file.psnr, ".2f"), _number(file.ssim, ".4f"), _number(file.ms_ssim, ".4f"), str(file.bytes),
        f"{file.encode_s:.2f}", f"{file.decode_s:.3f}",
    )  # fmt: skip


def _remark(contest: Contest, file: Measured) -> str:
    if contest.direct is None:
        return f"cannot go that low; at 1/{file.factor} of the size, {file.setting}"
    return file.setting


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f} %"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"
