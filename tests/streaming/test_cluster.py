"""Workers that are processes of their own: the same bits as here, also when one is killed, and nobody gets everything."""

from __future__ import annotations

import contextlib
import json
import pickle
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from ranged_server import serving

import smartsplat_large as ss
from smartsplat_large.codec.budget import encode_to_budget
from smartsplat_large.codec.writer import Extras
from smartsplat_large.config import PRESETS
from smartsplat_large.errors import MemoryLimitError
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Window
from smartsplat_large.memory import GiB
from smartsplat_large.progress import Silent
from smartsplat_large.render.cpu import CpuRenderer
from smartsplat_large.render.records import RIM
from smartsplat_large.sampling import sample
from smartsplat_large.source import ArraySource
from smartsplat_large.streaming import cluster, targets
from smartsplat_large.streaming.finish import finish_at
from smartsplat_large.streaming.fit import fit_gaussians
from smartsplat_large.streaming.plan import plan_fit
from smartsplat_large.streaming.sweep import Sweep, prepare_sweep
from smartsplat_large.streaming.targets import Targets
from smartsplat_large.streaming.workers import Workers, open_workers

distributed = pytest.importorskip("distributed")

CONFIG = PRESETS["balanced"].replace(ratio=None, gaussians=2500, steps=12, relocate_every=4, solve_iterations=2)
COLUMNS = ("xy", "scale", "rotation", "color")


def picture(width: int = 280, height: int = 200) -> ArraySource:
    y, x = np.mgrid[:height, :width]
    waves = 128 + 60 * np.sin(x / 9) + 50 * np.cos((x + 2 * y) / 15)
    noise = np.random.default_rng(0).normal(0, 5, (height, width, 3))
    pixels = np.stack([waves, waves[::-1], 255 - waves], axis=2) + noise
    return ArraySource(pixels.clip(0, 255).astype(np.uint8), levels=3)


class Trigger(Silent):
    """Kills a process when so many steps are done."""

    def __init__(self, process: subprocess.Popen[bytes] | None = None, steps: int = 5) -> None:
        self.process, self.left = process, steps

    def advance(self, amount: float = 1, **facts: object) -> None:
        self.left -= "level" in facts
        if self.left == 0 and self.process is not None:
            self.process.kill()


def fit(pool: Workers, progress: Silent, mode: str) -> tuple[Gaussians, bytes]:
    """The Gaussians, and their file: all that is done between the picture and the writing."""
    source, config = picture(), CONFIG.replace(mode=mode)
    meta, count = source.meta, CONFIG.gaussians or 1
    plan = plan_fit(meta.size, 3, 1, count, config, memory_bytes=GiB, workers=1)
    initial = sample(source.read, meta.size, 3, meta.dtype, count, config.sampling, 0, workers=1)
    renderer = CpuRenderer()
    fitted = fit_gaussians(source, renderer, initial, plan, config, pool, progress).gaussians
    step = encode_to_budget(fitted, size=meta.size, bits=8, budget_bytes=9000).step_index
    return fitted, finish_at(fitted, step, 8, Extras(), source, renderer, pool, progress, 2).data


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler's address and its two workers, started as by hand."""
    told, started = tmp_path / "scheduler.json", list[subprocess.Popen[bytes]]()

    def start(*arguments: str) -> None:
        command = [sys.executable, "-m", "dask", *arguments, "--scheduler-file", str(told), "--no-dashboard"]
        quiet = subprocess.DEVNULL
        started.append(subprocess.Popen(command, stdout=quiet, stderr=quiet))

    start("scheduler", "--host", "127.0.0.1", "--port", "0")
    while not (told.exists() and told.read_text().endswith("}")):
        assert started[0].poll() is None
        time.sleep(0.05)
    address = json.loads(told.read_text())["address"]
    for _ in range(2):
        start("worker", "--nthreads", "1", "--no-nanny", "--local-directory", str(tmp_path))
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    yield address, started[1:]
    for process in reversed(started):
        process.kill()
    for process in started:
        process.wait()


@pytest.mark.parametrize("mode", ["exact", "blocked"])
def test_a_killed_worker_costs_time_only(processes: tuple[str, list[subprocess.Popen[bytes]]], mode: str) -> None:
    address, workers = processes
    with open_workers(1, progress=Silent()) as pool:
        here, file_here = fit(pool, Trigger(), mode)
    with open_workers(1, scheduler=address, progress=Silent()) as pool:
        there, file_there = fit(pool, Trigger(workers[0]), mode)
    assert workers[0].poll() is not None
    assert workers[1].poll() is None
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(there, column), getattr(here, column))
    assert file_there == file_here


