"""Uncompressed rows behind a header, as ``.npy``, PGM and PPM have them: in a file, or as they come through a pipe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from smartsplat_large.array_types import Pixels
from smartsplat_large.errors import SourceError
from smartsplat_large.lattice import Size, Window
from smartsplat_large.places import Place, is_url
from smartsplat_large.source.base import (
    Closing,
    ImageMeta,
    band_windows,
    require_supported,
    require_window,
    rows_are_cheap,
)
from smartsplat_large.source.piped import PipedSource, PipeStream
from smartsplat_large.source.ranged_file import opened, ranged_file


@dataclass(frozen=True, slots=True, kw_only=True)
class RawLayout:
    """What a header says of the rows behind it."""

    format: str
    size: Size
    channels: int
    stored: np.dtype[Any]
    """With the byte order of the file."""

    def meta(self, name: str, *, cheap_windows: bool) -> ImageMeta:
        """Raises :class:`SourceError` where such pixels are not supported."""
        dtype = require_supported(name, self.stored, self.channels)
        return ImageMeta(
            name=name, format=self.format, levels=(self.size,), dtype=dtype, channels=self.channels, tile=None,
            cheap_windows=cheap_windows,
        )  # fmt: skip


Header: TypeAlias = Callable[[BinaryIO, str], RawLayout]
"""Reads a header and no further; the second argument is the name for messages."""


class RawSource(Closing):
    """One array; a window reads its own bytes, from a disk no others."""

    def __init__(self, header: Header, path: Place, name: str) -> None:
        try:
            with opened(path) as file:
                layout, self._offset = header(file, name), file.tell()
        except OSError as error:
            raise SourceError(f"{name}: {error.strerror}", hint="give an image file that this user may read") from error
        cheap = rows_are_cheap(layout.size, remote=is_url(path))
        self.meta, self._stored = layout.meta(name, cheap_windows=cheap), layout.stored
        self._file = ranged_file(path, name)
        held = self._file.size_bytes - self._offset
        if held < self.meta.raw_bytes:
            self.close()
            raise SourceError(
                f"{name}: ends early: {self.meta.raw_bytes} bytes of pixels announced, {held} there",
                hint="the file was cut short; copy it again; one still being written can come through a pipe",
            )

    def close(self) -> None:
        self._file.close()

    def read(self, window: Window, level: int = 0) -> Pixels:
        require_window(self.meta, window, level)
        pixel_bytes = self.meta.channels * self._stored.itemsize
        stride = self.meta.size.width * pixel_bytes
        start = self._offset + window.y * stride + window.x * pixel_bytes
        rows = self._file.read_rows(start, stride, window.height, window.width * pixel_bytes)
        pixels = rows.view(self._stored).reshape(*window.shape, self.meta.channels)
        # Bytes read in one piece are not writable; the caller owns its pixels.
        return pixels.astype(self.meta.dtype, copy=not pixels.flags.writeable)


def piped_rows(header: Header, stream: PipeStream, name: str) -> PipedSource:
    """The rows of a stream, as they come."""
    layout = header(stream, name)
    meta = layout.meta(name, cheap_windows=False)
    return PipedSource(meta, stream, partial(_strips, stream, layout, meta))


def _strips(stream: PipeStream, layout: RawLayout, meta: ImageMeta, height: int) -> Iterator[tuple[Window, Pixels]]:
    row_bytes = meta.size.width * meta.channels * layout.stored.itemsize
    for window in band_windows(meta.size, height):
        rows = bytearray(window.height * row_bytes)
        came = stream.readinto(rows)
        if came < len(rows):
            raise SourceError(
                f"{meta.name}: ended after {window.y + came // row_bytes} of {meta.size.height} rows",
                hint="what writes it stopped early; start it again",
            )
        pixels = np.frombuffer(rows, layout.stored).reshape(*window.shape, meta.channels)
        yield window, pixels.astype(meta.dtype, copy=False)
