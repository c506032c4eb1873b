"""A fit on a dask cluster of this machine: one worker, two, and two of which one is killed on the way.

    python pipelines/cluster.py [PICTURE] [--megapixels 16] [--preset fast] [--ratio 50] [--steps N] [--runs ...] [--json FILE]

Runs in the environment that pipelines/check.py sets up. Without a picture it fits the bundled photograph, laid out mirrored.
For every run a scheduler and its workers, ``dask worker --nthreads 1``, are started on free ports, and warmed by a fit of two
steps, which loads all kernels; the fit is the command, with ``--scheduler``. Files are compared with that of a fit without a
cluster, byte by byte; it exits with 1 if one differs.

"seconds" are those of a clock, and only mean something on a machine that does nothing else: "others" says how many seconds
of processors were spent by programs that are not measured here. CPU seconds do not depend on them. "speed-up" is by the
clock; "by CPU" takes for every run the CPU seconds of client, scheduler and the busiest worker, as if never two of
them had worked at a time, as on machines of their own that wait for one another.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from reporting import fixed, guarded, note, parser, publish, table
from synthetic import write_mosaic

from smartsplat_large.lattice import Size

RUNS = ("here", "one", "two", "killed")
_PATIENCE_S = 60


@dataclass(slots=True)
class Row:
    """One fit."""

    run: str
    seconds: float
    client_s: float
    """CPU seconds, as all below."""
    scheduler_s: float = 0.0
    workers_s: list[float] = field(default_factory=list)
    others_s: float = 0.0
    same: bool = True

    @property
    def path_s(self) -> float:
        """CPU seconds along the way, if client, scheduler and workers took turns."""
        return self.client_s + self.scheduler_s + max(self.workers_s, default=0.0)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("picture", nargs="?", type=Path)
    arguments.add_argument("--megapixels", type=float, default=16.0)
    arguments.add_argument("--preset", default="fast")
    arguments.add_argument("--ratio", type=float, default=50.0)
    arguments.add_argument("--steps", type=int)
    arguments.add_argument("--runs", nargs="+", choices=RUNS, default=RUNS)
    given = arguments.parse_args()
    quality = ["--preset", given.preset, "--ratio", str(given.ratio)]
    quality += [] if given.steps is None else ["--steps", str(given.steps)]
    with tempfile.TemporaryDirectory(prefix="smartsplat-") as name:
        folder = Path(name)
        picture = given.picture or mosaic(folder, given.megapixels)
        rows = list(measured(given.runs, picture, quality, folder))
    publish(report(rows), given.json, rows, picture=picture.name, quality=quality)
    raise SystemExit(not all(row.same for row in rows))


def mosaic(folder: Path, megapixels: float) -> Path:
    """A square picture of so many megapixels."""
    side = round(math.sqrt(megapixels * 1e6))
    note(f"{side}x{side}: picture")
    write_mosaic(folder / "picture.tif", Size(side, side))
    return folder / "picture.tif"


def measured(runs: list[str], picture: Path, quality: list[str], folder: Path) -> Iterator[Row]:
    """A row a run; the first file is what the others are compared with."""
    first: bytes | None = None
    seconds = math.inf
    for run in runs:
        note(run)
        output = folder / f"{run}.ssplat"
        command = [sys.executable, "-m", "smartsplat_large", "fit", str(picture), "-o", str(output), *quality, "-q"]
        if run == "here":
            row = timed(run, [*command, "--no-dashboard"])
        else:
            with cluster(1 if run == "one" else 2, folder) as running:
                running.timed("warm", [*command, "--steps", "2", "--overwrite"])
                output.unlink()
                row = running.timed(run, command, kill_after=seconds / 2 if run == "killed" else None)
        seconds = row.seconds
        first = first or output.read_bytes()
        row.same = output.read_bytes() == first
        note(str(row))
        yield row


def timed(run: str, command: list[str]) -> Row:
    """What a command takes that works alone."""
    began, busy = time.perf_counter(), machine_s()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    cpu = usage.ru_utime + usage.ru_stime
    return Row(run, time.perf_counter() - began, cpu, others_s=machine_s() - busy - cpu)


def machine_s() -> float:
    """CPU seconds that the machine has spent on any work."""
    times = psutil.cpu_times()
    return float(times.user + times.system + getattr(times, "nice", 0.0))


@dataclass(frozen=True, slots=True)
class Cluster:
    """A scheduler and its workers, each a process that may have children."""

    address: str
    scheduler: psutil.Process
    workers: list[psutil.Process]

    def timed(self, run: str, command: list[str], kill_after: float | None = None) -> Row:
        """What a command takes here; ``kill_after`` so many seconds the first worker is killed."""
        before = [self.cpu_s(process) for process in (self.scheduler, *self.workers)]
        lost: list[float] = []
        timer = threading.Timer(kill_after or 0, lambda: lost.append(self.kill(self.workers[0])))
        if kill_after is not None:
            timer.start()
        row = timed(run, [*command, "--scheduler", self.address])
        timer.cancel()
        after = [self.cpu_s(process) for process in (self.scheduler, *self.workers[len(lost) :])]
        after[1:1] = lost
        row.scheduler_s, *row.workers_s = (end - start for start, end in zip(before, after, strict=True))
        row.others_s -= row.scheduler_s + sum(row.workers_s)
        return row

    @staticmethod
    def cpu_s(process: psutil.Process) -> float:
        """CPU seconds of a process and its children."""
        times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
        return float(sum(t.user + t.system for t in times))

    def kill(self, process: psutil.Process) -> float:
        """End a worker as a power cut would, along with the nanny that would start another; its CPU seconds."""
        spent = self.cpu_s(process)
        family = [process, *process.children(recursive=True)]
        for each in family:
            each.kill()
        note(f"killed a worker after {spent:.1f} CPU seconds")
        return spent


@contextlib.contextmanager
def cluster(workers: int, folder: Path) -> Iterator[Cluster]:
    """A scheduler and so many workers of one thread, ready to work, for the length of a ``with`` block."""
    told = folder / "scheduler.json"
    told.unlink(missing_ok=True)
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str) -> psutil.Process:
        command = [sys.executable, "-m", "dask", *arguments, "--scheduler-file", str(told), "--no-dashboard"]
        with (folder / f"{arguments[0]}-{len(started)}.log").open("wb") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log))
        return psutil.Process(started[-1].pid)

    try:
        scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0")
        address = json.loads(appeared(told))["address"]
        scratch = ("--local-directory", str(folder))
        processes = [start("worker", "--nthreads", "1", *scratch) for _ in range(workers)]
        await_workers(address, workers)
        yield Cluster(address, scheduler, processes)
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait()


def appeared(path: Path) -> str:
    """The text of a file that is about to be written."""
    for _ in range(_PATIENCE_S * 10):
        if path.exists() and (text := path.read_text()).rstrip().endswith("}"):
            return text
        time.sleep(0.1)
    raise SystemExit(f"{path} did not appear within {_PATIENCE_S} s")


def await_workers(address: str, count: int) -> None:
    """Return when so many workers are known to the scheduler."""
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=_PATIENCE_S)


def report(rows: list[Row]) -> str:
    """A row a run."""
    one = next((row for row in rows if row.run == "one"), None)
    heads = ("run", "seconds", "client CPU s", "scheduler CPU s", "workers CPU s", "others CPU s",
             "speed-up", "by CPU", "same file")  # fmt: skip
    return table(
        heads,
        [
            (
                row.run, fixed(row.seconds, 1), fixed(row.client_s, 1), fixed(row.scheduler_s, 1),
                " + ".join(fixed(s, 1) for s in row.workers_s) or "-", fixed(row.others_s, 1),
                fixed(one.seconds / row.seconds if one else None, 2),
                fixed(one.path_s / row.path_s if one and row.workers_s else None, 2), "yes" if row.same else "NO",
            )
            for row in rows
        ],
    )  # fmt: skip


if __name__ == "__main__":
    guarded(main)