def test_workers_that_share_a_store_alone(
    processes: tuple[str, list[subprocess.Popen[bytes]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image comes from a web server. The client's own files have names that mean nothing where the workers are."""
    for name in ("client", "served", "store"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "client")
    monkeypatch.setattr(tempfile, "tempdir", ".")
    np.save(tmp_path / "served" / "a.npy", picture().read(Window(0, 0, 280, 200)))
    config = CONFIG.replace(gaussians=400)
    ss.fit(tmp_path / "served" / "a.npy", "here.ssplat", config=config)
    with serving(tmp_path / "served") as server:
        ss.fit(
            f"{server.url}/a.npy", "there.ssplat", config=config, scheduler=processes[0],
            work=f"file://{tmp_path}/store",
        )  # fmt: skip
    assert Path("there.ssplat").read_bytes() == Path("here.ssplat").read_bytes()
    assert list((tmp_path / "store").iterdir()) == []


def swept(count: int) -> Sweep:
    rng = np.random.default_rng(0)
    scale, color = rng.uniform(1, 3, (count, 2)), rng.random((count, 3))
    gaussians = Gaussians(
        rng.random((count, 2)) * (280, 200), scale.astype(np.float32), np.zeros(count, np.float32), color.astype(np.float32)
    )  # fmt: skip
    return prepare_sweep(picture(), CpuRenderer(), gaussians, 64, 0, CONFIG.loss)


def test_what_a_block_sees_travels_as_its_rows_alone() -> None:
    sweep = swept(3000)
    seen = sweep[7]
    packed = pickle.dumps(seen)
    arrived = pickle.loads(packed)
    assert 0 < len(seen) < 1000
    assert len(packed) < 1000 + 40 * len(seen)
    np.testing.assert_array_equal(arrived.projection.records[:, : RIM + 1], seen.projection.records[:, : RIM + 1])
    np.testing.assert_array_equal(arrived.projection.peaks, seen.projection.peaks)
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(arrived.gaussians, column), getattr(seen.gaussians, column))


def test_targets_keep_pixels_where_they_arrive_those_of_the_latest_only() -> None:
    first, second = (Targets(picture(), 0, kept_elsewhere=50_000) for _ in range(2))
    window, other = Window(0, 0, 100, 100), Window(100, 0, 100, 100)
    one, again, later = (pickle.loads(pickle.dumps(t)) for t in (first, first, second))
    assert one.read(window) is not one.read(window), "the first was replaced"
    assert later.read(window) is later.read(window)
    assert later.read(other) is not later.read(other), "there is room for one"
    one, again = (pickle.loads(pickle.dumps(first)) for _ in range(2))
    assert one.read(window) is again.read(window)
    assert later.read(window) is not later.read(window)
    targets.forget()
    assert one.read(window) is not one.read(window)
    np.testing.assert_array_equal(one.read(window), first.read(window))


def memory_taken(total: int, _: int) -> int:
    return int(total - distributed.get_worker().state.available_resources[cluster.MEMORY])


def local_cluster(folder: Path, workers: int = 2, **settings: object) -> Any:
    return distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=False, protocol="tcp://", host="127.0.0.1", dashboard_address=":0",
        local_directory=str(folder), **settings,
    )  # fmt: skip


def test_tasks_ask_for_memory_where_workers_have_it_to_give(tmp_path: Path) -> None:
    with (
        local_cluster(tmp_path, resources={cluster.MEMORY: GiB}) as started,
        open_workers(1, scheduler=started.scheduler_address, task_bytes=1000, progress=Silent()) as workers,
    ):
        assert set(workers.map(memory_taken, GiB, range(20))) == {1000}


def test_a_worker_that_takes_no_tasks_has_no_slots(tmp_path: Path) -> None:
    # Without a limit of memory: what watches it would let the worker go on.
    with (
        local_cluster(tmp_path, memory_limit=0) as started,
        cluster.connected(started.scheduler_address, 0) as fit,
    ):
        assert sorted(fit.slots_now()) == sorted(worker.address for worker in started.workers.values())
        paused, going = started.workers.values()
        paused.status = distributed.core.Status.paused
        deadline = time.monotonic() + 30
        while fit.slots_now() != [going.address]:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@contextlib.contextmanager
def joined(started: Any, folder: Path, **settings: object) -> Iterator[Any]:
    """Another worker of a cluster, of one thread."""

    async def begin() -> Any:
        settings_ = {"nthreads": 1, "host": "127.0.0.1", "local_directory": str(folder)} | settings
        return await distributed.Worker(started.scheduler_address, **settings_)

    worker = started.sync(begin)
    try:
        yield worker
    finally:
        started.sync(worker.close)


def ran_at(seconds: float, _: int) -> str:
    time.sleep(seconds)
    return str(distributed.get_worker().address)


def test_a_worker_that_comes_later_with_too_little_memory_gets_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_BETWEEN_LOOKS_S", 0.05)
    with (
        local_cluster(tmp_path, workers=1, memory_limit=0) as started,
        cluster.connected(started.scheduler_address, 3 * GiB) as fit,
        joined(started, tmp_path, memory_limit="3GiB") as late,
    ):
        (first,) = started.workers.values()
        assert late.address in fit.client.scheduler_info(n_workers=-1)["workers"]
        assert fit.slots_now() == [first.address]
        send = fit.sender(ran_at, 0.0, [late.address, first.address])
        assert list(fit.fetch([send(number, [number, 0]) for number in range(4)])) == [first.address] * 8
        started.sync(first.close)
        alone = send(1, [0])
        assert isinstance(alone.result(), cluster.Task)
        assert fit.slots_now() == []
        with joined(started, tmp_path, memory_limit=0) as fitter:
            assert list(fit.fetch([alone])) == [fitter.address]


def test_a_worker_that_comes_later_without_the_resource_does_not_break_down(tmp_path: Path) -> None:
    with (
        local_cluster(tmp_path, workers=1, memory_limit=0, resources={cluster.MEMORY: GiB}) as started,
        open_workers(1, scheduler=started.scheduler_address, task_bytes=1000, progress=Silent()) as workers,
        joined(started, tmp_path, memory_limit=0) as late,
    ):
        assert late.address not in set(workers.map(ran_at, 0.1, range(20)))
        assert late.status == distributed.core.Status.running


_ran: list[str] = []
"""Tasks in the order in which workers of this process began them."""
_first, _second = threading.Event(), threading.Event()


def told(name: str, item: int) -> None:
    """The first task of a fit fails once; the second waits until it is told to go on."""
    _ran.append(f"{name} {item}")
    if _ran.count("fit 0") == 1 and item == 0:
        raise OSError("out of reach for a moment")
    if item == 1:
        assert _second.wait(60)


@pytest.fixture
def one_busy_slot(tmp_path: Path) -> Iterator[Any]:
    """A cluster with one slot, which has a task until ``_first`` is set."""
    _ran.clear()
    _first.clear()
    _second.clear()
    with local_cluster(tmp_path, workers=1) as started, distributed.Client(started, set_as_default=False) as client:
        held = client.submit(busy, key="held")
        yield started
        held.result()


def busy() -> None:
    assert _first.wait(60)


def await_ready(started: Any, waiting: int, begun: int = 0) -> None:
    """Return when so many tasks wait in the only worker, and so many of them have begun."""
    deadline = time.monotonic() + 60
    while (len(started.workers[0].state.ready), len(_ran)) != (waiting, begun):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_tasks_run_in_the_order_of_their_results_and_one_that_failed_goes_first(one_busy_slot: Any) -> None:
    with cluster.connected(one_busy_slot.scheduler_address, 0) as fit:
        send = fit.sender(told, "fit")
        results = [send(number, [number]) for number in range(6)]
        await_ready(one_busy_slot, 6)
        _first.set()
        await_ready(one_busy_slot, 5, begun=2)
        _second.set()
        assert list(fit.fetch(results)) == [None] * 6
    assert _ran == [f"fit {number}" for number in (0, 1, 0, 2, 3, 4, 5)]


@pytest.mark.parametrize("graph", [False, True])
def test_tasks_of_other_clients_of_a_scheduler_go_first(one_busy_slot: Any, graph: bool) -> None:
    address = one_busy_slot.scheduler_address
    with cluster.connected(address, 0) as fit, distributed.Client(address, set_as_default=False) as other:
        send = fit.sender(told, "fit")
        if graph:
            results = fit.client.compute([dask.delayed(told)("fit", number) for number in (2, 3)])
        else:
            results = [send(number, [number]) for number in (2, 3)]
        await_ready(one_busy_slot, 2)
        with dask.annotate(priority=0):  # as in a process of its own
            theirs = other.submit(told, "other", 9, key="theirs", fifo_timeout=0)
        await_ready(one_busy_slot, 3)
        _first.set()
        other.gather(theirs)
        fit.client.gather(results)
    assert _ran[0] == "other 9"
    assert sorted(_ran[1:]) == ["fit 2", "fit 3"]


def test_a_worker_with_too_little_memory_is_named(tmp_path: Path) -> None:
    with (
        local_cluster(tmp_path, memory_limit="1GiB") as started,
        pytest.raises(MemoryLimitError, match=r"the worker at tcp://.*, of 1 threads, needs 1\.50 GiB"),
        open_workers(1, scheduler=started.scheduler_address, task_bytes=GiB, progress=Silent()),
    ):
        pass
    assert dask.config.get("scheduler", None) is None


def test_a_performance_report_is_written(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    with (
        local_cluster(tmp_path) as started,
        open_workers(1, scheduler=started.scheduler_address, performance_report=report, progress=Silent()) as workers,
    ):
        assert list(workers.map(pow, 2, range(20))) == [2**i for i in range(20)]
    page = report.read_text()
    assert "bokeh" in page
    assert not re.findall(r"<script[^>]*\ssrc=", page), "it can be read without a network"


def kept_open(_: object, __: int) -> int:
    return len(cluster._opened)


def test_workers_elsewhere_forget_a_fit_that_has_ended(tmp_path: Path) -> None:
    with local_cluster(tmp_path) as started:
        with open_workers(1, scheduler=started.scheduler_address, progress=Silent()) as workers:
            assert set(workers.map(kept_open, None, range(20))) == {1}
        deadline = time.monotonic() + 30
        while cluster._opened:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_dashboard_finds_a_port_where_the_usual_one_is_taken() -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # some other program has it: as well
            other.bind(("127.0.0.1", 8787))
            other.listen()
        with cluster.local_cluster(1) as local:
            assert "8787" not in local.dashboard
            assert urllib.request.urlopen(local.dashboard, timeout=10).status == 200
