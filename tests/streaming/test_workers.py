"""Workers: results in order, nothing left behind."""

from __future__ import annotations

import gc
import time

import dask
import pytest

from smartsplat_large.errors import UsageError
from smartsplat_large.progress import Silent
from smartsplat_large.streaming.workers import open_workers


def slow_square(shared: int | None, item: int) -> int:
    time.sleep(0.002 * (7 - item % 7))
    return item * item * shared  # type: ignore[operator]


@pytest.mark.parametrize("dashboard", [False, True])
@pytest.mark.parametrize("pixels", [1, 1 << 20])
def test_results_come_in_order(dashboard: bool, pixels: int) -> None:
    with open_workers(3, dashboard=dashboard, progress=Silent()) as workers:
        assert list(workers.map(slow_square, 2, range(40), pixels=pixels)) == [2 * i * i for i in range(40)]
    assert dask.config.get("scheduler", None) is None


@pytest.mark.parametrize("count", [0, 1, 5000, 9001])
@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_rows_are_parted_among_as_many_threads_as_there_are(threads: int, count: int) -> None:
    parts: list[slice] = []
    with open_workers(threads, progress=Silent()) as workers:
        workers.spread(parts.append, count)
    parts.sort(key=lambda part: part.start)
    assert [row for part in parts for row in range(count)[part]] == list(range(count))
    assert len(parts) == max(1, min(threads, count // 2048))


def test_an_error_of_a_task_is_raised_and_the_rest_is_dropped() -> None:
    with open_workers(2, progress=Silent()) as workers, pytest.raises(TypeError):
        list(workers.map(slow_square, None, range(30)))


def test_a_scheduler_that_does_not_answer_leaves_dask_as_it_was() -> None:
    with (
        pytest.raises(UsageError, match="no dask scheduler answers"),
        open_workers(1, scheduler="nonsense://", progress=Silent()),
    ):
        pass
    gc.collect()
    assert dask.config.get("scheduler", None) is None
