"""TIFF in all its dialects: tifffile knows the structure and the codecs, windows touch only the segments they need."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from smartsplat_large.array_types import Pixels
from smartsplat_large.errors import SourceError
from smartsplat_large.lattice import Window
from smartsplat_large.places import Place, is_url
from smartsplat_large.source.base import (
    Closing,
    ImageMeta,
    band_windows,
    require_window,
    rows_are_cheap,
    stored_levels,
    windows_are_cheap,
)
from smartsplat_large.source.orientation import stored_window, upright, upright_size
from smartsplat_large.source.ranged_file import ranged_file
from smartsplat_large.source.tiff_layout import Layout, Level, Plane, parse

_CACHE_BYTES = 32 << 20


class TiffSource(Closing):
    """The first image of a TIFF. A segment the file leaves out (a sparse tile) is 0."""

    def __init__(self, path: Place, name: str) -> None:
        self._path, self._name = path, name
        self._layout = parse(path, name)
        self._file = ranged_file(path, name)
        self._require_whole()
        self._cache = _SegmentCache()
        self.meta = _meta(self._layout, name, remote=is_url(path))

    def __reduce__(self) -> tuple[object, ...]:
        return (TiffSource, (self._path, self._name))

    def close(self) -> None:
        self._file.close()
        self.forget()

    def forget(self) -> None:
        """Give up the segments that are kept."""
        self._cache.clear()

    def read(self, window: Window, level: int = 0) -> Pixels:
        require_window(self.meta, window, level)
        layout, stored = self._layout, self._layout.levels[level]
        wanted = stored_window(window, stored.size, layout.orientation)
        read = self._read_rows if layout.raw_rows else self._read_segments
        pixels = upright(self._in_colours(read(stored, wanted)), layout.orientation)
        return pixels if pixels.flags.writeable else pixels.copy()

    def bands(self, height: int) -> Iterator[tuple[Window, Pixels]]:
        """The whole image as full-width strips of ``height`` rows from the top; nothing stays behind in memory."""
        try:
            for window in band_windows(self.meta.size, height):
                yield window, self.read(window)
        finally:
            self._cache.clear()

    def _require_whole(self) -> None:
        """Find out now, not hours into a fit, that the last pixels are missing."""
        planes = [plane for level in self._layout.levels for plane in level.planes]
        end = max((o + c for plane in planes for o, c in zip(plane.offsets, plane.counts, strict=True)), default=0)
        if end > self._file.size_bytes:
            raise SourceError(
                f"{self._name}: ends early: its pixels reach to byte {end}, the file to {self._file.size_bytes}",
                hint="the file was cut short; copy or download it again",
            )

    def _read_rows(self, level: Level, window: Window) -> Pixels:
        dtype, samples = self._layout.stored_dtype, level.samples
        pixel_bytes = samples * dtype.itemsize
        stride = level.size.width * pixel_bytes
        out = np.empty((*window.shape, samples * len(level.planes)), dtype.newbyteorder("="))
        for number, plane in enumerate(level.planes):
            for index, place in level.segments(window):
                part = place.intersection(window)
                start = plane.offsets[index] + (part.y - place.y) * stride + part.x * pixel_bytes
                if plane.offsets[index] == 0:
                    values: Any = 0
                else:
                    rows = self._file.read_rows(start, stride, part.height, part.width * pixel_bytes)
                    values = rows.view(dtype).reshape(*part.shape, samples)
                out[part.slices(window)][:, :, number * samples : (number + 1) * samples] = values
        return out

    def _read_segments(self, level: Level, window: Window) -> Pixels:
        samples = level.samples
        out = np.zeros((*window.shape, samples * len(level.planes)), self._layout.stored_dtype.newbyteorder("="))
        for number, plane in enumerate(level.planes):
            places = dict(level.segments(window))
            channels = slice(number * samples, (number + 1) * samples)
            for index, values in self._segments(plane, places):
                place = places[index]
                part = place.intersection(window)
                out[part.slices(window)][:, :, channels] = values[part.slices(place)]
        return out

    def _segments(self, plane: Plane, indices: Iterable[int]) -> Iterator[tuple[int, Pixels]]:
        """Those of the segments that the file holds, decoded; in any order."""
        missing: list[int] = []
        for index in indices:
            offset = plane.offsets[index]
            if offset == 0 or plane.counts[index] == 0:
                continue
            if (cached := self._cache.get(offset)) is not None:
                yield index, cached
            else:
                missing.append(index)
        ranges = [(plane.offsets[index], plane.counts[index]) for index in missing]
        for index, data in zip(missing, self._file.read_each(ranges), strict=True):
            yield index, self._decoded(plane, index, data)

    def _decoded(self, plane: Plane, index: int, data: bytes) -> Pixels:
        offset = plane.offsets[index]
        try:
            pixels = plane.decoder(data, plane.first + index)
        except MemoryError:
            raise
        except Exception as error:  # every codec has its own error
            said = " ".join(str(error).split())
            message = f"{self._name}: the piece at byte {offset} cannot be decoded: {said}"
            raise SourceError(message, hint="it is damaged, or a codec is missing; copy it again") from error
        self._cache.put(offset, pixels)
        return pixels

    def _in_colours(self, pixels: Pixels) -> Pixels:
        layout = self._layout
        if layout.palette is not None:
            return layout.palette[pixels[:, :, 0]]
        if pixels.dtype == np.bool_:
            pixels = pixels.astype(np.uint8) * np.uint8(255)
        return ~pixels if layout.inverted else pixels


def _meta(layout: Layout, name: str, *, remote: bool) -> ImageMeta:
    sizes = stored_levels([upright_size(level.size, layout.orientation) for level in layout.levels])
    first = layout.levels[0]
    tile = first.segment[::-1] if layout.orientation > 4 else first.segment
    cheap = not layout.one_segment and windows_are_cheap(sizes[0], tile)
    return ImageMeta(
        name=name,
        format="tiff",
        levels=sizes,
        dtype=layout.dtype,
        channels=layout.channels,
        tile=None if layout.raw_rows else tile,
        cheap_windows=rows_are_cheap(sizes[0], remote=remote) if layout.raw_rows else cheap,
        held_bytes=0 if layout.raw_rows or cheap else _held_bytes(layout),
        remark=layout.remark,
        icc_profile=layout.icc_profile,
        pixels_per_cm=layout.pixels_per_cm,
        kept_bytes=0 if layout.raw_rows else min(_CACHE_BYTES, layout.decoded_bytes),
    )


def _held_bytes(layout: Layout) -> int:
    """Of segments that are larger than the cache: the last one, and the next while it is decoded."""
    first = layout.levels[0]
    segment = min(first.segment[0], first.size.height) * min(first.segment[1], first.size.width)
    segment_bytes = segment * first.samples * layout.stored_dtype.itemsize
    if segment_bytes <= _CACHE_BYTES:
        return 0
    counts = [count for plane in first.planes for count in plane.counts]
    return min(2, len(counts)) * segment_bytes + max(counts)


class _SegmentCache:
    """The last decoded segments, by file offset, up to 32 MiB or one segment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[int, Pixels] = OrderedDict()
        self._bytes = 0

    def get(self, offset: int) -> Pixels | None:
        with self._lock:
            if offset in self._held:
                self._held.move_to_end(offset)
            return self._held.get(offset)

    def put(self, offset: int, values: Pixels) -> None:
        with self._lock:
            if offset in self._held:
                return
            self._held[offset] = values
            self._bytes += values.nbytes
            while self._bytes > _CACHE_BYTES and len(self._held) > 1:
                self._bytes -= self._held.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        with self._lock:
            self._held.clear()
            self._bytes = 0
