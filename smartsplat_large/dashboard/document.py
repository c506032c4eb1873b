"""The page, in bokeh's models. Needs the packages of the dashboard."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import numpy as np
from bokeh.events import ConnectionLost
from bokeh.models import (
    BasicTicker,
    ColorBar,
    Column,
    ColumnDataSource,
    CustomJS,
    DataRange1d,
    Div,
    HoverTool,
    LinearColorMapper,
    NumeralTickFormatter,
    PrintfTickFormatter,
    Range1d,
    Row,
)
from bokeh.palettes import Category10_10, Magma256
from bokeh.plotting import figure

from smartsplat_large.dashboard.record import Record, ResidualMap, Snapshot

_EVERY_MS = 1000
_FINEST_DB = 90.0
"""Blocks that are nearer to the image than that look alike: those without any error have no PSNR."""
_LEAST_SPAN_DB = 6.0
"""Of the map's scale of colours: what differs by less looks alike."""
_CURVE_STEP_DB = 5.0
"""The curve's axis grows by so much: seldom, for it undoes a reader's zoom."""

_STYLE = """
.bk-clearfix { width: 100%; } /* around the text */
h1 { font-size: 18px; margin: 0 0 8px; overflow-wrap: anywhere; } h1 small { font-weight: normal; color: #555; }
.state { display: flex; flex-wrap: wrap; gap: 0 12px; font-size: 15px; }
.bar { height: 8px; margin: 6px 0 8px; background: #ddd; border-radius: 4px; overflow: hidden; }
.bar i { display: block; height: 100%; background: #1f77b4; } .good .bar i { background: #2a8c4a; }
.bad .state { color: #b3261e; } .bad .bar i { background: #b3261e; }
table { border-collapse: collapse; font-size: 14px; } td { padding: 2px 0; vertical-align: top; }
td:first-child { color: #555; padding-right: 16px; }
"""
_LINES_STYLE = """
ul { margin: 0; padding: 0; max-height: 220px; overflow-y: auto; list-style: none; }
li { overflow-wrap: anywhere; font-size: 13px; line-height: 1.6; color: #333; }
"""
_LOST = """<p style="margin: 0; padding: 8px 12px; font-size: 14px; background: #fdecea; color: #8c1d18; border-radius: 4px">
The fit can no longer be reached: its process is gone, or the network is. The page shows what it said last.</p>"""


def draw(record: Record, document: Any) -> None:
    """Put the page into an empty document, where it follows ``record`` until its reader leaves."""
    page = _Page(record.snapshot())

    def update() -> None:
        now = record.snapshot()
        page.show(now)
        document.title = _title(now)

    update()
    document.add_root(page.root)
    # A fit that has ended does not come back, and an address that is served anew is another fit's.
    document.config.reconnect_session = document.config.notify_connection_status = False
    document.js_on_event(ConnectionLost, page.on_lost)
    document.add_periodic_callback(update, _EVERY_MS)


class _Page:
    def __init__(self, now: Snapshot) -> None:
        self._facts = Div(name="facts", sizing_mode="stretch_width", stylesheets=[_STYLE])
        self._lost = Div(text=_LOST, visible=False, sizing_mode="stretch_width")
        self._lines = Div(name="lines", sizing_mode="stretch_width", stylesheets=[_LINES_STYLE])
        self._psnr = ColumnDataSource(name="psnr", data={})
        self._residuals = ColumnDataSource(name="residuals", data={})
        self._colors = LinearColorMapper(Magma256[::-1], nan_color="lightgray")
        self._curves, self._map = self._draw_curves(), self._draw_map(now)
        self.show(now)
        plots = Row(self._curves, self._map, sizing_mode="stretch_width", styles={"flex-wrap": "wrap", "gap": "16px"})
        self.root = Column(
            self._lost, self._facts, plots, self._lines, sizing_mode="stretch_width",
            styles={"padding": "12px 4px", "gap": "12px", "box-sizing": "border-box", "max-width": "1400px"},
        )  # fmt: skip

    @property
    def on_lost(self) -> CustomJS:
        """What a browser does that no longer hears of the fit before it was told of its end."""
        return CustomJS(
            args={"lost": self._lost, "facts": self._facts}, code="lost.visible = !facts.tags.includes('ended')"
        )

    def show(self, now: Snapshot) -> None:
        """Bring everything up to date."""
        self._facts.text, self._facts.tags = _facts(now), ["ended"] if now.ended else []
        self._lines.text = f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in now.lines)}</ul>"
        levels = sorted(now.psnr, reverse=True)
        points = [list(zip(*now.psnr[level], strict=True)) or [(), ()] for level in levels]
        self._psnr.data = {
            "steps": [steps for steps, _ in points], "psnr": [psnr for _, psnr in points],
            "level": [_level(level) for level in levels], "color": [Category10_10[level % 10] for level in levels],
        }  # fmt: skip
        self._curves.legend.visible = bool(levels)
        self._curves.x_range.end = now.steps
        self._curves.y_range.start, self._curves.y_range.end = _curve_extent(now)
        decibels = _decibels(now.residuals)
        self._residuals.data = {"image": [decibels]}
        self._colors.low, self._colors.high = _color_extent(decibels)

    def _draw_curves(self) -> Any:
        plot = _plot("PSNR at each step", "step", "PSNR, dB", Range1d(0, 1), Range1d(0, 1))
        plot.multi_line("steps", "psnr", color="color", legend_field="level", line_width=2, source=self._psnr)
        plot.legend.location = "bottom_right"
        plot.legend.background_fill_alpha = 0.7
        return plot

    def _draw_map(self, now: Snapshot) -> Any:
        plot = _plot(
            "PSNR of each block, when last seen", "x, pixels", "y, pixels", DataRange1d(range_padding=0),
            DataRange1d(range_padding=0, flipped=True),
        )  # fmt: skip
        plot.match_aspect, plot.background_fill_color = True, None
        plot.grid.visible = False
        plot.add_tools(HoverTool(tooltips=[("PSNR", "@image{0.0} dB"), ("x, y", "$x{0,0}, $y{0,0}")]))
        plot.image(
            "image", x=0, y=0, dw=now.size.width, dh=now.size.height, color_mapper=self._colors, source=self._residuals
        )  # fmt: skip
        # It may have more room than the image takes.
        plot.xaxis.ticker, plot.yaxis.ticker = _ticks(now.size.width), _ticks(now.size.height)
        scale = ColorBar(
            color_mapper=self._colors, ticker=BasicTicker(), formatter=PrintfTickFormatter(format="%d dB"), width=16
        )
        plot.add_layout(scale, "right")
        return plot


