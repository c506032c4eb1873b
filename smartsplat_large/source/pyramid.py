"""Working copies: multiscale OME-Zarr written from any source, in memory bounded by a shard per worker or by a band."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from smartsplat_large import ome_zarr
from smartsplat_large.atomic_output import part_folder
from smartsplat_large.downsampling import downsample, level_count
from smartsplat_large.lattice import Window
from smartsplat_large.memory import GiB, format_bytes, require_room
from smartsplat_large.ome_zarr import Codec, OmeZarrSpec, PyramidWriter
from smartsplat_large.places import Place, joined
from smartsplat_large.progress import Progress, Silent
from smartsplat_large.remote_output import writing_named
from smartsplat_large.remote_zarr import new_zarr
from smartsplat_large.source.array import ArraySource
from smartsplat_large.source.base import ImageMeta, ImageSource, KeepingSource, bands
from smartsplat_large.source.zarr import ZarrSource

__all__ = ["copying_bytes", "downsample", "ingest", "working_copy"]

_TASKS_A_GRAPH = 128
_BANDS_OF_ROWS = 256
_SHARDS_EACH = 6
"""Copies of a shard's bytes while a task reads, rearranges and compresses it."""
_SHARDS_KEPT = 2
"""What the allocator keeps of them, as bytes of so many shards."""
_BANDS_AT_ONCE = 4
"""Bands of shards where an image is read in bands: one as it comes and joined, and what waits for it on smaller levels."""
_WORTH_SAYING = GiB
"""Bytes of a temporary working copy on disk from which on it is announced."""
_ELSEWHERE = "make room, or name a folder on another disk: by TMPDIR, or by --work of fit"


def ingest(
    source: ImageSource,
    output: Place,
    *,
    overwrite: bool = False,
    levels: int | None = None,
    codec: Codec = "zstd",
    progress: Progress | None = None,
    workers: int | None = None,
    room_seen: bool = False,
) -> ImageSource:
    """Write ``source`` as a multiscale OME-Zarr 0.5 folder, or to an address, and open it.

    One dask task a shard where windows are cheap, on ``workers`` threads or on the active distributed client; one pass
    from top to bottom where they are not.

    Parameters
    ----------
    levels
        Number of levels, the full size included; by default down to a longer side of at most 256 pixels.
    room_seen
        The caller knows that there is room on the disk; otherwise it is asked here.

    Raises
    ------
    OutputExistsError, UsageError
        ``output`` is in the way, or cannot be written.
    SourceError
        The source cannot be read to its end.
    DiskFullError
        The disk has too little room, as :func:`require_room` has it, or ran full. As after every failure and interrupt,
        nothing is left of the output.
    """
    progress = progress or Silent()
    spec = _spec(source, levels, codec)
    with _new(output, overwrite=overwrite) as folder:
        if not room_seen:
            most = _most_bytes(source.meta, spec.levels)
            announced = f"{output}: will take up to {format_bytes(most)}"
            if doubt := require_room(folder, most, announced, hint="make room, or write to another disk"):
                progress.note(announced + doubt)
        progress.start("ingest", _megapixels(spec), "MP")
        if source.meta.cheap_windows:
            _by_shards(source, folder, spec, progress, workers)
            # It may stay open for as long as a fit takes, and is not read any more.
            if isinstance(source, KeepingSource):
                source.forget()
        else:
            _by_bands(source, folder, spec, progress, workers)
    return ZarrSource(output, str(output))


@contextmanager
def _new(output: Place, *, overwrite: bool) -> Iterator[Place]:
    """What to write to, so that the output is there whole or not at all."""
    if isinstance(output, Path):
        with part_folder(output, overwrite=overwrite) as folder:
            yield folder
    else:
        with new_zarr(output, overwrite=overwrite):
            yield output


def working_copy(
    source: ImageSource,
    limit_bytes: int,
    folder: Place,
    *,
    levels: int | None = None,
    progress: Progress | None = None,
    workers: int | None = None,
) -> ImageSource:
    """A source with cheap windows and at least ``levels`` levels (by default all, down to 256 pixels).

    The source itself if it is one already; a pyramid in memory if that takes at most ``limit_bytes``; otherwise an
    OME-Zarr inside ``folder``, which the caller owns and removes.

    Raises
    ------
    SourceError, DiskFullError
        As :func:`ingest`.
    """
    meta = source.meta
    wanted = levels or level_count(meta.size)
    if meta.cheap_windows and len(meta.levels) >= wanted:
        return source
    if meta.raw_bytes * 4 // 3 <= limit_bytes:
        return _in_memory(source, wanted)
    path = joined(folder, "working-copy.zarr")
    most = _most_bytes(meta, wanted)
    announced = f"{meta.name}: a working copy will take up to {format_bytes(most)} in {folder}"
    doubt = require_room(folder, most, announced, hint=_ELSEWHERE)
    if progress is not None and (doubt or most >= _WORTH_SAYING):
        progress.note(announced + doubt)
    with ingest(source, path, levels=wanted, codec="lz4", progress=progress, workers=workers, room_seen=True):
        # By the image's name: it goes into the file that is made, whose bytes must not tell where it was made.
        return ZarrSource(path, meta.name)


