"""Where tasks run: threads of this process, a local dask cluster with its dashboard, or a cluster somewhere else."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from smartsplat_large import native_threads
from smartsplat_large.errors import MissingDependencyError, UsageError
from smartsplat_large.progress import Progress

if TYPE_CHECKING:
    from smartsplat_large.dashboard import Record

_SMALLEST_PART = 2048
"""Rows that are worth a thread's waking up."""
T = TypeVar("T")
Item = TypeVar("Item")
R = TypeVar("R")

_LARGE_GRAPH = "distributed.admin.large-graph-warning-threshold"
_WORTH_SCHEDULING = 16
"""Fewer tasks than this are run by threads even when a local cluster is there: a task costs dask about 1 ms."""


class Workers:
    """Runs the same function over many items, in order of the items, on ``count`` workers.

    While it is open, graphs computed with dask run on the same workers.
    """

    def __init__(
        self, threads: ThreadPoolExecutor, count: int, client: Any | None, remote: bool, record: Record | None = None
    ) -> None:
        self.count = count
        self.record = record
        """Is told of blocks, where anybody may look."""
        self._client = client
        self._remote = remote
        self._threads = threads

    def map(
        self, function: Callable[[T, Item], R], shared: T, items: Collection[Item], *, short: bool = False
    ) -> Iterator[R]:
        """Yield ``function(shared, item)`` for every item, in order; ``shared`` travels once to each worker.

        ``short`` tasks, of a few milliseconds, are left to threads unless the workers are elsewhere. Items are asked for
        shortly before their turn: they may be made then. Each travels with its task alone, so a task can be run again.
        """
        submit: Callable[..., Any]
        worth = len(items) >= _WORTH_SCHEDULING and not short
        if self._client is None or not (self._remote or worth):
            threads: Any = self._threads
            submit = functools.partial(threads.submit, function, shared)
        else:
            everywhere = self._client.scatter(shared, broadcast=self._remote, hash=False)
            submit = functools.partial(_submit_alone, self._client, function, everywhere)
        yield from _in_order(submit, items, ahead=4 * self.count + 4)

    def spread(self, function: Callable[[slice], Any], count: int) -> None:
        """Call ``function`` with slices that part ``range(count)``, on this machine's threads."""
        parts = max(1, min(self.count, count // _SMALLEST_PART))
        edges = [count * part // parts for part in range(parts + 1)]
        list(self._threads.map(function, map(slice, edges[:-1], edges[1:])))


def _submit_alone(client: Any, function: Callable[..., Any], shared: Any, item: Any) -> Any:
    # By the function's own name: it is what the dashboard shows.
    key = f"{function.__name__}-{uuid.uuid4().hex}"
    return client.submit(_alone, function, shared, item, key=key, pure=False)


def _alone(function: Callable[[T, Item], R], shared: T, item: Item) -> R:
    """A task in a process that may be elsewhere."""
    with native_threads.blas_alone:
        return function(shared, item)


def _in_order(submit: Callable[[Any], Any], items: Iterable[Any], ahead: int) -> Iterator[Any]:
    """Results in order, with at most ``ahead`` tasks submitted and not yet taken, so that they never pile up."""
    pending: deque[Any] = deque()
    try:
        for item in items:
            pending.append(submit(item))
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def default_count() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def open_workers(
    count: int | None, *, scheduler: str | None = None, dashboard: bool = False, record: Record | None = None,
    progress: Progress,
) -> Iterator[Workers]:  # fmt: skip
    """Workers for the length of a ``with`` block, each of them one busy thread: see :mod:`.native_threads`.

    Parameters
    ----------
    count
        Threads of this process; None for all its cores. Ignored with ``scheduler``.
    scheduler
        Address of a running dask scheduler whose workers see the same files.
    dashboard
        Run tasks on a local dask cluster and announce its dashboard; quietly without, where its packages are missing.
    record
        What a page of our own shows, which is announced beside the dashboard of dask.

    Raises
    ------
    MissingDependencyError
        A scheduler is given and ``distributed`` is not installed.
    UsageError
        No scheduler answers at the address, or it has no workers.
    """
    count = count or default_count()
    with contextlib.ExitStack() as stack:
        stack.enter_context(native_threads.blas_alone)
        client = None
        if scheduler:
            client = stack.enter_context(_connect(scheduler))
            count = sum(worker["nthreads"] for worker in client.scheduler_info(n_workers=-1)["workers"].values())
            if not count:
                raise UsageError(
                    f"the scheduler at {scheduler} has no workers", hint="start some with: dask worker ADDRESS"
                )
            progress.note(f"dask dashboard: {client.dashboard_link}")
        elif dashboard and has_dashboard():
            client, address = stack.enter_context(_local_cluster(count))
            progress.note(f"dask dashboard: {address}")
        if client is None or not has_dashboard():
            record = None
        if record is not None:
            # Imported late: whoever asks for help waits for this module, not for numpy.
            from smartsplat_large.dashboard import served

            progress.note(f"progress of the fit: {stack.enter_context(served(record, client))}")
        threads = ThreadPoolExecutor(count, thread_name_prefix="smartsplat")
        stack.callback(threads.shutdown, wait=True, cancel_futures=True)
        if client is None:
            import dask

            stack.enter_context(dask.config.set(pool=threads, scheduler="threads"))
        yield Workers(threads, count, client, remote=scheduler is not None, record=record)


def has_dashboard() -> bool:
    """Whether the packages of the dashboard are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("distributed", "bokeh"))


@contextlib.contextmanager
def _connect(address: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingDependencyError(
            "--scheduler needs the package distributed", hint="pip install 'smartsplat-large[dashboard]'"
        ) from error
    import dask

    try:
        # Not as default: a client that cannot connect would leave a setting behind, even when it is collected.
        client = Client(address, timeout=10, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise UsageError(f"no dask scheduler answers at {address}", hint="start one with: dask scheduler") from error
    # Tasks that carry Gaussians are some MiB long, on purpose.
    with client, dask.config.set({"scheduler": client, _LARGE_GRAPH: "1GiB"}):
        yield client


@contextlib.contextmanager
def _local_cluster(threads: int) -> Iterator[tuple[Any, str]]:
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
        warnings.filterwarnings("ignore", message="Port .* is already in use")
        with (
            LocalCluster(
                n_workers=1, threads_per_worker=threads, processes=False, memory_limit=0,
                dashboard_address="127.0.0.1:8787", silence_logs=logging.ERROR,
            ) as cluster,
            Client(cluster) as client,
        ):  # fmt: skip
            # The cluster's own link names the machine's outer address, while the server listens on loopback.
            yield client, f"http://127.0.0.1:{cluster.scheduler.http_server.port}/status"
