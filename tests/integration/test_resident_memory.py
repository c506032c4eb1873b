"""Resident memory of every process of a fit, at every stage, against what is projected for that stage beforehand.

A fit is given the least memory it accepts, so that no room is left for an error to hide in. It follows a small one in the same
processes, so that libraries and compiled kernels are there already: the program itself is counted as large as it may become,
which would hide most of what a stage may take beyond its projection.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile

import smartsplat_large
from smartsplat_large import columns
from smartsplat_large.config import FitConfig, SamplingConfig, preset
from smartsplat_large.errors import MemoryLimitError
from smartsplat_large.memory import PROGRAM, Footprint, GiB, MiB, format_bytes
from smartsplat_large.progress import Silent
from smartsplat_large.sampling.footprint import column_bytes
from smartsplat_large.source import ImageMeta, open_source
from smartsplat_large.streaming import plan as planning
from smartsplat_large.streaming.allowance import Allowance, allow, footprints, passing
from smartsplat_large.streaming.population import most_gaussians
from smartsplat_large.streaming.stretch import held_bytes

INTERVAL_S = 0.02
SLACK = 4 * MiB
RETURNING = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(MiB), "MALLOC_TRIM_THRESHOLD_": str(MiB)}
"""glibc gives back at once what is freed; otherwise it keeps some shards, and their room hides what comes later."""
WORKERS = 2
SIZES = {"small": (512, 384), "large": (4096, 2048), "many": (4096, 1024)}
"""Width and height of the pictures: that of the fit that comes first, and those that are measured, one by many Gaussians."""
SIDES = (128,)
"""Of the blocks of many Gaussians: so small that what is planned for blocks does not hide what is planned for all Gaussians."""
MESSAGE = MiB
"""What a task of the large picture is at most on its way, or its result: rows of a block, 0.35 MB, or 0.4 MB of models."""
BESIDE = " beside files"
"""Ends the name of what a process holds without mapped files."""
STAGES = {
    "ingest": "copying", "drawing points": "sampling", "measuring distances": "sampling", "choosing colours": "sampling",
    "solving colours": "fitting", "fit": "fitting", "encode": "fitting", "finish": "verifying", "verify": "verifying",
}  # fmt: skip
"""Stages of a fit, and which projection speaks of them."""
LONG = {"drawing points", "fit", "verify"}
"""Those that always last until they are looked at."""


def settings(mode: str, picture: str = "large") -> FitConfig:
    """Of the picture of many Gaussians, all is done at full size, and few times; a mode makes no difference to the finish."""
    common = preset("fast").replace(ratio=400.0, mode=mode, steps=12, steps_per_visit=3, relocate_every=4)
    if picture != "many":
        return common.replace(finish_passes=int(mode == "exact"))
    sampling = SamplingConfig(tile=256)
    return common.replace(ratio=6.6, steps=3, relocate_every=2, solve_iterations=1, sampling=sampling)


class Told(Silent):
    """Says on stdout when a stage begins."""

    def start(self, stage: str, total: float, unit: str, costs: object = ()) -> None:
        print(time.monotonic(), stage.split(",")[0], flush=True)  # noqa: T201


def main(folder: str, picture: str, mode: str, memory: str, scheduler: str) -> None:
    """The process that fits: a small picture, and when it is told to go on, another one."""

    def fit(picture: str, memory_bytes: int, progress: Silent) -> None:
        smartsplat_large.fit(
            Path(folder, f"{picture}.tif"), Path(folder, "a.ssplat"), config=settings(mode, picture),
            memory_bytes=memory_bytes, workers=WORKERS, scheduler=scheduler or None, overwrite=True, resume=None,
            progress=progress,
        )  # fmt: skip

    if picture == "many":
        planning._BLOCK_SIDES = SIDES
    fit("small", least(Path(folder), "small", mode).limit, Silent())
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    fit(picture, int(memory), Told())


@dataclass(frozen=True, slots=True)
class Asked:
    """The least that a fit asks for."""

    meta: ImageMeta
    limit: int
    allowed: Allowance
    footprints: dict[str, Footprint]
    """By what is done."""

    @property
    def arrays(self) -> dict[str, int]:
        """What a process may grow by, by what is done."""
        return {what: each.gaussians + each.working for what, each in self.footprints.items()}

    @property
    def beside_files(self) -> dict[str, int]:
        """The same without what may be in memory of columns that all lie in files."""
        fitted = self.allowed.plan.column_bytes
        sampled = column_bytes(self.allowed.plan.gaussians, self.meta.channels)
        held = {"copying": 0, "sampling": sampled, "fitting": fitted, "verifying": fitted}
        return {what: size - planning.in_use(held[what]) for what, size in self.arrays.items()}


def least(folder: Path, picture: str, mode: str) -> Asked:
    """By halving: with a byte less it would be refused."""
    config = settings(mode, picture)
    with open_source(folder / f"{picture}.tif") as source:
        meta = source.meta
    low, high = 0, 4 * GiB
    while high - low > MiB // 16:
        middle = (low + high) // 2
        try:
            allow(meta, config, middle, WORKERS)
            high = middle
        except MemoryLimitError:
            low = middle
    allowed = allow(meta, config, high, WORKERS)
    projected = footprints(meta, config, allowed.plan, WORKERS)
    return Asked(meta, high, allowed, {what.split()[0]: each for what, each in projected.items()})


@dataclass(frozen=True, slots=True)
class Watched:
    """Resident bytes of processes, by their names."""

    before: dict[str, int]
    peaks: dict[str, dict[str, int]]
    """By stage."""

    def growth(self, name: str) -> dict[str, int]:
        """Of a process over what it had before, by stage."""
        return {stage: held[name] - self.before[name] for stage, held in self.peaks.items()}


def watch(
    folder: Path, picture: str, mode: str, limit: int, others: Mapping[str, psutil.Process] = {}, scheduler: str = ""
) -> Watched:
    """Run the fit of a picture, and look at its process and ``others`` every 20 ms."""
    command = [sys.executable, __file__, str(folder), picture, mode, str(limit), scheduler]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=RETURNING, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        everyone = {"client": psutil.Process(process.pid), **others}
        assert process.stdout.readline() == "ready\n"
        before = resident(everyone)
        print(file=process.stdin, flush=True)
        lines: list[str] = []
        reader = threading.Thread(target=lambda: lines.extend(process.stdout))
        reader.start()
        samples = []
        while process.poll() is None:
            samples.append((time.monotonic(), resident(everyone), time.monotonic()))
            time.sleep(INTERVAL_S)
        reader.join()
    assert process.returncode == 0
    begins = [(float(line.split(" ", 1)[0]), line.split(" ", 1)[1].rstrip()) for line in lines]
    times = [at for at, _ in begins]
    peaks: dict[str, dict[str, int]] = {}
    for first, held, last in samples:
        number = bisect_right(times, first)
        if number and number == bisect_right(times, last):
            highest = peaks.setdefault(begins[number - 1][1], dict.fromkeys(held, 0))
            for name, size in held.items():
                highest[name] = max(highest[name], size)
    return Watched(before, peaks)


def resident(processes: Mapping[str, psutil.Process]) -> dict[str, int]:
    """Of each process all that is resident and, where the system says so, that without mapped files."""
    found = {}
    for name, process in processes.items():
        memory = process.memory_info()
        found[name], found[name + BESIDE] = memory.rss, memory.rss - getattr(memory, "shared", 0)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With all pictures: TIFFs of one level, which need a working copy, but for that of many Gaussians; it is not tiled, so
    none of its pixels are kept.
    """
    folder = tmp_path_factory.mktemp("pictures")
    for name, (width, height) in SIZES.items():
        y, x = np.mgrid[:height, :width].astype(np.float32)
        noise = np.random.default_rng(0).integers(0, 24, (height, width), np.uint8)
        planes = [(100 + 60 * np.sin(x / (30 + 9 * i)) + 50 * np.cos((x + y) / 41)).astype(np.uint8) for i in range(3)]
        pixels = np.stack(planes, 2) // 2 + noise[..., None]
        tile = None if name == "many" else (256, 256)
        tifffile.imwrite(folder / f"{name}.tif", pixels, tile=tile, photometric="rgb")
    return folder


