"""dask clusters: a local one with its dashboard, or one somewhere else, and what a task does that arrives there.

A task that is sent elsewhere holds all that it needs, pixels apart: a function, what all tasks share, and its items. So it can
be run again, by any worker, when the one that had it is lost. Only the tasks of :mod:`.stretch` leave something on a worker
that the next one needs there, and say so if it is gone.

A worker may come at any time, and dask lets it take over what waits at others. Where its memory does not hold that, the task
gives itself back, and is sent again. To name those who may have it would not do: dask would wait for them when all are gone.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import math
import pickle
import socket
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smartsplat_large import native_threads
from smartsplat_large.errors import MissingDependencyError, UsageError
from smartsplat_large.memory import PROGRAM, Footprint, MiB, require

_USUAL_PORT = 8787
_LARGE_GRAPH = "distributed.admin.large-graph-warning-threshold"
_LOG = {"distributed.admin.low-level-log-length": 4}
"""Messages that dask's client keeps after it has sent them, the rows in them included: 1000 of up to a MB each, unless told."""
_RETRIES = 2
"""Of a task that fails elsewhere: what it reads may be out of reach for a moment. The tasks of a lost worker do not count."""
_PRIORITY = -1
"""Of all tasks elsewhere: a fit runs for hours, and those of other clients, which have 0, go first. Among its own, and those of
other fits, the order of submission decides."""
MEMORY = "memory"
"""The resource, in bytes, that tasks ask for where all workers were started with it: ``dask worker --resources memory=8e9``."""
_BETWEEN_LOOKS_S = 1.0
"""Where no worker is there that holds what is to be done."""
_KEPT = 8
"""What so many sets of tasks share is kept open on a worker."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is sent, and comes back from a worker without the memory for it."""

    function: Callable[[Any, Any], Any]
    shared: bytes
    items: Any
    worker: str
    """Address of the one that should have it, unless it is busy or gone; empty: any that has the resources."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A dask cluster, connected."""

    client: Any
    remote: bool
    """Whether its workers are other processes."""
    slots: int
    """Tasks that all workers together have in work."""
    dashboard: str
    """Address."""
    workers: tuple[str, ...] = ()
    """Address of the worker of each slot, where they are elsewhere."""
    spare_bytes: int = 0
    """What each of these may keep between tasks."""
    token: str = ""
    """No other client has it."""
    counted: bool = False
    """Whether tasks ask for memory as a resource."""
    task_bytes: int = 0
    """What a task may take at its peak."""

    def slots_now(self) -> list[str]:
        """The address of the worker of each slot, of those workers that are there and take tasks."""
        fit = {name: worker for name, worker in self._present().items() if self._is_fit(worker)}
        return [name for name, worker in fit.items() for _ in range(worker["nthreads"])]

    def _present(self) -> Mapping[str, Mapping[str, Any]]:
        workers: Mapping[str, Mapping[str, Any]] = self.client.scheduler_info(n_workers=-1)["workers"]
        return workers

    def _is_fit(self, worker: Mapping[str, Any]) -> bool:
        """Whether a worker does what is meant for it: not one that pauses, or has not what tasks ask for, or take."""
        if worker["status"] != "running" or (self.counted and MEMORY not in worker["resources"]):
            return False
        return has_room(worker["memory_limit"], worker["nthreads"], self.task_bytes, self.spare_bytes)

    def _is_mixed(self) -> bool:
        """Whether tasks ask for what a worker lacks: dask lets it take them over from those they prefer, and break down."""
        return self.counted and not all(MEMORY in worker["resources"] for worker in self._present().values())

    def sender(
        self, function: Callable[[Any, Any], Any], shared: Any, workers: Sequence[str] = ()
    ) -> Callable[[int, Sequence[Any]], Any]:
        """Submits ``function(shared, item)`` for some items, as one task; a future of their results.

        Tasks are numbered: those of one number go to the same worker if it is free, which may have kept their pixels.
        ``workers`` are those of the slots, by default all that were there at first.
        """
        preferred = workers or ([""] if self._is_mixed() else self.workers)
        # Files of the same name may be others in the next run.
        packed = pickle.dumps((self.token, shared), protocol=5)

        def send(number: int, items: Sequence[Any]) -> Any:
            return self._send(Task(function, packed, _packed(items), preferred[number % len(preferred)]))

        return send

    def _send(self, task: Task, among: Sequence[str] = (), **how: Any) -> Any:
        """Submit a task, for its worker if that is one of those that are named, or else for any of them."""
        workers = among if among and task.worker not in among else [task.worker]
        where = {} if workers == [""] else {"workers": list(workers), "allow_other_workers": True}
        return self._submit(task.function.__name__, carry_out, task, self.task_bytes, self.spare_bytes, **where, **how)

    def fetch(self, futures: Sequence[Any]) -> Iterator[Any]:
        """Results of such tasks, item by item."""
        done = self.client.gather(list(futures))
        while any(isinstance(results, Task) for results in done):
            while not (slots := self.slots_now()):
                time.sleep(_BETWEEN_LOOKS_S)
            # Before those that were sent later, and after those of others.
            again = [self._send(r, slots, priority=_PRIORITY / 2) if isinstance(r, Task) else None for r in done]
            done = [r if future is None else future.result() for r, future in zip(done, again, strict=True)]
        for results in done:
            yield from pickle.loads(results)

    def local_sender(self, job: Callable[[Any], Any], name: str) -> Callable[[Any], Any]:
        """Submits calls of ``job``, which does not travel, to workers of this process; a future of each result."""
        here = self.client.scatter(job, broadcast=False, hash=False)
        return functools.partial(self._submit, name, _call, here)

    def _submit(self, name: str, function: Callable[..., Any], *arguments: Any, **where: Any) -> Any:
        # By the function's own name: it is what the dashboard shows.
        key = f"{name}-{uuid.uuid4().hex}"
        # By default, a worker takes the latest first of what was submitted within 100 ms; results are waited for in order.
        return self.client.submit(function, *arguments, key=key, pure=False, fifo_timeout=0, **where)


