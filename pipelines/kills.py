"""Kills a fit's client, a dask worker or the dask scheduler at random moments, resumes, and compares the files' bytes.

    python pipelines/kills.py [--kills 20] [--seed 0] [--roles client worker scheduler] [--modes exact blocked]
                              [--size 320x240] [--steps 16] [--json FILE]

Runs in the environment that pipelines/check.py sets up. Every mode is fitted once without a kill, here and on a cluster of a
scheduler and two workers; both files must be the same. Then each kill hits another fit, by SIGKILL: at a random moment of a
stage (the first: when it begins), stages and roles in turn, so that nine stages and three roles meet
once each in 27 kills. What was killed of the cluster is started again, and the fit is resumed until it ends, every other time
of those on the cluster without it. Ends with 1 if a file differs or a fit does not end.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from reporting import fixed, guarded, note, parse_size, parser, publish, table
from synthetic import write_mosaic

from smartsplat_large.config import FitConfig, preset
from smartsplat_large.errors import MemoryLimitError
from smartsplat_large.lattice import Size
from smartsplat_large.memory import MiB
from smartsplat_large.source import open_source
from smartsplat_large.streaming.allowance import allow

ROLES = ("client", "worker", "scheduler")
WORKERS = 2
RATIO = 200.0
"""So that there is a coarse level, and a working copy is needed."""
COMMIT_S = 0
"""The state is saved after every step, so that a short fit has something to go on from."""
MOST_RESUMES = 3
MOST_ATTEMPTS = 5
WAIT_S = 120.0
"""A client that takes longer hangs."""


@dataclass(frozen=True, slots=True)
class Row:
    """One kill, and what became of the fit."""

    kill: int
    role: str
    mode: str
    stage: str
    """Under way when the process was killed."""
    saved: str
    """The last commit at that time."""
    client: str
    """How the client took it: killed, went on, its exit code, or that it hung and was killed, too."""
    resumes: int
    there: str
    """Where it was resumed."""
    identical: bool
    killed_cpu_s: float | None
    """Processor seconds of the client that was killed, here without a cluster."""
    resumed_cpu_s: float | None
    """Those of the fits that went on from there."""


@dataclass(slots=True)
class Run:
    """A fit under way, as a process; its progress is read by a thread."""

    process: subprocess.Popen[str]
    lines: list[tuple[float, str]] = field(default_factory=list)
    reader: threading.Thread = field(init=False)
    seconds: float = 0.0
    hung: bool = False

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend((time.monotonic(), line.rstrip()) for line in self.process.stderr)

    @property
    def ended(self) -> list[tuple[str, float]]:
        """The stages that are over, and when they were; of several of one name each."""
        found = ((re.fullmatch(r"([a-z ]+): \d.* in [\d.:]+(?: s)?(?:, .*)?", line), at) for at, line in self.lines[:])
        return [(match[1], at) for match, at in found if match]

    @property
    def goes_on(self) -> bool:
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def wait(self) -> int:
        """Return its exit code, and take its processor seconds."""
        deadline = time.monotonic() + WAIT_S
        while self.goes_on and time.monotonic() < deadline:
            time.sleep(0.01)
        self.hung = self.goes_on
        # By its number: it may have ended, and must not be waited for twice.
        os.kill(self.process.pid, signal.SIGKILL)
        _, status, usage = os.wait4(self.process.pid, 0)
        self.seconds = usage.ru_utime + usage.ru_stime
        self.reader.join()
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return self.process.returncode


@dataclass(slots=True)
class Cluster:
    """A scheduler and its workers as processes, each of which may be killed and started again."""

    folder: Path
    processes: dict[str, psutil.Popen] = field(default_factory=dict)
    spent_s: float = 0.0
    """Processor seconds of those that were killed."""

    def start(self) -> None:
        """Whatever does not run; ready when the scheduler knows all workers. Workers do not outlive their scheduler."""
        if "scheduler" not in self.processes:
            self.stop()
            self._launch(
                "scheduler", "dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show"
            )
        for name in (f"worker {number}" for number in range(WORKERS)):
            if name not in self.processes:
                self._launch(name, "dask_worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory",
                             str(self.folder))  # fmt: skip
        from distributed import Client

        with Client(self.address, timeout=WAIT_S, set_as_default=False) as client:
            client.wait_for_workers(WORKERS, timeout=WAIT_S)

    @property
    def address(self) -> str:
        """Of the scheduler, once it has written its file."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError, KeyError):
                return str(json.loads(self._contact.read_text())["address"])
            time.sleep(0.1)
        raise SystemExit("the dask scheduler does not start")

    @property
    def seconds(self) -> float:
        """Processor seconds of all processes so far."""
        return self.spent_s + sum(_seconds(process) for process in self.processes.values())

    def stop(self) -> None:
        for name in list(self.processes):
            self.kill(name)

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        self.spent_s += _seconds(process)
        process.kill()
        process.wait()

    @property
    def _contact(self) -> Path:
        return self.folder / "scheduler.json"

    def _launch(self, name: str, module: str, *options: str) -> None:
        if name == "scheduler":
            self._contact.unlink(missing_ok=True)
        else:
            assert self.address
        self.processes[name] = psutil.Popen(
            [sys.executable, "-m", f"distributed.cli.{module}", "--scheduler-file", str(self._contact), *options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.folder,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Whole:
    """A fit without a kill."""

    content: bytes
    seconds: float
    stages: tuple[tuple[str, float], ...]
    """In order, with the seconds they take."""


@dataclass(slots=True)
class Trials:
    """What all kills share."""

    folder: Path
    picture: Path
    options: dict[str, tuple[str, ...]]
    """Of the command, by mode."""
    cluster: Cluster
    random: random.Random

    def whole(self, mode: str, there: str) -> Whole:
        """Fit once without a kill."""
        output, before, began = self._output(), self.cluster.seconds, time.monotonic()
        run = self._begin(output, mode, there)
        if run.wait():
            raise SystemExit("\n".join(line for _, line in run.lines))
        seconds = run.seconds + self.cluster.seconds - before
        ends = [began, *(at for _, at in run.ended)]
        stages = tuple((name, at - last) for (name, at), last in zip(run.ended, ends, strict=False))
        return Whole(output.read_bytes(), seconds, stages)

    def kill(self, number: int, place: int, role: str, mode: str, there: str, whole: Whole, same: bytes) -> Row:
        """Begin a fit, kill in the stage of that place, resume until it ends."""
        run, output = self._begun(mode, there, place, whole)
        stage, saved = self._stage(run, whole), _saved(output)
        self._kill(role, run)
        code, busy = run.wait(), 0.0
        killed = run.seconds
        client = {0: "went on", -signal.SIGKILL: "killed"}.get(code, f"exit code {code}") if not run.hung else "hung"
        note(f"kill {number}: {role} in {stage}, {client}" + ("" if code <= 0 else f": {run.lines[-2:]}"))
        resumes, where = 0, "-"
        if there == "cluster":
            self.cluster.start()
        while code and resumes < MOST_RESUMES:
            resumes += 1
            where = there if number % 2 else "here"
            run = self._begin(output, mode, where, "--resume")
            code, busy = run.wait(), busy + run.seconds
        spent = (killed, busy) if there == "here" else (None, None)
        identical = not code and output.read_bytes() == same
        if not identical:
            note("\n".join(line for _, line in run.lines))
        return Row(number, role, mode, stage, saved, client, resumes, where, identical, *spent)

    def _begun(self, mode: str, there: str, place: int, whole: Whole) -> tuple[Run, Path]:
        """A fit at a random moment of the stage of that place; if it was faster than before, another one, earlier."""
        length = whole.stages[place][1] if place else 0.0
        for attempt in range(MOST_ATTEMPTS):
            output = self._output()
            run = self._begin(output, mode, there)
            self._await(run, place, output)
            time.sleep(self.random.uniform(0, length) / 2**attempt)
            if run.goes_on:
                return run, output
            run.wait()
        raise SystemExit(f"{whole.stages[place][0]}: over before anything could be killed")

    def _output(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder)) / "picture.ssplat"

    def _begin(self, output: Path, mode: str, there: str, *more: str) -> Run:
        where = ("--scheduler", self.cluster.address) if there == "cluster" else ()
        environment = os.environ | {"TMPDIR": str(output.parent), "SMARTSPLAT_COMMIT_S": str(COMMIT_S)}
        process = subprocess.Popen(
            [sys.executable, "-m", "smartsplat_large", "fit", str(self.picture), "-o", str(output), *self.options[mode],
             *where, *more],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        return Run(process)

    def _await(self, run: Run, place: int, output: Path) -> None:
        """Return when the stage of that place has begun, or the fit has ended; the first begins with a working copy."""
        while run.goes_on:
            with contextlib.suppress(FileNotFoundError):
                if len(run.ended) >= place and (place or any(output.parent.glob("smartsplat-*/working-copy.zarr.*"))):
                    return
            time.sleep(0.001)

    def _stage(self, run: Run, whole: Whole) -> str:
        done = len(run.ended)
        return whole.stages[done][0] if done < len(whole.stages) else "end"

    def _kill(self, role: str, run: Run) -> None:
        if role == "client":
            os.kill(run.process.pid, signal.SIGKILL)
        else:
            self.cluster.kill("scheduler" if role == "scheduler" else f"worker {self.random.randrange(WORKERS)}")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--kills", type=int, default=20)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--roles", nargs="+", choices=ROLES, default=list(ROLES))
    arguments.add_argument("--modes", nargs="+", choices=("exact", "blocked"), default=["exact", "blocked"])
    arguments.add_argument("--size", type=parse_size, metavar="WxH", default=Size(320, 240))
    arguments.add_argument("--steps", type=int, default=16)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="smartsplat-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        write_mosaic(folder / "picture.npy", given.size)
        for mode in given.modes:
            (folder / f"{mode}.toml").write_text(f'mode = "{mode}"\nsteps_per_visit = 4\nrelocate_every = 8\n')
        config = preset("balanced").replace(steps=given.steps, ratio=RATIO)
        usual = ("--steps", str(given.steps), "--ratio", str(RATIO), "--no-dashboard", "--workers", str(WORKERS))
        options: dict[str, tuple[str, ...]] = {mode: (*usual, "--config", str(folder / f"{mode}.toml"), "--memory",
                          str(_least_memory(folder / "picture.npy", config.replace(mode=mode))))
                   for mode in given.modes}  # fmt: skip
        cluster = Cluster(folder)
        stack.callback(cluster.stop)
        if {*given.roles} - {"client"}:
            cluster.start()
        trials = Trials(folder, folder / "picture.npy", options, cluster, random.Random(given.seed))
        rows, alone = _rows(trials, given.kills, given.roles, given.modes)
    publish(_report(rows, alone), given.json, rows, seed=given.seed, size=str(given.size), steps=given.steps,
            whole_cpu_s=alone)  # fmt: skip
    raise SystemExit(not all(row.identical for row in rows))


def _rows(trials: Trials, kills: int, roles: list[str], modes: list[str]) -> tuple[list[Row], dict[str, float]]:
    """All kills; and the processor seconds of fits without, by place and mode."""
    places = {"client": "here", "worker": "cluster", "scheduler": "cluster"}
    whole = {key: trials.whole(*key) for key in itertools.product(modes, sorted({places[role] for role in roles}))}
    for (mode, there), made in whole.items():
        note(
            f"{mode}, {there}: {made.seconds:.1f} processor seconds; "
            + ", ".join(f"{n} {s:.2f} s" for n, s in made.stages)
        )
    same = {mode: next(made.content for key, made in whole.items() if key[0] == mode) for mode in modes}
    if any(made.content != same[mode] for (mode, _), made in whole.items()):
        raise SystemExit("the cluster makes another file")
    rows = []
    for number in range(kills):
        role, mode = roles[number % len(roles)], modes[number // len(roles) % len(modes)]
        there = places[role]
        made = whole[mode, there]
        place = place_of(number, len(made.stages), len(roles))
        rows.append(trials.kill(number, place, role, mode, there, made, same[mode]))
    return rows, {f"{mode}, {there}": made.seconds for (mode, there), made in whole.items()}


def place_of(number: int, stages: int, roles: int) -> int:
    """The stage of a kill, by its place: roles take turns, too, and meet each stage once in ``stages * roles`` kills."""
    return (number + number // math.lcm(stages, roles)) % stages


def _report(rows: list[Row], alone: dict[str, float]) -> str:
    without = "; ".join(f"{name} {seconds:.1f}" for name, seconds in alone.items())
    return f"Processor seconds without a kill: {without}\n\n" + table(
        ("kill", "role", "mode", "stage", "saved", "client", "resumes", "where", "identical", "killed CPU s", "resumed CPU s"),
        [
            (row.kill, row.role, row.mode, row.stage, row.saved, row.client, row.resumes, row.there,
             "yes" if row.identical else "NO",
             fixed(row.killed_cpu_s, 1), fixed(row.resumed_cpu_s, 1))
            for row in rows
        ],
    )  # fmt: skip


def _least_memory(picture: Path, config: FitConfig) -> int:
    """Bytes with which a fit is not refused, and must put its working copy on disk."""
    with open_source(picture) as source:
        meta = source.meta

    def suffices(limit: int) -> bool:
        try:
            allow(meta, config, limit, WORKERS)
        except MemoryLimitError:
            return False
        return True

    return next(limit for limit in itertools.count(MiB, MiB // 16) if suffices(limit))


def _saved(output: Path) -> str:
    """What the last commit beside ``output`` holds."""
    with contextlib.suppress(OSError, ValueError, LookupError):
        marker = json.loads(json.loads((output.parent / f"{output.name}.state" / "commit.json").read_text())["body"])
        if marker["output"]:
            return "output"
        last = marker["commits"][0]
        place = last["values"].get("place")
        if place is None:
            return str(last["stage"])
        return f"{place['taken']} steps" + (f", {place['group']} of 4 colours" if place["group"] else "")
    return "-"


def _seconds(process: psutil.Popen) -> float:
    with contextlib.suppress(psutil.Error):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0


if __name__ == "__main__":
    guarded(main)
