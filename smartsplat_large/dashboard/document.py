"""The page, in bokeh's models. Needs the packages of the dashboard."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
from bokeh.layouts import column, row
from bokeh.models import ColorBar, ColumnDataSource, Div, LogColorMapper
from bokeh.palettes import Category10_10, Magma256
from bokeh.plotting import figure

from smartsplat_large.dashboard.record import Record, ResidualMap, Snapshot

_EVERY_MS = 1000
_LEAST = 1e-9
"""Squared error below which blocks look alike: a logarithm has no place for zero."""


def draw(record: Record, document: Any) -> None:
    """Put the page into an empty document, where it follows ``record`` until its reader leaves."""
    page = _Page(record.snapshot())
    document.title = "smartsplat-large"
    document.add_root(page.root)
    document.add_periodic_callback(lambda: page.show(record.snapshot()), _EVERY_MS)


class _Page:
    def __init__(self, now: Snapshot) -> None:
        self._facts = Div(name="facts")
        self._psnr = ColumnDataSource(name="psnr", data={})
        self._residuals = ColumnDataSource(name="residuals", data={})
        self._errors = LogColorMapper(Magma256, nan_color="lightgray")
        self.show(now)
        height, width = now.residuals.shape
        self.root = column(self._facts, row(self._curves(), self._map(width, height)))

    def show(self, now: Snapshot) -> None:
        """Bring everything up to date."""
        self._facts.text = _table(now)
        levels = sorted(now.psnr, reverse=True)
        points = [list(zip(*now.psnr[level], strict=True)) or [(), ()] for level in levels]
        self._psnr.data = {
            "steps": [steps for steps, _ in points], "psnr": [psnr for _, psnr in points],
            "level": [f"level {level}" for level in levels], "color": [Category10_10[level % 10] for level in levels],
        }  # fmt: skip
        # bokeh draws from the bottom.
        self._residuals.data = {"image": [np.maximum(now.residuals[::-1], _LEAST)]}
        self._errors.low, self._errors.high = _extent(now.residuals)

    def _curves(self) -> Any:
        plot = figure(title="PSNR", x_axis_label="steps", y_axis_label="dB", width=560, height=420)
        plot.multi_line("steps", "psnr", color="color", legend_field="level", line_width=2, source=self._psnr)
        plot.legend.location = "bottom_right"
        return plot

    def _map(self, width: int, height: int) -> Any:
        plot = figure(
            title="Mean squared error of each block", width=560, height=420, match_aspect=True,
            tooltips=[("squared error", "@image")],
        )  # fmt: skip
        plot.x_range.range_padding = plot.y_range.range_padding = 0
        plot.axis.visible = plot.grid.visible = False
        plot.image("image", x=0, y=0, dw=width, dh=height, color_mapper=self._errors, source=self._residuals)
        plot.add_layout(ColorBar(color_mapper=self._errors), "right")
        return plot


def _extent(residuals: ResidualMap) -> tuple[float, float]:
    """Ends of the scale of colours: a decade at least."""
    known = residuals[~np.isnan(residuals)]
    low = max(float(known.min()), _LEAST) if len(known) else _LEAST
    return low, max(float(known.max()) if len(known) else 1.0, 10 * low)


def _table(now: Snapshot) -> str:
    rows = {
        "stage": ", ".join(filter(None, (now.stage, f"{now.share:.0%}", now.left, now.described))),
        "blocks": f"{now.blocks_done} of {now.blocks}" if now.blocks else "",
        "bytes": _bytes(now),
    }
    cells = (f"<tr><td>{name}</td><td>{escape(value)}</td></tr>" for name, value in rows.items() if value)
    return f"<table>{''.join(cells)}</table>"


def _bytes(now: Snapshot) -> str:
    wanted = None if now.budget_bytes is None else f"{now.budget_bytes:,} wanted"
    written = None if now.file_bytes is None else f"{now.file_bytes:,} encoded"
    return ", ".join(filter(None, (written, wanted)))