def carry_out(task: Task, task_bytes: int, kept_bytes: int) -> Any:
    """Results of a task, in a process elsewhere; or the task, if its memory is too small. Both items and results are packed."""
    from distributed import get_worker

    worker = get_worker()
    if not has_room(worker.memory_manager.memory_limit, worker.state.nthreads, task_bytes, kept_bytes):
        return task
    shared = _unpacked(task.shared)
    with native_threads.blas_alone:
        return _packed([task.function(shared, item) for item in pickle.loads(task.items)])


def _packed(values: Sequence[Any]) -> Any:
    """Any values as one array of bytes, which a scheduler hands on without a look at it or a copy."""
    import numpy as np

    return np.frombuffer(pickle.dumps(values, protocol=5), np.uint8)


def _call(job: Callable[[int], Any], index: int) -> Any:
    return job(index)


_opened: OrderedDict[bytes, Any] = OrderedDict()
_turn = threading.Lock()


def _unpacked(packed: bytes) -> Any:
    """What tasks share, made once in a process: it may have to open files."""
    with _turn:
        if packed not in _opened:
            _opened[packed] = pickle.loads(packed)[1]
            if len(_opened) > _KEPT:
                _opened.popitem(last=False)
        _opened.move_to_end(packed)
        return _opened[packed]


def has_dashboard() -> bool:
    """Whether the packages of the dashboard are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("distributed", "bokeh"))


@contextlib.contextmanager
def reported(cluster: Cluster, path: Path) -> Iterator[None]:
    """Write dask's performance report of all that runs inside the ``with`` block when it ends: a page that needs no network."""
    from distributed import performance_report

    with cluster.client.as_current(), performance_report(filename=str(path), mode="inline"):
        yield


