"""Writing a multiscale OME-Zarr 0.5 image: zarr version 3, axes c, y, x, chunks of 256 in shards.

The specification wants the channel axis before the space axes, so pixels are stored by channel; viewers show 3 and 4
channels as colours by the ``omero`` block. What it has no word for, such as the colour profile, lies beside it under
``smartsplat_large``.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from smartsplat_large.array_types import Pixels
from smartsplat_large.downsampling import downsample
from smartsplat_large.lattice import Size, Window
from smartsplat_large.native_threads import unpacked_by_zarrs, zarr_alone
from smartsplat_large.places import Place, joined
from smartsplat_large.remote_output import writing_named
from smartsplat_large.remote_zarr import zarr_store

CHUNK = 256
SHARD = 2048
Codec = Literal["zstd", "lz4"]
EXTRA_KEY = "smartsplat_large"
_BAND_BYTES = 128 << 20
_MOST_WRITERS = 2
_COLORS = ("FF0000", "00FF00", "0000FF", "FFFFFF")


@dataclass(frozen=True, slots=True, kw_only=True)
class OmeZarrSpec:
    """What must be known of an image before the first pixel is written."""

    name: str
    size: Size
    channels: int
    dtype: np.dtype[Any]
    levels: int
    shard: tuple[int, int] = (SHARD, SHARD)
    codec: Codec = "zstd"
    """``zstd`` is small, for what is kept; ``lz4`` five times as quick to write, twice to read, for what is not."""
    icc_profile: bytes | None = None
    pixels_per_cm: tuple[float, float] | None = None

    def shard_windows(self, level: int) -> Iterator[Window]:
        """The shards of a level, row by row, clipped to it: what one task or one band should write."""
        size, (height, width) = self.size.at_level(level), self.shard
        for y in range(0, size.height, height):
            for x in range(0, size.width, width):
                yield Window(x, y, width, height).clipped(size)


def shard_for_bands(width: int, pixel_bytes: int) -> tuple[int, int]:
    """The shard ``(height, width)``, of 64 chunks, for an image that is written from top to bottom.

    It holds one full-width band of shards, which flatter shards keep below 128 MiB, down to one row of chunks.
    """
    height = SHARD
    while height > CHUNK and height * width * pixel_bytes > _BAND_BYTES:
        height //= 2
    return height, SHARD * SHARD // height


def create(folder: Place, spec: OmeZarrSpec) -> None:
    """Make the levels, in an existing, empty folder or at an address where nothing is; their pixels are 0 until written."""
    import zarr
    from zarr.codecs import BloscCodec

    shuffle = "noshuffle" if spec.dtype.itemsize == 1 else "shuffle"
    for level in range(spec.levels):
        size = spec.size.at_level(level)
        with writing_named(folder):
            zarr.create_array(
                store=zarr_store(joined(folder, str(level)), read_only=False),
                shape=(spec.channels, size.height, size.width),
                chunks=(spec.channels, CHUNK, CHUNK),
                shards=(spec.channels, *spec.shard),
                dtype=spec.dtype,
                compressors=BloscCodec(cname=spec.codec, clevel=1, shuffle=shuffle),
                fill_value=0,
                dimension_names=("c", "y", "x"),
            )


def describe(folder: Place, spec: OmeZarrSpec) -> None:
    """Make an image of the levels, once they are whole: before that, nobody takes them for one."""
    import zarr

    with writing_named(folder):
        store = zarr_store(folder, read_only=False)
        zarr.create_group(store=store, zarr_format=3, attributes=_attributes(spec))


def open_level(folder: Place, level: int) -> Any:
    """The zarr array of one level, to be written."""
    import zarr

    return zarr.open_array(store=zarr_store(joined(folder, str(level)), read_only=False), mode="r+")


def open_finished(folder: Place, level: int) -> Any:
    """The zarr array of a level that is all written, to be read."""
    import zarr

    return unpacked_by_zarrs(zarr.open_array(store=zarr_store(joined(folder, str(level)), read_only=True), mode="r"))


def write_window(array: Any, window: Window, pixels: Pixels) -> None:
    """Store ``(h, w, c)`` pixels; cheap where the window is a whole number of shards."""
    rows, columns = slice(window.y, window.y_end), slice(window.x, window.x_end)
    planes = np.ascontiguousarray(np.moveaxis(pixels, 2, 0))
    with zarr_alone:
        array[:, rows, columns] = planes


def read_window(array: Any, window: Window) -> Pixels:
    """``(h, w, c)`` pixels of one level."""
    with zarr_alone:
        planes = array[:, window.y : window.y_end, window.x : window.x_end]
    return np.ascontiguousarray(np.moveaxis(planes, 0, 2))


class PyramidWriter:
    """Takes an image as full-width bands from the top and writes all levels at once, in the memory of two bands.

    A context manager: the image is whole when the block has ended without an exception. At most ``workers`` threads
    compress.
    """

    def __init__(self, folder: Place, spec: OmeZarrSpec, workers: int = _MOST_WRITERS) -> None:
        create(folder, spec)
        self._folder, self._spec = folder, spec
        self._arrays = [open_level(folder, level) for level in range(spec.levels)]
        self._pending: list[list[Pixels]] = [[] for _ in range(spec.levels)]
        self._row = [0] * spec.levels
        # An interrupt ends only the waiting for a write: the pool, left last, makes sure that nothing is still being
        # written into a folder that is about to be removed.
        self._pool = ThreadPoolExecutor(min(workers, _MOST_WRITERS))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        with self._pool:
            if kind is None:
                self._finish()
                describe(self._folder, self._spec)

    def write(self, pixels: Pixels, level: int = 0) -> None:
        """The next rows of a level, of any height."""
        pending, height = self._pending[level], self._spec.shard[0]
        while len(pixels):
            missing = height - sum(map(len, pending))
            # A copy, so that a small rest does not keep a large band alive.
            pending.append(pixels[:missing].copy() if missing < len(pixels) else pixels)
            pixels = pixels[missing:]
            if sum(map(len, pending)) == height:
                self._flush(level)

    def _finish(self) -> None:
        """Write what is left at the bottom of every level."""
        for level in range(self._spec.levels):
            if self._pending[level]:
                self._flush(level)

    def _flush(self, level: int) -> None:
        pending = self._pending[level]
        band = pending[0] if len(pending) == 1 else np.concatenate(pending)
        pending.clear()
        y, self._row[level] = self._row[level], self._row[level] + len(band)
        step, array = self._spec.shard[1], self._arrays[level]
        parts = [(x, band[:, x : x + step]) for x in range(0, band.shape[1], step)]
        writes = [
            self._pool.submit(write_window, array, Window(x, y, part.shape[1], part.shape[0]), part)
            for x, part in parts
        ]
        with writing_named(self._folder):
            for write in writes:
                write.result()
        if level + 1 < self._spec.levels:
            self.write(downsample(band), level + 1)


def _attributes(spec: OmeZarrSpec) -> dict[str, Any]:
    x_cm, y_cm = (1 / spec.pixels_per_cm[0], 1 / spec.pixels_per_cm[1]) if spec.pixels_per_cm else (1.0, 1.0)
    unit = {"unit": "centimeter"} if spec.pixels_per_cm else {}
    axes = [{"name": "c", "type": "channel"}, *({"name": n, "type": "space", **unit} for n in "yx")]
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [{"type": "scale", "scale": [1.0, y_cm * 2**level, x_cm * 2**level]}],
        }
        for level in range(spec.levels)
    ]
    extra: dict[str, Any] = {}
    if spec.icc_profile:
        extra["icc_profile"] = base64.b64encode(spec.icc_profile).decode()
    if spec.pixels_per_cm:
        extra["pixels_per_cm"] = list(spec.pixels_per_cm)
    multiscale = {"name": spec.name, "axes": axes, "datasets": datasets, "type": "mean"}
    return {
        "ome": {"version": "0.5", "multiscales": [multiscale], "omero": _omero(spec)},
        EXTRA_KEY: extra,
    }


def _omero(spec: OmeZarrSpec) -> dict[str, Any]:
    brightest = int(np.iinfo(spec.dtype).max)
    window = {"min": 0, "max": brightest, "start": 0, "end": brightest}
    colors = _COLORS if spec.channels > 2 else ("FFFFFF",) * 2
    # An alpha channel shown as light would wash the picture out.
    alpha = spec.channels - 1 if spec.channels in (2, 4) else None
    channels = [
        {"label": f"channel {c}", "color": colors[c], "active": c != alpha, "window": window}
        for c in range(spec.channels)
    ]
    return {"channels": channels, "rdefs": {"model": "color" if spec.channels > 2 else "greyscale"}}
