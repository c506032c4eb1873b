"""The page as a browser is given it, without a browser."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from smartsplat_large.config import LossConfig, OptimizerConfig
from smartsplat_large.dashboard import Record
from smartsplat_large.fitting.optimizer import AdamState
from smartsplat_large.fitting.visit import Course
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Size
from smartsplat_large.progress import Silent
from smartsplat_large.render.cpu import CpuRenderer
from smartsplat_large.source.array import ArraySource
from smartsplat_large.streaming.blocked import VisitTask, group_of, survey, visit_group
from smartsplat_large.streaming.schedule import Round
from smartsplat_large.streaming.sweep import prepare_sweep, sweep_gradients, sweep_loss
from smartsplat_large.streaming.targets import Targets
from smartsplat_large.streaming.workers import open_workers

# Where the port of its dashboard is taken, dask forgets the socket that it tried.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
)

PICTURE = Path(__file__).parents[1] / "data" / "mountain.png"


class Notes(Silent):
    """Finds the address of the page in what a user is told."""

    address = ""

    def note(self, message: str) -> None:
        if found := re.fullmatch(r"progress of the fit: (http://\S+)", message):
            self.address = found[1]


@pytest.fixture(params=["local", "elsewhere"])
def scheduler(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """None for a cluster of the fit's own, or the address of another one."""
    distributed = pytest.importorskip("distributed")
    pytest.importorskip("bokeh")
    if request.param == "local":
        yield None
        return
    with distributed.LocalCluster(n_workers=1, processes=False, dashboard_address="127.0.0.1:0") as cluster:
        yield cluster.scheduler_address


def test_the_page_follows_the_fit_and_goes_with_it(scheduler: str | None) -> None:
    from bokeh.client import pull_session

    notes = Notes()
    record = Record(notes, "a.tif", Size(100, 50), 4000)
    with open_workers(1, scheduler=scheduler, dashboard=True, record=record, progress=record):
        record.start("fit <all>", 10, "steps")
        record.advance(2, psnr=31.25, level=1)
        record.block_done(3, 8, Size(50, 25).window, Size(100, 50), 0.5)
        with pull_session(url=notes.address) as session:
            facts, psnr, residuals = map(session.document.get_model_by_name, ("facts", "psnr", "residuals"))
            assert "<span>fit &lt;all&gt;</span><span>20%</span>" in facts.text
            assert "3 of 8" in facts.text
            assert "4,000 bytes allowed" in facts.text
            assert {key: list(value) for key, value in psnr.data.items() if key != "color"} == {
                "steps": [[2]], "psnr": [[31.25]], "level": ["1/2 size (level 1)"],
            }  # fmt: skip
            image = residuals.data["image"][0]
            assert image.shape == (64, 128)
            # From the top, as the axis is: it is flipped.
            assert image[0, 0] == pytest.approx(3.01, abs=0.01)
            assert np.isnan(image[-1, 0])
            assert session.document.title == "20% fit <all> - a.tif"
            record.start("encode", 1, "file")
            record.advance(bytes=3950)
            # The page that has been opened changes by itself.
            wait_for("3,950 bytes in the last trial; 4,000 bytes allowed", notes.address, session.id)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(notes.address, timeout=5)


def wait_for(text: str, address: str, session_id: str) -> None:
    """Return when the page says so."""
    from bokeh.client import pull_session

    deadline = time.monotonic() + 30
    while True:
        with pull_session(session_id, address) as session:
            if text in session.document.get_model_by_name("facts").text:
                return
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.parametrize("good", [True, False])
def test_whoever_has_the_page_open_sees_how_the_fit_ended(
    scheduler: str | None, good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bokeh.client import pull_session

    monkeypatch.setattr("smartsplat_large.dashboard.serve._PATIENCE_S", 30.0)
    notes = Notes()
    record = Record(notes, "a.tif", Size(100, 50), 4000)
    with (
        contextlib.nullcontext() if good else pytest.raises(KeyboardInterrupt),
        open_workers(1, scheduler=scheduler, dashboard=True, record=record, progress=record),
    ):
        record.start("verify", 1, "MP")
        session = pull_session(url=notes.address)
        facts = session.document.get_model_by_name("facts")
        record.advance(0.5)
        if not good:
            raise KeyboardInterrupt
        record.verified(3900, 40.5)
    # What has arrived is still to be read.
    connection = session._connection
    connection._loop.call_later(30, connection.close)
    connection._loop_until(lambda: "ended" in facts.tags or not connection.connected)
    assert ("<span>done</span>" if good else "<span>stopped before it was done</span>") in facts.text
    assert ("3,900 bytes, PSNR 40.50 dB; 4,000 bytes allowed" in facts.text) == good


def test_nobody_is_told_of_a_page_that_nobody_asked_for() -> None:
    notes = Notes()
    record = Record(notes, "a.tif", Size(100, 50), None)
    with open_workers(1, record=record, progress=record) as workers:
        assert workers.record is None
    assert notes.address == ""


def test_a_sweep_tells_of_its_blocks() -> None:
    record = Record(Silent(), "a.tif", Size(128, 64), None)
    with open_workers(1, progress=record) as workers:
        workers.record = record
        sweep = prepare_sweep(noise(), CpuRenderer(), dots(1), 32, 0, LossConfig(ssim=0))
        for whole in (sweep_loss(sweep, workers), sweep_gradients(sweep, workers)[0]):
            now = record.snapshot()
            assert (now.blocks_done, now.blocks) == (8, 8)
            # Blocks of one size: the mean of the map is that of the image.
            assert now.residuals.mean() == pytest.approx(whole.squared / whole.samples, rel=1e-5)
            assert len(np.unique(now.residuals)) == 8


def test_visits_tell_of_their_windows() -> None:
    record, size = Record(Silent(), "a.tif", Size(128, 64), None), Size(128, 64)
    with open_workers(1, progress=record) as workers:
        workers.record = record
        state = AdamState.start(dots(128), size, OptimizerConfig())
        task = VisitTask(Course(CpuRenderer(), LossConfig(ssim=0), 1.0, (1.0,), size), Targets(noise(), 0))
        territory = survey(state, task.course, 32, Round(0, 1, shifted=False), workers)
        group = group_of(territory, 0, task.course)
        outcomes = list(visit_group(group, task, workers))
    now = record.snapshot()
    assert (now.blocks_done, now.blocks) == (2, 2)
    # The map of so small an image has a cell for every pixel.
    for window, outcome in zip(group.windows, outcomes, strict=True):
        seen = now.residuals[window.slices(size.window)]
        np.testing.assert_allclose(seen, outcome.after.squared / outcome.after.samples, rtol=1e-6)
    assert np.isfinite(now.residuals).sum() == sum(window.pixels for window in group.windows)


def noise() -> ArraySource:
    """128 x 64 pixels."""
    return ArraySource(np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8))


def dots(count: int) -> Gaussians:
    """Small Gaussians, evenly spread over that."""
    xy = (0.5 + np.stack(np.divmod(np.arange(count), 8)[::-1], 1)) * (16, 4)
    return Gaussians(
        xy.astype(np.float32), np.ones((count, 2), np.float32), np.zeros(count, np.float32),
        np.full((count, 3), 0.5, np.float32),
    )  # fmt: skip


def test_a_fit_without_a_dashboard_loads_no_bokeh(tmp_path: Path) -> None:
    program = (
        "import sys, smartsplat_large as s; "
        f"s.fit({str(PICTURE)!r}, {str(tmp_path / 'a.ssplat')!r}, config=s.preset('fast').replace(gaussians=50, steps=2)); "
        "assert 'bokeh' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
