"""Where tasks run: threads of this process, a local dask cluster with its dashboard, or a cluster somewhere else."""

from __future__ import annotations

import contextlib
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from smartsplat_large import columns, native_threads
from smartsplat_large.progress import Progress
from smartsplat_large.streaming.cluster import Cluster, connected, has_dashboard, local_cluster, reported
from smartsplat_large.streaming.plan import TASK_PIXELS

if TYPE_CHECKING:
    from smartsplat_large.dashboard import Record

_SMALLEST_PART = 2048
"""Rows that are worth a thread's waking up."""
T = TypeVar("T")
Item = TypeVar("Item")
Item_co = TypeVar("Item_co", covariant=True)
R = TypeVar("R")

MEGAPIXEL = 1 << 20
_WORTH_SCHEDULING, _LONG = 16, MEGAPIXEL // 4
"""Fewer items than this, or of fewer pixels, are left to threads even when a local cluster is there: a task costs dask some
milliseconds, in which it keeps all threads of this process from Python."""
_TASKS_EACH = 2
"""Tasks that every slot of a cluster should get, if there are so many items."""
_FETCHED = 8
"""Results that are asked for together, at most."""


class Items(Protocol[Item_co]):
    """What tasks are made for: they may be put together when they are asked for, from several threads."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Item_co: ...


@dataclass(frozen=True, slots=True)
class Crew:
    """The slots of a cluster that are there at some moment, each of which may hold something from one task to the next."""

    cluster: Cluster
    slots: Sequence[str]
    """Address of the worker of each."""

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def client(self) -> str:
        """Tells what is held for this run from what is for others."""
        return self.cluster.token

    @property
    def most_each(self) -> int:
        """Slots of a worker, at most."""
        return max(Counter(self.slots).values())

    @property
    def room_bytes(self) -> int:
        """What a worker may hold for all its slots."""
        return self.cluster.spare_bytes

    def ask(self, function: Callable[[T, Item], R], shared: T, items: Mapping[int, Item]) -> list[R]:
        """``function(shared, item)`` of the items of some slots, each done there.

        Elsewhere, where that worker is gone, or has so much to do for other clients that one with nothing to do takes it over.
        """
        send = self.cluster.sender(function, shared, self.slots)
        return list(self.cluster.fetch([send(slot, [item]) for slot, item in items.items()]))


class Workers:
    """Runs the same function over many items, in order of the items.

    While it is open, graphs computed with dask run on the same workers.
    """

    def __init__(
        self, threads: ThreadPoolExecutor, count: int, cluster: Cluster | None, record: Record | None = None
    ) -> None:
        self.count = count
        """Threads of this process."""
        self.record = record
        """Is told of blocks, where anybody may look."""
        self._cluster = cluster
        self._threads = threads

    @property
    def remote(self) -> bool:
        """Whether tasks are sent to other processes."""
        return self._cluster is not None and self._cluster.remote

    @property
    def kept_elsewhere(self) -> int:
        """Bytes of pixels that every worker elsewhere may keep between tasks."""
        return self._cluster.spare_bytes if self._cluster is not None else 0

    def crew(self, held_bytes: Callable[[int], int]) -> Crew | None:
        """The slots of workers elsewhere, if there are several, and each has room for what is to be held of so many slots."""
        if self._cluster is None or not self._cluster.remote:
            return None
        crew = Crew(self._cluster, self._cluster.slots_now())
        has_room = len(crew) and crew.most_each * held_bytes(len(crew)) <= crew.room_bytes
        return crew if has_room else None

    def map(
        self, function: Callable[[T, Item], R], shared: T, items: Items[Item], *, pixels: int = MEGAPIXEL
    ) -> Iterator[R]:
        """Yield ``function(shared, item)`` for every item, in order; an item stands for about so many ``pixels``.

        A task takes its item from ``items`` in its own thread. Only where workers are elsewhere, it is taken beforehand, and
        pickled: that may make it small. So ``shared`` should be, which goes along with every task. Items of few
        pixels share a task of a cluster, and a single one stays here.
        """
        job, ahead = _Job(function, shared, items), 4 * self.count + 4
        cluster = self._cluster if len(items) > 1 else None
        if cluster is None or not (cluster.remote or (len(items) >= _WORTH_SCHEDULING and pixels >= _LONG)):
            yield from _in_order(lambda index: self._threads.submit(job, index), range(len(items)), ahead)
            return
        step = _items_a_task(len(items), pixels, cluster.slots)
        if cluster.remote:
            yield from _elsewhere(cluster, job, step)
            return
        tasks = (range(first, min(first + step, len(items))) for first in range(0, len(items), step))
        send = cluster.local_sender(job.several, function.__name__)
        # As many results wait as with threads.
        for results in _in_order(send, tasks, max(self.count + 1, ahead // step)):
            yield from results

    def spread(self, function: Callable[[slice], Any], count: int) -> None:
        """Call ``function`` with slices that part ``range(count)``, on this machine's threads; none is longer than a chunk."""
        at_once = max(1, min(self.count, count // _SMALLEST_PART))
        parts = at_once * -(-count // (at_once * columns.ROWS)) or 1
        edges = [count * part // parts for part in range(parts + 1)]
        list(self._threads.map(function, map(slice, edges[:-1], edges[1:])))


@dataclass(frozen=True, slots=True)
class _Job(Generic[T, Item, R]):
    """All tasks of a call, in this process."""

    function: Callable[[T, Item], R]
    shared: T
    items: Items[Item]

    def __call__(self, index: int) -> R:
        return self.function(self.shared, self.items[index])

    def several(self, indices: Iterable[int]) -> list[R]:
        """Results of some items, one after the other."""
        return [self(index) for index in indices]


def _items_a_task(count: int, pixels: int, slots: int) -> int:
    """So many that a task takes longer than its travels, and no slot is left without."""
    return max(1, min(TASK_PIXELS // pixels, -(-count // (_TASKS_EACH * slots))))


def _elsewhere(cluster: Cluster, job: _Job[T, Item, R], step: int) -> Iterator[R]:
    """Results in order, as :func:`_in_order` has them, of tasks of ``step`` items each."""
    send, pending = cluster.sender(job.function, job.shared), deque[Any]()
    ahead, together = 4 * cluster.slots + 4, min(cluster.slots, _FETCHED)
    try:
        for number, first in enumerate(range(0, len(job.items), step)):
            pending.append(send(number, [job.items[i] for i in range(first, min(first + step, len(job.items)))]))
            if len(pending) >= ahead:
                yield from cluster.fetch([pending.popleft() for _ in range(together)])
        while pending:
            yield from cluster.fetch([pending.popleft() for _ in range(min(together, len(pending)))])
    finally:
        for future in pending:
            future.cancel()


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
def _watched(
    cluster: Cluster, record: Record | None, performance_report: Path | None, progress: Progress
) -> Iterator[None]:
    """Say where a cluster's pages are, and write its report at the end."""
    progress.note(f"dask dashboard: {cluster.dashboard}")
    with contextlib.ExitStack() as stack:
        if performance_report is not None:
            stack.enter_context(reported(cluster, performance_report))
        if record is not None:
            # Imported late: whoever asks for help waits for this module, not for numpy.
            from smartsplat_large.dashboard import served

            progress.note(f"progress of the fit: {stack.enter_context(served(record, cluster.client))}")
        yield


@contextlib.contextmanager
def open_workers(
    count: int | None,
    *,
    scheduler: str | None = None,
    dashboard: bool = False,
    record: Record | None = None,
    task_bytes: int = 0,
    performance_report: Path | None = None,
    progress: Progress,
) -> Iterator[Workers]:
    """Workers for the length of a ``with`` block, each of them one busy thread: see :mod:`.native_threads`.

    Parameters
    ----------
    count
        Threads of this process; None for all its cores. With ``scheduler`` they do what is not worth sending.
    scheduler
        Address of a running dask scheduler whose workers see the same files.
    dashboard
        Run tasks on a local dask cluster and announce its dashboard, unless there is a scheduler; quietly without, where its
        packages are missing.
    record
        What a page of our own shows, which is announced beside the dashboard of dask.
    task_bytes
        What a task may take at its peak, for workers elsewhere.
    performance_report
        Where to write dask's report of what its workers did; there must be a dashboard or a scheduler.

    Raises
    ------
    MissingDependencyError
        A scheduler is given and ``distributed`` is not installed.
    UsageError
        No scheduler answers at the address, or it has no workers.
    MemoryLimitError
        A worker of the scheduler has too little memory.
    """
    count = count or default_count()
    with contextlib.ExitStack() as stack:
        stack.enter_context(native_threads.blas_alone)
        cluster = None
        if scheduler:
            cluster = stack.enter_context(connected(scheduler, task_bytes))
        elif dashboard and has_dashboard():
            cluster = stack.enter_context(local_cluster(count))
        record = record if cluster is not None and has_dashboard() else None
        if cluster is not None:
            stack.enter_context(_watched(cluster, record, performance_report, progress))
        threads = ThreadPoolExecutor(count, thread_name_prefix="smartsplat")
        stack.callback(threads.shutdown, wait=True, cancel_futures=True)
        if cluster is None:
            import dask

            stack.enter_context(dask.config.set(pool=threads, scheduler="threads"))
        yield Workers(threads, count, cluster, record)
