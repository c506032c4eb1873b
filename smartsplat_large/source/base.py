"""What every image source can do."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from smartsplat_large.array_types import Pixels, WholePlanes
from smartsplat_large.errors import SourceError
from smartsplat_large.lattice import Size, Window
from smartsplat_large.pixels import to_whole_planes

_PROBE = 1024
_CHEAP_FACTOR = 4

_BAND_ROWS = 256
"""Held at a time to read a window from the top."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMeta:
    """What is known of an image before a pixel is read."""

    name: str
    """The path as the user gave it, for messages."""
    format: str
    """For example ``tiff``, ``ome-zarr``, ``png``."""
    levels: tuple[Size, ...]
    """Sizes of the stored pyramid, full size first; at least one."""
    dtype: np.dtype[np.generic]
    """``uint8`` or ``uint16``."""
    channels: int
    """1 grey, 2 grey + alpha, 3 RGB, 4 RGBA (or four channels of any meaning)."""
    tile: tuple[int, int] | None
    """Stored chunk ``(height, width)``, or None where rows are contiguous."""
    cheap_windows: bool
    """Whether a window costs about its own pixels: False for a source that must be decoded from its start."""
    held_bytes: int = 0
    """What the decoder holds while rows are read, at its peak, beside some rows: all of an image that it cannot stream."""
    remark: str | None = None
    """What a user should know of how the image is read, in one line: that it is one page of several."""
    icc_profile: bytes | None = None
    pixels_per_cm: tuple[float, float] | None = None
    """Resolution (x, y)."""
    kept_bytes: int = 0
    """What the source keeps, at most, of what it has decoded."""

    @property
    def size(self) -> Size:
        return self.levels[0]

    @property
    def raw_bytes(self) -> int:
        """Bytes of the uncompressed pixels: the numerator of every compression ratio."""
        return self.size.pixels * self.channels * self.dtype.itemsize


class ImageSource(Protocol):
    """An open image. Safe to read from several threads; picklable, so that it can travel to a worker."""

    @property
    def meta(self) -> ImageMeta: ...

    def read(self, window: Window, level: int = 0) -> Pixels:
        """Read one window of one stored level.

        Returns
        -------
        Pixels
            ``(window.height, window.width, channels)`` of ``meta.dtype``, owned by the caller.

        Raises
        ------
        ValueError
            The window is empty or not inside the level, or there is no such level.
        SourceError
            The bytes cannot be read or decoded.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


@runtime_checkable
class BandedSource(Protocol):
    """A source that is read best from top to bottom."""

    def bands(self, height: int) -> Iterator[tuple[Window, Pixels]]:
        """The whole of level 0, once, as full-width strips of ``height`` rows (the last may be shorter)."""
        ...


@runtime_checkable
class KeepingSource(Protocol):
    """A source that keeps some of what it has decoded, for windows that share it."""

    def forget(self) -> None:
        """Give that up."""
        ...


@runtime_checkable
class PlanarSource(Protocol):
    """A source that stores channels apart, or need not copy pixels to part them."""

    def planes(self, window: Window, level: int = 0) -> WholePlanes:
        """As :meth:`ImageSource.read`, but ``(channels, window.height, window.width)``, not to be changed."""
        ...


def read_planes(source: ImageSource, window: Window, level: int) -> WholePlanes:
    """The planes of a window of any source, not to be changed."""
    if isinstance(source, PlanarSource):
        return source.planes(window, level)
    return to_whole_planes(source.read(window, level))


def bands(source: ImageSource, height: int) -> Iterator[tuple[Window, Pixels]]:
    """Level 0 of any source as full-width strips from the top, by its own way of streaming where it has one."""
    if isinstance(source, BandedSource):
        yield from source.bands(height)
        return
    for window in band_windows(source.meta.size, height):
        yield window, source.read(window)


def read_window(source: ImageSource, window: Window) -> Pixels:
    """Pixels of a window at full size, also of a source that can only be read from its top."""
    if source.meta.cheap_windows:
        return source.read(window)
    pixels = np.empty((*window.shape, source.meta.channels), source.meta.dtype)
    for strip, band in bands(source, _BAND_ROWS):
        shared = strip.intersection(window)
        if not shared.is_empty:
            pixels[shared.slices(window)] = band[shared.slices(strip)]
    return pixels


def band_windows(size: Size, height: int) -> Iterator[Window]:
    """Full-width strips of ``height`` rows that partition the image, from the top."""
    return (Window(0, y, size.width, min(height, size.height - y)) for y in range(0, size.height, height))


def require_window(meta: ImageMeta, window: Window, level: int) -> None:
    """Do nothing for a window that can be read.

    Raises
    ------
    ValueError
        It is empty or not inside the level, or there is no such level.
    """
    if not 0 <= level < len(meta.levels):
        raise ValueError(f"{meta.name}: level {level} of {len(meta.levels)}")
    size = meta.levels[level]
    if window.is_empty or not size.window.contains(window):
        raise ValueError(f"{meta.name}: window {window} is empty or not inside {size} of level {level}")


def require_supported(name: str, dtype: Any, channels: int) -> np.dtype[np.generic]:
    """``dtype`` in native byte order, if pixels of it and so many channels are supported.

    Raises
    ------
    SourceError
        They are not.
    """
    kind: np.dtype[Any] = np.dtype(dtype).newbyteorder("=")
    if kind not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        raise SourceError(
            f"{name}: pixels of type {kind} are not supported", hint="convert it to uint8 or uint16 first"
        )
    if not 1 <= channels <= 4:
        raise SourceError(f"{name}: {channels} channels; 1 to 4 are supported", hint="save the channels you need")
    return kind


def stored_levels(sizes: list[Size]) -> tuple[Size, ...]:
    """The leading sizes that shrink by exactly two each time, as ``Size.at_level`` has it; at least the first.

    Pyramids that shrink by four, or that round down, have levels that no level number of ours names.
    """
    halved = itertools.takewhile(lambda level: sizes[level] == sizes[0].at_level(level), range(len(sizes)))
    return tuple(sizes[level] for level in halved)


def windows_are_cheap(size: Size, tile: tuple[int, int]) -> bool:
    """Whether reading 1024 x 1024 pixels decodes at most four times as many, in stored chunks of ``tile``."""
    wanted, touched = 1, 1
    for side, step in ((size.height, tile[0]), (size.width, tile[1])):
        probe = min(_PROBE, side)
        wanted *= probe
        touched *= min(side, -(-probe // step) * step)
    return touched <= _CHEAP_FACTOR * wanted


def rows_are_cheap(size: Size, *, remote: bool) -> bool:
    """Whether windows of rows that lie uncompressed are cheap: from afar, whole rows are as quickly had as parts of them."""
    return not remote or windows_are_cheap(size, (1, size.width))


class Closing:
    """``with`` support for a source that has nothing to close."""

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
