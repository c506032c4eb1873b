"""Progress on stderr: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING

from smartsplat_large.cli.interrupts import check
from smartsplat_large.progress import Costs, Progress, Silent
from smartsplat_large.stages import Stage, Stages

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

LINE_INTERVAL_S = 5.0

_WIDE = 76
"""Columns from which on a terminal has room for a bar."""
_NAME_WIDTH, _BAR_WIDTH, _LEFT_WIDTH = 19, 10, 9


class _Shown(ABC):
    """Stages one after the other, and a line that stays for every finished one."""

    def __init__(self) -> None:
        self._stages = Stages()
        self._said_compiling = False

    def start(self, stage: str, total: float, unit: str, costs: Costs = ()) -> None:
        check()
        self.finish()
        self._begin(self._stages.start(stage, total, unit, costs))

    def advance(self, amount: float = 1, **facts: object) -> None:
        check()
        stage = self._stages.current
        if stage is not None:
            stage.advance(amount, facts, self._stages.now())
            self._show(stage)

    def note(self, message: str) -> None:
        check()
        self._write(message)

    def finish(self) -> None:
        """The last stage is over."""
        line = self._stages.finish()
        if line is not None:
            self._end()
            self._write(line)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Say so when kernels are compiled."""
        # Imported late, for it loads numba.
        from smartsplat_large.compiling import watched

        with watched(self._compiles) as compiling:
            self._stages.compiling_s = compiling.seconds
            yield

    def _compiles(self, going: bool) -> None:
        """Told on whatever thread compiles."""
        if not self._said_compiling:
            self._said_compiling = True
            self._write("compiling kernels (first run only)")

    @abstractmethod
    def _begin(self, stage: Stage) -> None:
        """``stage`` has started."""

    @abstractmethod
    def _show(self, stage: Stage) -> None:
        """``stage`` has advanced."""

    @abstractmethod
    def _end(self) -> None:
        """The stage is over."""

    @abstractmethod
    def _write(self, line: str) -> None:
        """Show a line that stays."""


class LineProgress(_Shown):
    """A line for every finished stage, and every few seconds within one."""

    def __init__(self, interval_s: float = LINE_INTERVAL_S) -> None:
        super().__init__()
        self._interval_s = interval_s
        self._written = 0.0

    def _begin(self, stage: Stage) -> None:
        self._written = time.monotonic()

    def _show(self, stage: Stage) -> None:
        now = time.monotonic()
        if now - self._written >= self._interval_s:
            self._written = now
            going = (f"{stage.share:.0%}", stage.left(), stage.described())
            self._write(f"{stage.name}: {', '.join(filter(None, going))}")

    def _end(self) -> None:
        """Nothing is left open."""

    def _write(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)  # noqa: T201


class BarProgress(_Shown):
    """A bar for the stage under way, below a line for every finished one."""

    def __init__(self, bars: Bars) -> None:
        super().__init__()
        self._bars = bars
        self._task: TaskID | None = None

    def _begin(self, stage: Stage) -> None:
        self._task = self._bars.add_task(stage.name, total=1.0, text="", left="")

    def _show(self, stage: Stage) -> None:
        assert self._task is not None
        left = stage.left()
        room = self._bars.console.width - _beside_text(self._bars.console.width, stage.name, left)
        # A stage is full when the next one starts: rounding in its units must not end it early.
        share = min(stage.share, 0.999)
        self._bars.update(self._task, completed=share, text=stage.described(room), left=left)

    def _end(self) -> None:
        if self._task is not None:
            self._bars.remove_task(self._task)
            self._task = None

    def _compiles(self, going: bool) -> None:
        super()._compiles(going)
        task = self._task
        if task is not None:
            self._bars.update(task, text="compiling kernels" if going else "")

    def _write(self, line: str) -> None:
        self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextlib.contextmanager
def shown(*, quiet: bool) -> Iterator[Progress]:
    """Progress for the length of a ``with`` block, as suits where stderr goes."""
    if quiet:
        yield Silent()
        return
    with contextlib.ExitStack() as stack:
        progress = BarProgress(stack.enter_context(_bars())) if sys.stderr.isatty() else LineProgress()
        stack.enter_context(progress.watching())
        yield progress
        progress.finish()


def _bars() -> Bars:
    # Imported late: 0.06 s, for nothing where no bar is drawn.
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn
    from rich.progress import Progress as Bars
    from rich.table import Column

    console = Console(stderr=True)
    wide = console.width >= _WIDE
    bar = [BarColumn(bar_width=_BAR_WIDTH, table_column=Column(min_width=_BAR_WIDTH))] if wide else []
    name_width = _NAME_WIDTH if wide else None
    return Bars(
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}", markup=False, table_column=Column(min_width=name_width, no_wrap=True)),
        *bar,
        TextColumn("{task.percentage:>3.0f}%", table_column=Column(min_width=4, no_wrap=True)),
        TextColumn("{task.fields[left]}", style="cyan", table_column=Column(min_width=_LEFT_WIDTH, no_wrap=True)),
        TextColumn(
            "{task.fields[text]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
        ),
        console=console,
        expand=True,
        refresh_per_second=4,
        transient=True,
    )


def _beside_text(width: int, name: str, left: str) -> int:
    """Columns that all but the text take on a terminal, with the spaces between."""
    wide = width >= _WIDE
    name_width = max(len(name), _NAME_WIDTH if wide else 0)
    columns = [1, name_width, *([_BAR_WIDTH] if wide else []), 4, max(len(left), _LEFT_WIDTH)]
    return sum(columns) + len(columns)