def excess(growth: Mapping[str, int], allowed: Mapping[str, int]) -> dict[str, str]:
    """By how much a process grew beyond what each stage may take, where it did."""
    over = {stage: size - allowed[STAGES[stage]] - SLACK for stage, size in growth.items()}
    return {stage: format_bytes(size) for stage, size in over.items() if size > 0}


def require_projected(asked: Asked, seen: Watched, stages: set[str]) -> None:
    """What the process that fits takes is what was projected, in every stage, those of ``stages`` at least."""
    assert stages <= seen.peaks.keys() <= STAGES.keys()
    whole = {stage: held["client"] for stage, held in seen.peaks.items()}
    assert all(size <= asked.footprints[STAGES[stage]].total for stage, size in whole.items())


@pytest.mark.parametrize("mode", ["exact", "blocked"])
def test_a_fit_keeps_to_its_projection_at_every_stage(mode: str, folder: Path) -> None:
    asked = least(folder, "large", mode)
    seen = watch(folder, "large", mode, asked.limit)
    require_projected(asked, seen, LONG | {"ingest", *(["finish"] if mode == "exact" else [])})
    assert excess(seen.growth("client"), asked.arrays) == {}


@pytest.mark.skipif(not columns._STATM.exists(), reason="only Linux tells how much is of mapped files")
@pytest.mark.parametrize("mode", ["exact", "blocked"])
def test_many_gaussians_take_what_is_projected_beside_the_files_they_lie_in(
    mode: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """515 000 of them, all of whose columns lie in files; how much of these is resident hangs on how busy the machine is."""
    monkeypatch.setattr(planning, "_BLOCK_SIDES", SIDES)
    asked = least(folder, "many", mode)
    assert asked.allowed.plan.column_bytes > 2 * planning.in_use(asked.allowed.plan.column_bytes)
    assert asked.allowed.column_bytes is not None
    assert asked.allowed.column_bytes < MiB
    seen = watch(folder, "many", mode, asked.limit)
    require_projected(asked, seen, LONG | {"measuring distances", "solving colours", "encode"})
    assert excess(seen.growth("client" + BESIDE), asked.beside_files) == {}


@contextlib.contextmanager
def cluster(folder: Path, memory_limit: int) -> Iterator[tuple[str, dict[str, psutil.Process]]]:
    """The address of a scheduler, and its process and those of two workers, of a thread each."""
    told, started = folder / "scheduler.json", list[subprocess.Popen[bytes]]()
    # As docs/scaling.md has it; by default a scheduler keeps 1000 messages that it has sent.
    environment = RETURNING | {"DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH": "4"}

    def start(*arguments: str) -> psutil.Process:
        command = [sys.executable, "-m", "dask", *arguments, "--scheduler-file", str(told), "--no-dashboard"]
        quiet = subprocess.DEVNULL
        started.append(subprocess.Popen(command, stdout=quiet, stderr=quiet, env=environment))
        return psutil.Process(started[-1].pid)

    distributed = pytest.importorskip("distributed")
    worker = ("worker", "--nthreads", "1", "--no-nanny", "--local-directory", str(folder))
    try:
        processes = {"scheduler": start("scheduler", "--host", "127.0.0.1", "--port", "0")}
        while not (told.exists() and told.read_text().endswith("}")):
            assert started[0].poll() is None
            time.sleep(0.05)
        address = json.loads(told.read_text())["address"]
        for number in range(2):
            processes[f"worker {number}"] = start(*worker, "--memory-limit", str(memory_limit))
        with distributed.Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield address, processes
    finally:
        for process in reversed(started):
            process.kill()
        for process in started:
            process.wait()


@pytest.mark.parametrize("mode", ["exact", "blocked"])
def test_workers_elsewhere_keep_to_their_tasks_and_the_scheduler_to_messages(
    mode: str, folder: Path, tmp_path: Path
) -> None:
    asked = least(folder, "large", mode)
    plan = asked.allowed.plan
    task = max(asked.allowed.task_bytes, least(folder, "small", mode).allowed.task_bytes)
    # With no more, a worker has nothing to keep pixels in; in exact mode it shall hold its rows.
    most = most_gaussians(plan.gaussians, settings(mode))
    kept = held_bytes(most, asked.meta.channels, WORKERS) if mode == "exact" else 0
    with cluster(tmp_path, 2 * (PROGRAM + task + kept) if kept else PROGRAM + task) as (address, processes):
        seen = watch(folder, "large", mode, asked.limit, processes, address)
    require_projected(asked, seen, LONG | {"ingest", *(["finish"] if mode == "exact" else [])})
    assert excess(seen.growth("client"), asked.arrays) == {}
    copying, judging = passing(asked.meta, plan, 1)
    bytes_of = {"copying": copying, "sampling": task, "fitting": plan.task_bytes, "verifying": judging}
    allowed = {what: size + kept for what, size in bytes_of.items()}
    workers = processes.keys() - {"scheduler"}
    assert {name: over for name in workers if (over := excess(seen.growth(name), allowed))} == {}
    # Tasks under way, each as it came and as it goes on.
    messages = 2 * (4 * len(workers) + 4) * MESSAGE
    assert excess(seen.growth("scheduler"), dict.fromkeys(bytes_of, messages)) == {}


if __name__ == "__main__":
    main(*sys.argv[1:])