@contextlib.contextmanager
def connected(address: str, task_bytes: int) -> Iterator[Cluster]:
    """The cluster of a running scheduler, which graphs computed with dask run on, too, while it is open.

    ``task_bytes`` is what a task may take at its peak.

    Raises
    ------
    MissingDependencyError
        ``distributed`` is not installed.
    UsageError
        No scheduler answers, or it has no workers.
    MemoryLimitError
        The memory of a worker does not hold as many tasks as it has threads.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingDependencyError(
            "--scheduler needs the package distributed", hint="pip install 'smartsplat-large[dashboard]'"
        ) from error
    import dask

    try:
        with dask.config.set(_LOG):
            # Not as default: a client that cannot connect would leave a setting behind, even when it is collected.
            client = Client(address, timeout=10, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise UsageError(f"no dask scheduler answers at {address}", hint="start one with: dask scheduler") from error
    # Tasks that carry Gaussians are some MiB long, on purpose.
    with client, dask.config.set({"scheduler": client, _LARGE_GRAPH: "1GiB"} | _LOG):
        workers = client.scheduler_info(n_workers=-1)["workers"]
        if not workers:
            raise UsageError(
                f"the scheduler at {address} has no workers", hint=f"start some with: dask worker {address}"
            )
        spare = min(_spare_bytes(name, worker, task_bytes) for name, worker in workers.items())
        token = uuid.uuid4().hex
        slots = tuple(name for name, worker in workers.items() for _ in range(worker["nthreads"]))
        counted = all(MEMORY in worker["resources"] for worker in workers.values())
        resources = {"resources": {MEMORY: task_bytes}} if counted else {}
        with dask.annotate(priority=_PRIORITY, retries=_RETRIES, **resources):
            try:
                yield Cluster(client, True, len(slots), client.dashboard_link, slots, spare, token, counted, task_bytes)
            finally:
                # Of workers that are gone, nothing is left to give up.
                with contextlib.suppress(Exception):
                    client.run(_forget, token, on_error="ignore", wait=False)


def has_room(limit: int | None, threads: int, task_bytes: int, kept_bytes: int) -> bool:
    """Whether a worker's memory holds a task for each of its threads and what is kept between tasks; true without a limit."""
    return not limit or _needed(threads, task_bytes).total + kept_bytes <= limit


def _needed(threads: int, task_bytes: int) -> Footprint:
    return Footprint(program=PROGRAM, gaussians=0, working=threads * task_bytes)


def _spare_bytes(name: str, worker: Mapping[str, Any], task_bytes: int) -> int:
    """What half of a worker's memory leaves beside its tasks; none where it has no limit.

    Raises
    ------
    MemoryLimitError
        Its memory does not hold its tasks.
    """
    limit, threads = worker["memory_limit"], worker["nthreads"]
    needed = _needed(threads, task_bytes)
    hint = f"dask worker --memory-limit {math.ceil(needed.total / MiB)}MiB, or fewer --nthreads"
    require(needed, limit or needed.total, f"the worker at {name}, of {threads} threads,", hint=hint)
    return max(0, (limit or 0) // 2 - needed.total)


async def _forget(token: str) -> None:
    """Give up all that was kept open in this process, the pixels, and what is held for a client.

    dask waits for none but coroutines.
    """
    from smartsplat_large.streaming import holding, targets

    holding.forget(token)
    with _turn:
        _opened.clear()
    targets.forget()


@contextlib.contextmanager
def local_cluster(threads: int) -> Iterator[Cluster]:
    """A cluster of one in-process worker, so that tasks share this process's memory and its limit."""
    import logging
    import tempfile
    import warnings

    import dask
    from distributed import Client, LocalCluster

    settings = {_LARGE_GRAPH: "1GiB", "distributed.worker.memory.pause": False,
                "distributed.worker.memory.spill": False, "distributed.worker.memory.target": False}  # fmt: skip
    with contextlib.ExitStack() as stack:
        # Its own folder, or the cluster would leave its lock files in the temporary folder of the machine.
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="smartsplat-", ignore_cleanup_errors=True))
        stack.enter_context(dask.config.set(settings | {"temporary-directory": scratch}))
        stack.enter_context(warnings.catch_warnings())
        # Somebody may take the port in between; then dask takes another one.
        warnings.filterwarnings("ignore", message="Port .* is already in use")
        with (
            LocalCluster(
                n_workers=1, threads_per_worker=threads, processes=False, memory_limit=0,
                dashboard_address=f"127.0.0.1:{_dashboard_port()}", silence_logs=logging.ERROR,
            ) as cluster,
            Client(cluster) as client,
        ):  # fmt: skip
            # The cluster's own link names the machine's outer address, while the server listens on loopback.
            dashboard = f"http://127.0.0.1:{cluster.scheduler.http_server.port}/status"
            yield Cluster(client, False, threads, dashboard)


def _dashboard_port() -> int:
    """dask's usual one, or 0, any, where that is taken: dask would try it all the same, and leave a socket open."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", _USUAL_PORT))
        except OSError:
            return 0
    return _USUAL_PORT
