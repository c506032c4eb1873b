"""What a fit tells of its progress, kept for a page that asks now and then."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from smartsplat_large.lattice import Size, Window
from smartsplat_large.progress import Costs, Progress
from smartsplat_large.stages import Stage, Stages, clock

_CELLS = 128
"""Cells of the residual map along the longer side of the image."""
_POINTS = 1000
"""Points of the curve, at most about so many."""
_LINES = 100
"""Lines kept of what has happened."""

ResidualMap = Float32[np.ndarray, "rows columns"]
"""Mean squared error a sample, 1 being the brightest value, from the top; not a number where it is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a page shows at one moment."""

    name: str
    """Of the image."""
    size: Size
    running: str
    """Time since the start, for people."""
    ended: bool
    """Nothing will change any more."""
    verified: bool
    """The file is written and has been read again: a good end."""
    stage: str
    share: float
    """How much of the stage is done, 0 to 1."""
    left: str
    """Time to go in the stage, for people; empty while unknown."""
    described: str
    blocks_done: int
    """Of the sweep under way, or the last one of the stage."""
    blocks: int
    psnr: dict[int, list[tuple[float, float]]]
    """Steps taken and dB then, by level."""
    steps: float
    """Where these end."""
    residuals: ResidualMap
    file_bytes: int | None
    """Of the latest file that was encoded."""
    file_psnr: float | None
    """Of the file that was verified; None, too, where it has no error at all."""
    budget_bytes: int | None
    lines: list[str]
    """Stages that are over, and what was noted; the latest first."""


class Record:
    """A :class:`Progress` that passes on all it is told; it is read from another thread.

    As on the terminal, its clock stands still while kernels are compiled.
    """

    def __init__(self, shown: Progress, name: str, size: Size, budget_bytes: int | None) -> None:
        self._shown, self._name, self._size, self._budget_bytes = shown, name, size, budget_bytes
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._stages, self._compiles = Stages(), False
        self._psnr: dict[int, list[tuple[float, float]]] = {}
        self._steps = 1.0
        self._file_bytes: int | None = None
        self._file_psnr: float | None = None
        self._verified = False
        self._blocks = (0, 0)
        self._ended_after_s: float | None = None
        self._lines: deque[str] = deque(maxlen=_LINES)
        cell = max(size.width, size.height) / _CELLS
        shape = math.ceil(size.height / cell), math.ceil(size.width / cell)
        self._residuals = np.full(shape, np.nan, np.float32)

    def start(self, stage: str, total: float, unit: str, costs: Costs = ()) -> None:
        self._shown.start(stage, total, unit, costs)
        with self._lock:
            self._finish_stage()
            self._stages.start(stage, total, unit, costs)
            self._blocks = 0, 0

    def advance(self, amount: float = 1, **facts: Any) -> None:
        self._shown.advance(amount, **facts)
        with self._lock:
            stage = self._stages.current
            if stage is None:
                return
            if "psnr" in facts and "psnr" not in stage.facts:
                # A fit begins; in a search for a quality it is not the first.
                self._psnr, self._steps = {}, stage.total
            stage.advance(amount, facts, self._stages.now())
            if "psnr" in facts:
                self._plot(stage, facts["psnr"], facts.get("level", 0))
            self._file_bytes = facts.get("bytes", self._file_bytes)

    def note(self, message: str) -> None:
        self._shown.note(message)
        with self._lock:
            self._lines.appendleft(message)

    def block_done(self, number: int, count: int, window: Window, size: Size, squared_error: float) -> None:
        """Block ``number`` of ``count`` in a sweep is done; the mean error is that of a window of a level of ``size``."""
        rows, columns = self._residuals.shape
        y, y_end = (rows * edge / size.height for edge in (window.y, window.y_end))
        x, x_end = (columns * edge / size.width for edge in (window.x, window.x_end))
        with self._lock:
            self._blocks = number, count
            self._residuals[math.floor(y) : math.ceil(y_end), math.floor(x) : math.ceil(x_end)] = squared_error

    def compiling(self, seconds: Callable[[], float]) -> None:
        """From now on, ``seconds`` tells for how long kernels have been compiled."""
        self._stages.compiling_s = seconds

    def compiles(self, going: bool) -> None:
        """Kernels begin or cease to be compiled; told on any thread."""
        self._compiles = going

    def verified(self, size_bytes: int, psnr: float | None) -> None:
        """The file is written, and found to be worth so many dB; None where it has no error at all."""
        with self._lock:
            self._verified, self._file_bytes, self._file_psnr = True, size_bytes, psnr

    def end(self) -> None:
        """No more will be told."""
        with self._lock:
            if self._verified:
                self._finish_stage()
            self._ended_after_s = time.monotonic() - self._began

    def snapshot(self) -> Snapshot:
        """A copy of how things stand."""
        with self._lock:
            stage = self._stages.current or Stage("start", 1, "stage", self._stages.now())
            running_s = time.monotonic() - self._began if self._ended_after_s is None else self._ended_after_s
            return Snapshot(
                name=self._name, size=self._size, running=clock(running_s), ended=self._ended_after_s is not None,
                verified=self._verified, stage=stage.name, share=stage.share,
                left="" if self._compiles else stage.left(),
                described="compiling kernels (first run only)" if self._compiles else stage.described(),
                blocks_done=self._blocks[0], blocks=self._blocks[1],
                psnr={level: list(points) for level, points in self._psnr.items()}, steps=self._steps,
                residuals=self._residuals.copy(), file_bytes=self._file_bytes, file_psnr=self._file_psnr,
                budget_bytes=self._budget_bytes, lines=list(self._lines),
            )  # fmt: skip

    def _finish_stage(self) -> None:
        line = self._stages.finish()
        if line is not None:
            self._lines.appendleft(line)

    def _plot(self, stage: Stage, psnr: float, level: int) -> None:
        points = self._psnr.setdefault(level, [])
        if math.isfinite(psnr) and (not points or stage.done - points[-1][0] >= stage.total / _POINTS):
            points.append((stage.done, psnr))
