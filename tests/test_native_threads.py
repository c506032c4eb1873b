"""Whatever the environment says, a worker is one busy thread, and nothing stays limited afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tifffile
import zarr
from threadpoolctl import threadpool_info

from smartsplat_large.lattice import Size, Window
from smartsplat_large.native_threads import Shared, blas_alone
from smartsplat_large.progress import Silent
from smartsplat_large.sink import write_image
from smartsplat_large.source import ArraySource, ingest
from smartsplat_large.streaming.workers import open_workers

PICTURE = Path(__file__).parent / "data" / "mountain.png"
HOSTILE = {
    "OMP_NUM_THREADS": "16", "OMP_DYNAMIC": "false", "MKL_NUM_THREADS": "16", "MKL_DYNAMIC": "false",
    "OPENBLAS_NUM_THREADS": "16", "GOTO_NUM_THREADS": "16", "BLIS_NUM_THREADS": "16", "NUMEXPR_NUM_THREADS": "16",
    "NUMBA_NUM_THREADS": "64", "DASK_SCHEDULER": "processes", "DASK_NUM_WORKERS": "16", "VIPS_CONCURRENCY": "16",
    "TIFFFILE_NUM_THREADS": "16", "BLOSC_NTHREADS": "16", "ZARR_ASYNC__CONCURRENCY": "16",
}  # fmt: skip
SCANT = dict.fromkeys(HOSTILE, "1") | {"OMP_DYNAMIC": "true", "MKL_DYNAMIC": "true", "DASK_SCHEDULER": "synchronous"}


def blas_threads(shared: object = None, item: int = 0) -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.mark.parametrize("dashboard", [False, True])
def test_blas_takes_one_thread_in_every_task_and_as_before_afterwards(dashboard: bool) -> None:
    before = blas_threads()
    with open_workers(2, dashboard=dashboard, progress=Silent()) as workers:
        assert set(blas_threads()) == {1}
        assert {count for counts in workers.map(blas_threads, None, range(20)) for count in counts} == {1}
    assert blas_threads() == before


def test_a_shared_context_is_closed_by_the_last_that_leaves() -> None:
    events: list[str] = []

    @contextlib.contextmanager
    def noted() -> Iterator[None]:
        events.append("open")
        yield
        events.append("close")

    shared, meet = Shared(noted), threading.Barrier(4)

    def work(number: int) -> None:
        with shared:
            meet.wait()
            time.sleep(0.01 * number)
            assert events == ["open"]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert events == ["open", "close"]
    with shared, blas_alone:
        pass
    assert events == ["open", "close"] * 2


def test_zarr_has_one_chunk_in_work_for_every_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy, most = 0, 0
    to_thread = asyncio.to_thread

    async def counted(function: Any, /, *args: Any, **kwargs: Any) -> Any:
        nonlocal busy, most
        if "Codec" not in function.__qualname__:  # reads and writes of files
            return await to_thread(function, *args, **kwargs)
        busy += 1
        most = max(most, busy)
        try:
            return await to_thread(function, *args, **kwargs)
        finally:
            busy -= 1

    monkeypatch.setattr(asyncio, "to_thread", counted)
    pixels = np.arange(1000 * 1000, dtype=np.uint16).reshape(1000, 1000, 1)
    with ingest(ArraySource(pixels), tmp_path / "a.zarr", workers=1) as copy:
        np.testing.assert_array_equal(copy.read(Window(0, 0, 1000, 1000)), pixels)
        assert most == 1
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(copy.read, [Window(0, 0, 1000, 500), Window(0, 500, 1000, 500)] * 2))
        assert most <= 2
    assert zarr.config.get("async.concurrency") == 10, "what zarr comes with"


@pytest.mark.parametrize("extension", [".tif", ".ome.tif"])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_tiff_is_compressed_by_so_many_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extension: str, workers: int
) -> None:
    asked: list[int] = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, count: int) -> None:
            asked.append(count)
            super().__init__(count)

    monkeypatch.setattr(tifffile.tifffile, "ThreadPoolExecutor", Pool)
    bands = [np.zeros((512, 3000, 3), np.uint8)] * 4
    write_image(tmp_path / f"a{extension}", Size(3000, 2048), 3, np.uint8, bands, workers=workers)
    assert asked == ([] if workers == 1 else [workers])


def test_a_fit_keeps_to_its_workers_in_a_hostile_environment(tmp_path: Path) -> None:
    command = ["fit", str(PICTURE), "--preset", "fast", "--steps", "200", "--workers", "2", "--no-dashboard", "--json"]
    seconds: dict[int, float] = {}

    def fitted(name: str, environment: dict[str, str]) -> bytes:
        words = [sys.executable, "-m", "smartsplat_large", *command, "-o", str(tmp_path / name)]
        with subprocess.Popen(words, env=os.environ | environment, stdout=subprocess.PIPE, text=True) as process:
            watched = psutil.Process(process.pid)
            seconds.clear()
            while process.poll() is None:
                # What has ended between two looks keeps its last figure.
                with contextlib.suppress(psutil.NoSuchProcess):
                    seconds.update((each.id, each.user_time + each.system_time) for each in watched.threads())
                time.sleep(0.01)
            assert process.stdout is not None
            assert json.loads(process.stdout.read())["gaussians"] > 0
        return (tmp_path / name).read_bytes()

    plain = fitted("plain", {})
    assert fitted("scant", SCANT) == plain
    assert fitted("hostile", HOSTILE) == plain
    # Seconds of processor time, not of the clock: what else the machine does has no part in them.
    # Loading and writing use a thread more for a moment; a pool that spins takes as much as those that work.
    busy = [used for used in seconds.values() if used > 0.1 * sum(seconds.values())]
    assert len(busy) <= 1 + 2, "the thread that started it, and its workers"
