"""What a fit tells of its progress, kept for a page that asks now and then."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from smartsplat_large.lattice import Size, Window
from smartsplat_large.progress import Costs, Progress
from smartsplat_large.stages import Stage

_CELLS = 128
"""Cells of the residual map along the longer side of the image."""
_POINTS = 1000
"""Points of the curve, at most about so many."""

ResidualMap = Float32[np.ndarray, "rows columns"]
"""Mean squared error a sample, 1 being the brightest value, from the top; not a number where it is unknown."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a page shows at one moment."""

    stage: str
    share: float
    """How much of the stage is done, 0 to 1."""
    left: str
    """Time to go, for people; empty while unknown."""
    described: str
    blocks_done: int
    """Of the sweep under way, or the last one of the stage."""
    blocks: int
    psnr: dict[int, list[tuple[float, float]]]
    """Steps taken and dB then, by level."""
    residuals: ResidualMap
    file_bytes: int | None
    """Of the latest file that was encoded."""
    budget_bytes: int | None


class Record:
    """A :class:`Progress` that passes on all it is told; it is read from another thread."""

    def __init__(self, shown: Progress, size: Size, budget_bytes: int | None) -> None:
        self._shown, self._budget_bytes = shown, budget_bytes
        self._lock = threading.Lock()
        self._stage = Stage("start", 1, "", time.monotonic())
        self._psnr: dict[int, list[tuple[float, float]]] = {}
        self._file_bytes: int | None = None
        self._blocks = (0, 0)
        cell = max(size.width, size.height) / _CELLS
        shape = math.ceil(size.height / cell), math.ceil(size.width / cell)
        self._residuals = np.full(shape, np.nan, np.float32)

    def start(self, stage: str, total: float, unit: str, costs: Costs = ()) -> None:
        self._shown.start(stage, total, unit, costs)
        with self._lock:
            self._stage, self._blocks = Stage(stage, total, unit, time.monotonic(), costs), (0, 0)

    def advance(self, amount: float = 1, **facts: Any) -> None:
        self._shown.advance(amount, **facts)
        with self._lock:
            if "psnr" in facts and "psnr" not in self._stage.facts:
                # A fit begins; in a search for a quality it is not the first.
                self._psnr = {}
            self._stage.advance(amount, facts, time.monotonic())
            if "psnr" in facts:
                self._plot(facts["psnr"], facts.get("level", 0))
            self._file_bytes = facts.get("bytes", self._file_bytes)

    def note(self, message: str) -> None:
        self._shown.note(message)

    def block_done(self, number: int, count: int, window: Window, size: Size, squared_error: float) -> None:
        """Block ``number`` of ``count`` in a sweep is done; the mean error is that of a window of a level of ``size``."""
        rows, columns = self._residuals.shape
        y, y_end = (rows * edge / size.height for edge in (window.y, window.y_end))
        x, x_end = (columns * edge / size.width for edge in (window.x, window.x_end))
        with self._lock:
            self._blocks = number, count
            self._residuals[math.floor(y) : math.ceil(y_end), math.floor(x) : math.ceil(x_end)] = squared_error

    def snapshot(self) -> Snapshot:
        """A copy of how things stand."""
        with self._lock:
            stage = self._stage
            return Snapshot(
                stage.name, stage.share, stage.left(), stage.described(), *self._blocks,
                {level: list(points) for level, points in self._psnr.items()}, self._residuals.copy(), self._file_bytes,
                self._budget_bytes,
            )  # fmt: skip

    def _plot(self, psnr: float, level: int) -> None:
        points = self._psnr.setdefault(level, [])
        done = self._stage.done
        if math.isfinite(psnr) and (not points or done - points[-1][0] >= self._stage.total / _POINTS):
            points.append((done, psnr))
