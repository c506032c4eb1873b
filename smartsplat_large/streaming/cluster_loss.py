"""A dask cluster that goes away under a fit ends it with one line, not with what happens to notice first."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import CancelledError

from smartsplat_large.errors import ClusterLostError

_LOGGERS = ("distributed", "distributed.client")


@contextlib.contextmanager
def loss_named(scheduler: str | None) -> Iterator[None]:
    """Turns every sign that the cluster at ``scheduler`` is gone into one error; without a scheduler does nothing.

    Raises
    ------
    ClusterLostError
        The scheduler, or a worker with what a task needs, went away inside the ``with`` block.
    """
    if scheduler is None:
        yield
        return
    from distributed import KilledWorker
    from distributed.client import ClosedClientError
    from distributed.comm import CommClosedError

    try:
        with _quiet():
            yield
    except (CancelledError, CommClosedError, KilledWorker, ClosedClientError, TimeoutError) as error:
        raise ClusterLostError(
            f"the dask cluster at {scheduler} is lost ({_reason(error)})",
            hint="the same command goes on with another --scheduler, or here without one",
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps dask from printing the tracebacks of its attempts to connect again."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    usual = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, usual, strict=True):
            logger.setLevel(level)


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0]
