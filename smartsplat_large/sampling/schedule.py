"""Running many independent calls on dask, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from smartsplat_large.progress import Progress

_PER_WORKER = 8
"""Tasks a graph for each thread: waiting for the last of them costs little, and progress is seen to move."""

_CLUSTER = 256
"""Weight of a graph sent to a distributed client, or to whatever scheduler the caller has set."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function, importable by name on a worker, and its arguments."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    weight: int
    """What the arguments count against a graph's size, 1 for small ones: a graph should stay below a few megabytes."""


def run_calls(calls: Iterable[Call], workers: int | None, progress: Progress) -> Iterator[Any]:
    """Results in the order of ``calls``; ``progress`` advances by 1 for each.

    Runs where dask is set to run, a distributed client for example, else on ``workers`` threads (None: one a
    processor). Calls are taken from the iterable graph by graph, so they may be made as they are needed.
    """
    # Imported late: 0.1 s, which the command line's --help need not wait for.
    import dask
    from dask.base import get_scheduler
    from dask.system import CPU_COUNT

    if get_scheduler() is None:
        options: dict[str, Any] = {"scheduler": "threads", "num_workers": workers or CPU_COUNT}
        limit = _PER_WORKER * options["num_workers"]
    else:
        options, limit = {}, _CLUSTER
    for graph in _batches(calls, limit):
        # traverse=False: arguments are values, which dask need not search for tasks.
        tasks = [dask.delayed(call.function, pure=False, traverse=False)(*call.arguments) for call in graph]
        yield from dask.compute(*tasks, **options, traverse=False)
        progress.advance(len(graph))


def _batches(calls: Iterable[Call], limit: int) -> Iterator[list[Call]]:
    """Consecutive calls of at most ``limit`` weight together, or one call that is heavier."""
    batch: list[Call] = []
    total = 0
    for call in calls:
        if batch and total + call.weight > limit:
            yield batch
            batch, total = [], 0
        batch.append(call)
        total += call.weight
    if batch:
        yield batch
