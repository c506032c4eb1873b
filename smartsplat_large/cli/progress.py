"""Progress on stderr: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from smartsplat_large.cli.interrupts import check
from smartsplat_large.progress import Progress, Silent
from smartsplat_large.stages import Stage

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

LINE_INTERVAL_S = 5.0


class LineProgress:
    """A line for every finished stage, and every few seconds within one."""

    def __init__(self, interval_s: float = LINE_INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._stage: Stage | None = None
        self._written = 0.0

    def start(self, stage: str, total: float, unit: str) -> None:
        check()
        self.finish()
        self._stage = Stage(stage, total, unit, time.monotonic())
        self._written = time.monotonic()

    def advance(self, amount: float = 1, **facts: object) -> None:
        check()
        if self._stage is None:
            return
        now = time.monotonic()
        self._stage.advance(amount, facts, now)
        if now - self._written >= self._interval_s:
            self._written = now
            going = (f"{self._stage.share:.0%}", self._stage.left(), self._stage.described())
            self._write(f"{self._stage.name}: {', '.join(filter(None, going))}")

    def note(self, message: str) -> None:
        check()
        self._write(message)

    def finish(self) -> None:
        """The last stage is over."""
        if self._stage is not None:
            self._write(f"{self._stage.name}: {self._stage.finished(time.monotonic())}")
            self._stage = None

    def _write(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201


class BarProgress:
    """A bar for every stage, the finished ones above."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._stage: Stage | None = None
        self._task: TaskID | None = None

    def start(self, stage: str, total: float, unit: str) -> None:
        check()
        self.finish()
        self._stage = Stage(stage, total, unit, time.monotonic())
        self._task = self._bars.add_task(stage, total=1.0, text="", left="")

    def advance(self, amount: float = 1, **facts: object) -> None:
        check()
        if self._stage is None or self._task is None:
            return
        stage = self._stage
        stage.advance(amount, facts, time.monotonic())
        # A stage is full when the next one starts: rounding in its units must not end it early.
        share = min(stage.share, 0.999)
        self._bars.update(self._task, completed=share, text=stage.described(), left=stage.left())

    def note(self, message: str) -> None:
        check()
        self._bars.console.print(message, markup=False, highlight=False, soft_wrap=True)

    def finish(self) -> None:
        """The last stage is over; its bar stays, full."""
        if self._stage is not None and self._task is not None:
            self._bars.update(self._task, completed=1.0, left="", text=self._stage.finished(time.monotonic()))
            self._stage = None


@contextlib.contextmanager
def shown(*, quiet: bool) -> Iterator[Progress]:
    """Progress for the length of a ``with`` block, as suits where stderr goes."""
    if quiet:
        yield Silent()
        return
    if not sys.stderr.isatty():
        lines = LineProgress()
        yield lines
        lines.finish()
        return
    with _bars() as bars:
        drawn = BarProgress(bars)
        yield drawn
        drawn.finish()


def _bars() -> Bars:
    # Imported late: 0.06 s, for nothing where no bar is drawn.
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as Bars
    from rich.table import Column

    return Bars(
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}", markup=False, table_column=Column(min_width=19, no_wrap=True)),
        BarColumn(bar_width=10, table_column=Column(min_width=10)),
        TextColumn("{task.percentage:>3.0f}%", table_column=Column(min_width=4, no_wrap=True)),
        TextColumn("{task.fields[left]}", style="cyan", table_column=Column(no_wrap=True)),
        TextColumn(
            "{task.fields[text]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
        ),
        console=Console(stderr=True),
        expand=True,
        refresh_per_second=4,
    )