def copying_bytes(meta: ImageMeta, levels: int, workers: int) -> int:
    """Working memory of :func:`working_copy` at its peak, beside the decoder's, where it goes to disk; 0 where none is made."""
    if meta.cheap_windows and len(meta.levels) >= levels:
        return 0
    pixel, size = meta.channels * meta.dtype.itemsize, meta.size
    height, width = _shard(meta)
    across, down = -(-size.width // width), -(-size.height // height)
    tasks = min(workers, across * (down if meta.cheap_windows else 1))
    shard = min(height, size.height) * min(width, size.width) * pixel
    band = 0 if meta.cheap_windows else min(height, size.height) * size.width * pixel
    return (_SHARDS_EACH * tasks + _SHARDS_KEPT) * shard + _BANDS_AT_ONCE * band


def _most_bytes(meta: ImageMeta, levels: int) -> int:
    """Of a copy of so many levels, uncompressed."""
    return sum(meta.size.at_level(level).pixels for level in range(levels)) * meta.channels * meta.dtype.itemsize


def _in_memory(source: ImageSource, levels: int) -> ImageSource:
    meta = source.meta
    pixels = np.empty((meta.size.height, meta.size.width, meta.channels), meta.dtype)
    for window, band in bands(source, _BANDS_OF_ROWS):
        pixels[window.y : window.y_end] = band
    return ArraySource(
        pixels, name=meta.name, levels=levels, icc_profile=meta.icc_profile, pixels_per_cm=meta.pixels_per_cm
    )


def _spec(source: ImageSource, levels: int | None, codec: Codec) -> OmeZarrSpec:
    meta = source.meta
    return OmeZarrSpec(
        name=Path(meta.name).name,
        size=meta.size,
        channels=meta.channels,
        dtype=meta.dtype,
        levels=level_count(meta.size) if levels is None else levels,
        codec=codec,
        shard=_shard(meta),
        icc_profile=meta.icc_profile,
        pixels_per_cm=meta.pixels_per_cm,
    )


def _shard(meta: ImageMeta) -> tuple[int, int]:
    """Height and width."""
    if meta.cheap_windows:
        return ome_zarr.SHARD, ome_zarr.SHARD
    return ome_zarr.shard_for_bands(meta.size.width, meta.channels * meta.dtype.itemsize)


def _megapixels(spec: OmeZarrSpec) -> float:
    """Of all levels."""
    return sum(spec.size.at_level(level).megapixels for level in range(spec.levels))


def _by_bands(source: ImageSource, folder: Place, spec: OmeZarrSpec, progress: Progress, workers: int | None) -> None:
    share = _megapixels(spec) / spec.size.pixels
    with PyramidWriter(folder, spec, workers or os.cpu_count() or 1) as writer:
        for window, pixels in bands(source, _BANDS_OF_ROWS):
            writer.write(pixels)
            progress.advance(window.pixels * share)


def _by_shards(source: ImageSource, folder: Place, spec: OmeZarrSpec, progress: Progress, workers: int | None) -> None:
    ome_zarr.create(folder, spec)
    with _scheduler(workers) as compute:
        for level in range(spec.levels):
            shards = list(spec.shard_windows(level))
            for first in range(0, len(shards), _TASKS_A_GRAPH):
                windows = shards[first : first + _TASKS_A_GRAPH]
                compute(_tasks(source, folder, level, windows))
                progress.advance(sum(window.pixels for window in windows) / 1e6)
    ome_zarr.describe(folder, spec)


def _tasks(source: ImageSource, folder: Place, level: int, windows: Iterable[Window]) -> list[Any]:
    import dask

    # Keys of their own: a scheduler that others use at the same time may have tasks of the same windows.
    name = f"{uuid.uuid4().hex}-{level}"
    copy = dask.delayed(_copy_shard, pure=False, traverse=False)
    shrink = dask.delayed(_shrink_shard, pure=False, traverse=False)
    if level == 0:
        return [copy(source, folder, window, dask_key_name=f"ingest-{name}-{window}") for window in windows]
    return [shrink(folder, level, window, dask_key_name=f"ingest-{name}-{window}") for window in windows]


def _copy_shard(source: ImageSource, folder: Place, window: Window) -> None:
    pixels = source.read(window)
    with writing_named(folder):
        ome_zarr.write_window(ome_zarr.open_level(folder, 0), window, pixels)


def _shrink_shard(folder: Place, level: int, window: Window) -> None:
    finer = ome_zarr.open_finished(folder, level - 1)
    height, width = finer.shape[1:]
    out = np.empty((*window.shape, finer.shape[0]), finer.dtype)
    # A quarter at a time: one shard of the finer level in memory, not four.
    for part in _quarters(window):
        seen = Window(2 * part.x, 2 * part.y, 2 * part.width, 2 * part.height)
        seen = seen.intersection(Window(0, 0, width, height))
        out[part.slices(window)] = downsample(ome_zarr.read_window(finer, seen))
    with writing_named(folder):
        ome_zarr.write_window(ome_zarr.open_level(folder, level), window, out)


def _quarters(window: Window) -> Iterator[Window]:
    half_width, half_height = -(-window.width // 2), -(-window.height // 2)
    for y in range(window.y, window.y_end, half_height):
        for x in range(window.x, window.x_end, half_width):
            yield Window(x, y, half_width, half_height).intersection(window)


@contextmanager
def _scheduler(workers: int | None) -> Iterator[Callable[[list[Any]], None]]:
    """Computes dask tasks on the cluster that is set; else on threads that have ended when the block is left."""
    import dask

    # dask's own threads would write on after a failure, into a folder that is being removed.
    if dask.config.get("scheduler", None) not in (None, "threads"):
        yield lambda tasks: dask.compute(*tasks)
        return
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        yield lambda tasks: dask.compute(*tasks, scheduler="threads", pool=pool)
