"""Rate, time left, lines and bars."""

from __future__ import annotations

import io
import itertools
import re
import time

import pytest
from numba import njit

from smartsplat_large import stages
from smartsplat_large.cli.progress import BarProgress, LineProgress, shown
from smartsplat_large.compiling import Compiling
from smartsplat_large.progress import Silent
from smartsplat_large.stages import Stage, Stages


def test_rate_and_time_left_follow_the_last_half_minute() -> None:
    stage = Stage("fit", 1000, "steps", now=0)
    for second in range(1, 101):
        stage.advance(1 if second <= 50 else 4, {}, now=second)
    assert stage.done == 250
    assert stage.rate == pytest.approx(4)
    assert stage.left_s == pytest.approx(750 / 4)


def test_time_left_reckons_with_what_steps_to_come_cost() -> None:
    stage = Stage("fit", 100, "steps", now=0, costs=[(80, 0.25), (20, 1.0)])
    for second in range(1, 11):
        stage.advance(4, {}, now=second)
    assert stage.rate == pytest.approx(4)
    assert stage.left_s == pytest.approx(40 / 4 + 20 / 1)
    assert stage.share == pytest.approx(10 / 40)
    stage.advance(40, {}, now=20)
    stage.advance(1, {}, now=21)
    assert stage.rate == pytest.approx(1)
    assert stage.left_s == pytest.approx(19)


def test_units_that_no_costs_were_given_for_cost_one() -> None:
    stage = Stage("fit", 10, "steps", now=0, costs=[(4, 2.0)])
    stage.advance(4, {}, now=8)
    assert stage.left_s == pytest.approx(6)
    assert stage.share == pytest.approx(8 / 14)


def test_nothing_done_says_nothing_of_the_time_left() -> None:
    stage = Stage("fit", 100, "steps", now=0)
    assert (stage.rate, stage.left_s, stage.left()) == (None, None, "")
    assert stage.described() == "0 of 100 steps"


def test_description_shows_quality_speed_and_amount() -> None:
    stage = Stage("fit", 400, "steps", now=0)
    stage.advance(100, {"psnr": 29.314, "level": 1}, now=8)
    assert stage.described() == "PSNR 29.31 dB, level 1, 12.50 steps/s, 100 of 400 steps"
    assert stage.left() == "0:24 left"
    assert stage.finished(now=3700) == "100 steps in 1:01:40, PSNR 29.31 dB, level 1"


def test_lines_tell_of_every_stage_and_note(capsys: pytest.CaptureFixture[str]) -> None:
    lines = LineProgress(interval_s=0)
    lines.note("dask dashboard: http://127.0.0.1:8787/status")
    lines.start("fit", 4, "steps")
    lines.advance(3, psnr=30.0)
    lines.start("encode", 1, "file")
    lines.advance()
    lines.finish()
    lines.finish()
    out, err = capsys.readouterr()
    assert out == ""
    note, going, fit, encoding, encoded = err.splitlines()
    assert note.endswith("/status")
    assert going.startswith("fit: 75%, ")
    assert going.endswith(", 3 of 4 steps")
    assert fit.startswith("fit: 3 steps in ")
    assert encoding.startswith("encode: 100%, ")
    assert encoded.startswith("encode: 1 file in ")


def test_lines_wait_between_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    lines = LineProgress(interval_s=3600)
    lines.start("fit", 1000, "steps")
    for _ in range(1000):
        lines.advance()
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """What was written, without control sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue()).replace("\r", "\n").splitlines()


def test_a_terminal_gets_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "100")
    with shown(quiet=False) as bars:
        assert isinstance(bars, BarProgress)
        bars.note("http://127.0.0.1:8787/[status]")
        bars.start("fit", 10, "steps")
        bars.advance(5, psnr=31.25)
        bars.start("verify", 1, "MP")
    assert "http://127.0.0.1:8787/[status]" in terminal.getvalue()
    fit, verify = [line for line in terminal.lines() if re.match(r"(fit|verify): ", line)]
    assert re.search(r"fit: 5 steps in .* s, PSNR 31.25 dB$", fit)
    assert re.search(r"verify: 0 MP in .* s$", verify)


@pytest.mark.parametrize("columns", [60, 80, 100, 160])
@pytest.mark.parametrize("name", ["fit", "measuring distances"])
def test_what_matters_fits_on_narrow_terminals(columns: int, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(columns))
    clock = itertools.count(0.0, 1.0)
    monkeypatch.setattr(Stages, "now", lambda self: next(clock))
    with shown(quiet=False) as bars:
        assert isinstance(bars, BarProgress)
        bars.start(name, 40000, "steps")
        for _ in range(100):
            bars.advance(4, psnr=31.25, level=1)
        bars._bars.refresh()
        line = [line for line in terminal.lines() if "PSNR" in line][-1].rstrip()
    assert len(line) <= columns
    assert all(part in line for part in (name, " 1%", "2:45:00 left", "PSNR 31.25 dB"))
    assert "\u2026" not in line
    assert ("400 of 40000 steps" in line) == (columns == 160)


def test_compiling_is_said_once_and_left_out_of_the_rate(capsys: pytest.CaptureFixture[str]) -> None:
    def compile_one() -> None:
        njit(lambda x: x + 1)(1)

    lines = LineProgress(interval_s=3600)
    lines.start("fit", 10, "steps")
    with lines.watching():
        began = time.monotonic()
        compile_one()
        compile_one()
        took = time.monotonic() - began
        assert lines._stages.now() - began < took / 2
        lines.finish()
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "compiling kernels (first run only)"
    assert sum("first run" in line for line in said) == 1


def test_compiling_counts_once_where_it_is_nested() -> None:
    told: list[bool] = []
    compiling = Compiling(told.append)
    for step in (compiling.on_start, compiling.on_start, compiling.on_end, compiling.on_end):
        step(None)
    assert told == [True, False]
    assert compiling.seconds() == compiling.seconds()


def test_a_finished_stage_says_how_long_kernels_took() -> None:
    stage = Stage("fit", 10, "steps", now=0)
    stage.advance(10, {"psnr": 30.0}, now=4)
    assert stage.finished(4, 12.0) == "10 steps in 4.0 s, and 0:12 compiling kernels, PSNR 30.00 dB"


def test_quiet_shows_nothing_and_a_pipe_gets_lines() -> None:
    with shown(quiet=True) as silent:
        assert isinstance(silent, Silent)
    with shown(quiet=False) as lines:
        assert isinstance(lines, LineProgress)


def test_a_swallowed_interrupt_is_raised_at_the_next_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = LineProgress()
    lines.start("fit", 10, "steps")
    monkeypatch.setattr("smartsplat_large.cli.interrupts._pending", True)
    with pytest.raises(KeyboardInterrupt):
        lines.advance()


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (400, "400"), (0.049152, "0.049"), (1.5, "1.50"), (157.7, "158"), (123456.7, "123457")],
)
def test_amounts_are_short(value: float, text: str) -> None:
    assert stages._amount(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (9.96, "0:10"), (75, "1:15"), (3725, "1:02:05")])
def test_clock(seconds: float, text: str) -> None:
    assert stages.clock(seconds) == text
