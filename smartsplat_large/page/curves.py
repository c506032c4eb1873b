"""Rate-distortion curves as SVG.

Drawn by hand rather than by a plotting library: the page needs no optional package, stays sharp at any zoom, takes its
colours from the page in light and dark, and is some kilobytes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

from smartsplat_large.reports import Comparison, Contest, Measured

Point = tuple[float, float]

COLORS = ("#d1495b", "#8a8a8a", "#3a86c8", "#2a9d8f", "#e09f3e", "#7b5ea7", "#8c564b")
"""By place among the codecs; ours is the first."""

_WIDTH, _HEIGHT = 560, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 14, 46
_LEGEND_WIDTH = 112
_FEWEST_RATES = 3
"""Numbers along the axis of rates."""


@dataclass(frozen=True, slots=True)
class Axis:
    """What is drawn upwards."""

    label: str
    value: Callable[[Measured], float | None]


PSNR = Axis("PSNR in dB", lambda file: file.psnr)
MS_SSIM = Axis("MS-SSIM", lambda file: file.ms_ssim)


@dataclass(frozen=True, slots=True)
class Series:
    """One curve; ``reduced`` goes on from it, dashed, where only a smaller copy fits."""

    title: str
    direct: list[Point]
    reduced: list[Point] = field(default_factory=list)


def series_of(report: Comparison, axis: Axis) -> list[Series]:
    """The curves of one comparison over bits per pixel."""
    found = []
    for name, about in report.codecs.items():
        contests = report.of(name)
        direct = _points((contest.direct for contest in contests), axis)
        found.append(Series(about["title"], direct, _points((c.reduced for c in _beyond(contests)), axis)))
    return found


def _beyond(contests: Sequence[Contest]) -> list[Contest]:
    return [contest for contest in contests if contest.direct is None]


def _points(files: Iterable[Measured | None], axis: Axis) -> list[Point]:
    pairs = [(file.bpp, axis.value(file)) for file in files if file is not None]
    return sorted((rate, value) for rate, value in pairs if value is not None)


def figure(series: Sequence[Series], label: str, *, background: str | None = None) -> str:
    """One drawing: bits per pixel to the right, logarithmic; ``label`` upwards; a legend in the emptier corner.

    ``background`` is for a file of its own; without one, lines and text take the colour of the page around.
    """
    points = [point for each in series for point in (*each.direct, *each.reduced)]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(label)} over bits per pixel" font-family="system-ui, sans-serif" font-size="12">'
    ]
    if background:
        parts.append(f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="{background}"/>')
    if not points:
        return "".join([*parts, '<text x="24" y="40" fill="currentColor">nothing could be measured</text></svg>'])
    scale = _Scale.around(points)
    parts += _grid(scale, label)
    for index, each in enumerate(series):
        parts += _curve(each, scale, COLORS[index % len(COLORS)], 2.6 if index == 0 else 1.6)
    parts += _legend(series, scale)
    return "".join([*parts, "</svg>"])


@dataclass(frozen=True, slots=True)
class _Scale:
    """From rates and values to places in the drawing."""

    rates: tuple[float, float]
    values: tuple[float, float]

    @classmethod
    def around(cls, points: Sequence[Point]) -> _Scale:
        rates, values = zip(*points, strict=True)
        margin = 0.06 * (max(values) - min(values)) or 0.5
        return cls((min(rates) / 1.15, max(rates) * 1.15), (min(values) - margin, max(values) + margin))

    def x(self, rate: float) -> float:
        low, high = self.rates
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * math.log(rate / low) / math.log(high / low)

    def y(self, value: float) -> float:
        low, high = self.values
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (high - value) / (high - low)


def _grid(scale: _Scale, label: str) -> list[str]:
    """Rules, their numbers, and the names of the axes."""
    parts = ['<g stroke="currentColor" stroke-opacity=".14">']
    xs, ys = _rates_between(*scale.rates), _values_between(*scale.values)
    parts += [_line(scale.x(rate), _TOP, scale.x(rate), _HEIGHT - _BOTTOM) for rate in xs]
    parts += [_line(_LEFT, scale.y(value), _WIDTH - _RIGHT, scale.y(value)) for value in ys]
    parts.append('</g><g fill="currentColor" fill-opacity=".75">')
    parts += [_text(scale.x(rate), _HEIGHT - _BOTTOM + 17, f"{rate:g}", "middle") for rate in xs]
    parts += [_text(_LEFT - 7, scale.y(value) + 4, f"{value:g}", "end") for value in ys]
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, "bits per pixel", "middle"))
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    turned = f'transform="rotate(-90 14 {middle:.0f})"'
    return [*parts, f'<text x="14" y="{middle:.0f}" text-anchor="middle" {turned}>{escape(label)}</text></g>']


def _curve(series: Series, scale: _Scale, color: str, width: float) -> list[str]:
    def path(points: Sequence[Point], extra: str) -> str:
        places = " ".join(f"{scale.x(rate):.1f},{scale.y(value):.1f}" for rate, value in points)
        return f'<polyline points="{places}" fill="none" stroke="{color}" stroke-width="{width}"{extra}/>'

    parts = [path(series.direct, "")]
    if series.reduced:
        parts.append(path([*series.reduced, *series.direct[:1]], ' stroke-dasharray="4 4"'))
    for points, fill in ((series.direct, color), (series.reduced, "none")):
        for rate, value in points:
            place = f'cx="{scale.x(rate):.1f}" cy="{scale.y(value):.1f}"'
            title = f"<title>{escape(series.title)}: {value:.4g} at {rate:.4g} bpp</title>"
            parts.append(f'<circle {place} r="3.4" fill="{fill}" stroke="{color}" stroke-width="1.4">{title}</circle>')
    return parts


def _legend(series: Sequence[Series], scale: _Scale) -> list[str]:
    """Names and colours at the lower right, or at the upper left where that hides less of the curves."""
    reduced = any(each.reduced for each in series)
    height = 17 * (len(series) + reduced)
    corners = (_WIDTH - _RIGHT - _LEGEND_WIDTH, _HEIGHT - _BOTTOM - height), (_LEFT + 10, _TOP + 13)
    x, top = min(corners, key=lambda corner: _hidden(series, scale, corner, height))
    parts = []
    for index, each in enumerate(series):
        y, color = top + 17 * index, COLORS[index % len(COLORS)]
        weight = ' font-weight="600"' if index == 0 else ""
        parts.append(f'<line x1="{x}" y1="{y}" x2="{x + 18}" y2="{y}" stroke="{color}" stroke-width="3"/>')
        parts.append(f'<text x="{x + 25}" y="{y + 4}" fill="currentColor"{weight}>{escape(each.title)}</text>')
    if reduced:
        y = top + 17 * len(series)
        parts.append(
            f'<line x1="{x}" y1="{y}" x2="{x + 18}" y2="{y}" stroke="currentColor" stroke-dasharray="4 4"/>'
            f'<text x="{x + 25}" y="{y + 4}" fill="currentColor" fill-opacity=".75">smaller copy</text>'
        )
    return parts


def _hidden(series: Sequence[Series], scale: _Scale, corner: Point, height: float) -> int:
    """How much of the curves a legend there would lie on."""
    (left, top), hidden = corner, 0
    for each in series:
        for (rate, value), (rate_end, value_end) in itertools.pairwise([*each.reduced, *each.direct]):
            x, y, x_end, y_end = scale.x(rate), scale.y(value), scale.x(rate_end), scale.y(value_end)
            places = ((x + (x_end - x) * i / 32, y + (y_end - y) * i / 32) for i in range(33))
            hidden += sum(left <= at <= left + _LEGEND_WIDTH and top - 17 <= up <= top + height for at, up in places)
    return hidden


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _rates_between(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, or more of them where these are too few to read a curve by."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), [step / 10 for step in range(10, 100)]):
        ticks = [tick for power in powers for step in steps if low <= (tick := float(f"{step}e{power}")) <= high]
        if len(ticks) >= _FEWEST_RATES:
            break
    return ticks


def _values_between(low: float, high: float) -> list[float]:
    """About six round numbers."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(multiple * power for multiple in (1, 2, 5, 10) if multiple * power >= rough)
    return [round(index * step, 10) for index in range(math.ceil(low / step), math.floor(high / step) + 1)]