def _plot(title: str, x: str, y: str, x_range: Any, y_range: Any) -> Any:
    """An empty plot that is half as wide as the page, or as wide where that would be too little."""
    plot = figure(
        title=title, x_axis_label=x, y_axis_label=y, x_range=x_range, y_range=y_range, height=420, min_width=300,
        sizing_mode="stretch_width", styles={"flex": "1 1 460px"}, tools="pan,box_zoom,reset,save", active_drag=None,
        toolbar_location="above", min_border_right=20,
    )  # fmt: skip
    plot.toolbar.logo = None
    plot.xaxis.formatter = plot.yaxis.formatter = NumeralTickFormatter(format="0,0[.]0")
    return plot


def _curve_extent(now: Snapshot) -> tuple[float, float]:
    """Ends of the axis of decibels."""
    seen = [psnr for points in now.psnr.values() for _, psnr in points] or [20.0, 40.0]
    low, high = math.floor(min(seen) / _CURVE_STEP_DB), math.ceil(max(seen) / _CURVE_STEP_DB)
    return _CURVE_STEP_DB * low, _CURVE_STEP_DB * max(high, low + 1)


def _decibels(residuals: ResidualMap) -> ResidualMap:
    decibels: ResidualMap = -10 * np.log10(np.maximum(residuals, np.float32(10 ** (-_FINEST_DB / 10))))
    return decibels


def _color_extent(decibels: ResidualMap) -> tuple[float, float]:
    """Ends of the scale of colours, whole decibels."""
    known = decibels[~np.isnan(decibels)]
    low, high = (math.floor(known.min()), math.ceil(known.max())) if len(known) else (20, 40)
    return low, max(high, low + _LEAST_SPAN_DB)


def _ticks(side: int) -> list[float]:
    """About four round numbers from 0 to ``side``."""
    power = 10.0 ** math.floor(math.log10(side / 4))
    step = max(1.0, next(power * times for times in (1, 2, 5, 10) if power * times >= side / 5))
    return [step * i for i in range(math.floor(side / step) + 1)]


def _level(level: int) -> str:
    return f"1/{2**level} size (level {level})" if level else "full size (level 0)"


def _title(now: Snapshot) -> str:
    state = _end(now)[0] if now.ended else f"{now.share:.0%} {now.stage}"
    return f"{state} - {now.name}"


def _end(now: Snapshot) -> tuple[str, str]:
    """How it ended, and whether that is good or bad."""
    return ("done", "good") if now.verified else ("stopped before it was done", "bad")


def _facts(now: Snapshot) -> str:
    state, kind, share = [now.stage, f"{now.share:.0%}", now.left and f"{now.left} in this stage"], "", now.share
    if now.ended:
        ended, kind = _end(now)
        state, share = [ended, f"after {now.running}"], 1.0 if kind == "good" else share
    rows = {
        "now": "" if now.ended else now.described,
        "blocks": f"{now.blocks_done:,} of {now.blocks:,} in this sweep" if now.blocks and not now.ended else "",
        "file": _file(now),
        "running for": "" if now.ended else now.running,
    }
    cells = (f"<tr><td>{name}</td><td>{escape(value)}</td></tr>" for name, value in rows.items() if value)
    words = "".join(f"<span>{escape(word)}</span>" for word in state if word)
    return (
        f"<h1>{escape(now.name)} <small>{now.size.width:,} x {now.size.height:,} pixels</small></h1>"
        f'<div class="{kind}"><div class="state">{words}</div>'
        f'<div class="bar"><i style="width: {share:.1%}"></i></div></div><table>{"".join(cells)}</table>'
    )


def _file(now: Snapshot) -> str:
    """The latest file, and what is wanted of it."""
    parts = []
    if now.verified:
        worth = "no error at all" if now.file_psnr is None else f"PSNR {now.file_psnr:.2f} dB"
        parts.append(f"{now.file_bytes:,} bytes, {worth}")
    elif now.file_bytes is not None:
        parts.append(f"{now.file_bytes:,} bytes in the last trial")
    if now.budget_bytes is not None:
        parts.append(f"{now.budget_bytes:,} bytes allowed")
    return "; ".join(parts)
