"""Libraries compute on the thread that calls them, whatever the environment says: ``--workers`` is how many are busy.

- BLAS (numpy, scipy) would start a thread a core: :data:`blas_alone`, for as long as workers are open.
- zarr would decode ten chunks of one window at a time: :data:`zarr_alone`, around every read and write of pixels. Of arrays
  on this disk zarrs does it, which is told so when they are opened: :func:`unpacked_by_zarrs`.
- tifffile would compress on half of all cores: ``maxworkers`` of what we write; we read piece by piece.
- libvips would start a thread a core for every picture it writes: :func:`pyvips`.
- dask, and scipy's kd-tree, are told how many threads to take. numba's kernels are never parallel, and imagecodecs takes
  one thread unless told otherwise. torch and KeOps run only on a GPU, before the first task.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any


class Shared:
    """A context for many threads: opened by the first that enters, closed by the last that leaves.

    The settings below are those of the process: were each thread to save and restore them, the first to leave would
    lift the limit for all, and the last would leave it behind.
    """

    def __init__(self, open_: Callable[[], AbstractContextManager[Any]]) -> None:
        self._open = open_
        self._lock = threading.Lock()
        self._inside = 0
        self._opened = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._opened.enter_context(self._open())
            self._inside += 1

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._opened.close()


def _limit_blas() -> Any:
    from threadpoolctl import threadpool_limits

    # Of OpenMP it would only limit the calling thread, which has no work for it.
    return threadpool_limits(1, user_api="blas")


def _limit_zarr() -> Any:
    import zarr

    return zarr.config.set({"async.concurrency": 1})


def _choose_zarrs() -> Any:
    import zarr

    return zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline", "threading.max_workers": 1})


_by_zarrs = Shared(_choose_zarrs)


def unpacked_by_zarrs(array: Any) -> Any:
    """An open zarr array, to be read; its chunks are unpacked in Rust, if it lies on this disk and zarrs knows its kind.

    zarr itself takes a task of asyncio for each chunk, and most of the time of a window. Not for writing, where a full disk
    would be a ``RuntimeError``.
    """
    import zarr

    if not isinstance(array.store, zarr.storage.LocalStore) or not array.dtype.isnative:
        return array
    with _by_zarrs:
        return zarr.open_array(store=array.store_path, mode="r")


blas_alone = Shared(_limit_blas)
"""Every BLAS that is loaded when the ``with`` block begins computes on the thread that calls it."""

zarr_alone = Shared(_limit_zarr)
"""A call of zarr inside the ``with`` block has one chunk in work at a time."""


@functools.cache
def pyvips() -> Any:
    """The module, with one thread a picture, and without its cache, which would keep pictures and pipes open."""
    import pyvips

    pyvips.cache_set_max(0)
    pyvips.concurrency_set(1)
    return pyvips
