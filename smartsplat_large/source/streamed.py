"""PNG, JPEG and WebP through libvips, decoded from the top as far as wanted, not held whole where the format allows.

An image is shown upright, as its EXIF orientation says. Baseline JPEG and plain PNG stream in a few dozen rows. What
cannot stream is held by the decoder (``ImageMeta.held_bytes``): an interlaced PNG and a WebP as pixels, a progressive JPEG as
coefficients (two bytes a sample). A WebP, and an image that must be turned unless it is held as pixels already, is unpacked by
libvips, above 100 MiB into a temporary file. Through a pipe, or from an address, it is the same, but that a WebP, and a PNG
that cannot stream, are held compressed, too.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from smartsplat_large.array_types import Pixels
from smartsplat_large.errors import SourceError
from smartsplat_large.lattice import Size, Window
from smartsplat_large.memory import GiB, MiB, doubt_of_room, format_bytes
from smartsplat_large.native_threads import pyvips
from smartsplat_large.places import Place
from smartsplat_large.source.base import Closing, ImageMeta, band_windows, require_supported, require_window
from smartsplat_large.source.piped import PipedSource, PipeStream
from smartsplat_large.source.ranged_file import opened

_DTYPES = {"uchar": np.uint8, "ushort": np.uint16}
_SPACES = ("b-w", "grey16", "srgb", "rgb", "rgb16")
_FETCH_ROWS = 256
_REQUEST_BYTES = 4 << 20
"""Fetched at a time of a file at an address."""
_MOST_UNPACKED_BYTES = 100 * MiB
"""Of an image that libvips unpacks in memory; a larger one goes to a temporary file, all of which comes to be mapped."""


class StreamedSource(Closing):
    """A file that is decoded from its start for every window; ``bands`` reads it once."""

    def __init__(self, kind: str, path: Place, name: str) -> None:
        self._kind, self._path, self._name = kind, path, name
        with self._image() as image:
            self.meta = _meta(image, kind, name, path.stat().st_size if isinstance(path, Path) else None)

    def __reduce__(self) -> tuple[object, ...]:
        return (StreamedSource, (self._kind, self._path, self._name))

    def read(self, window: Window, level: int = 0) -> Pixels:
        require_window(self.meta, window, level)
        out = np.empty((*window.shape, self.meta.channels), self.meta.dtype)
        with self._image() as image:
            for strip, pixels in _strips(image, self.meta, window, _FETCH_ROWS):
                out[strip.slices(window)] = pixels
        return out

    def bands(self, height: int) -> Iterator[tuple[Window, Pixels]]:
        """The whole image, decoded once, as full-width strips of ``height`` rows from the top."""
        with self._image() as image:
            yield from _strips(image, self.meta, self.meta.size.window, height)

    @contextmanager
    def _image(self) -> Iterator[Any]:
        """The image, to be decoded from its top inside the ``with`` block."""
        if isinstance(self._path, Path):
            yield _upright(partial(getattr(pyvips().Image, f"{self._kind}load"), str(self._path)), self._name)
            return
        with opened(self._path, _REQUEST_BYTES) as stream:
            feed = _Feed(stream)
            with feed.failures():
                yield feed.image(self._kind, self._name)


def piped_image(kind: str, stream: PipeStream, name: str) -> PipedSource:
    """An image decoded as its bytes come; of a WebP, they must all have come."""
    feed = _Feed(stream)
    with feed.failures():
        image = feed.image(kind, name)
    meta = _meta(image, kind, name, None)
    return PipedSource(meta, stream, partial(_fed_strips, feed, image, meta))


class _Stream(Protocol):
    def read1(self, size: int = -1, /) -> bytes: ...


class _Feed:
    """What libvips reads a stream through."""

    def __init__(self, stream: _Stream) -> None:
        self._failures: list[BaseException] = []
        self.source = pyvips().SourceCustom()
        # Not a method: in a cycle, what is held of the stream would wait for the garbage collector.
        self.source.on_read(partial(_read, stream, self._failures))

    def image(self, kind: str, name: str) -> Any:
        """The image that comes, upright, to be decoded inside :meth:`failures`."""
        return _upright(partial(getattr(pyvips().Image, f"{kind}load_source"), self.source), name)

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Raises, at the end of the ``with`` block, what kept the stream from being read: libvips cannot pass it on."""
        try:
            yield
        finally:
            if self._failures:
                raise self._failures[0]


def _read(stream: _Stream, failures: list[BaseException], count: int) -> bytes:
    try:
        return stream.read1(count)
    except BaseException as error:
        failures.append(error)
        return b""


def _fed_strips(feed: _Feed, image: Any, meta: ImageMeta, height: int) -> Iterator[tuple[Window, Pixels]]:
    with feed.failures():
        yield from _strips(image, meta, meta.size.window, height)


def _strips(image: Any, meta: ImageMeta, window: Window, height: int) -> Iterator[tuple[Window, Pixels]]:
    vips = pyvips()
    region = vips.Region.new(image)
    for rows in band_windows(Size(window.width, window.height), height):
        strip = Window(window.x, window.y + rows.y, rows.width, rows.height)
        try:
            data = region.fetch(strip.x, strip.y, strip.width, strip.height)
        except vips.Error as error:
            raise _unreadable(meta.name, error) from error
        values = np.frombuffer(data, meta.dtype)
        yield strip, values.reshape(*strip.shape, meta.channels).copy()


def _upright(load: Callable[..., Any], name: str) -> Any:
    """The image as it is shown, whose pixels are decoded when they are fetched."""
    try:
        image = load(access="sequential", fail_on="truncated")
        if _field(image, "orientation") in range(2, 9):
            image = load(access="random", fail_on="truncated").autorot()
    except pyvips().Error as error:
        raise _unreadable(name, error) from error
    return image


def _meta(image: Any, kind: str, name: str, file_bytes: int | None) -> ImageMeta:
    """Of a stream, ``file_bytes`` is None."""
    space = str(image.interpretation)
    if space not in _SPACES:
        raise SourceError(f"{name}: colours in {space} are not supported", hint="convert it to sRGB first")
    dtype = require_supported(name, _DTYPES.get(str(image.format), np.float32), image.bands)
    raw_bytes = image.width * image.height * image.bands * dtype.itemsize
    return ImageMeta(
        name=name,
        format=kind,
        levels=(Size(image.width, image.height),),
        dtype=dtype,
        channels=image.bands,
        tile=None,
        cheap_windows=False,
        held_bytes=_held_bytes(image, kind, raw_bytes, file_bytes),
        remark=_remark(raw_bytes) if _is_unpacked(image, kind) else None,
        icc_profile=_field(image, "icc-profile-data"),
        pixels_per_cm=_resolution(image),
    )


def _held_bytes(image: Any, kind: str, raw_bytes: int, file_bytes: int | None) -> int:
    """As libvips was seen to hold them; what it holds of a stream, compressed, is taken to be no more than its pixels."""
    pixels: int = image.width * image.height
    unpacked = _is_unpacked(image, kind)
    if kind == "webp":
        # Two frames of four channels, whatever there are.
        return 8 * pixels + (raw_bytes if file_bytes is None else file_bytes)
    if kind == "png":
        return raw_bytes * (2 if file_bytes is None else 1) if unpacked or _field(image, "interlaced") else 0
    # Of all ways to store fewer colours it says 4:2:0: they take half the samples, or two thirds.
    samples = min(2, image.bands) if _field(image, "jpeg-chroma-subsample") == "4:2:0" else image.bands
    coefficients = 2 * samples * pixels if _field(image, "jpeg-multiscan") else 0
    if not unpacked:
        return coefficients
    # A file is mapped when they are gone.
    return max(coefficients, raw_bytes) if raw_bytes > _MOST_UNPACKED_BYTES else coefficients + raw_bytes


def _is_unpacked(image: Any, kind: str) -> bool:
    """Whether libvips unpacks it before the first row is had: a WebP, or an image to be turned that is not held already."""
    turned = not _field(image, "vips-sequential")
    return kind == "webp" or (turned and not (kind == "png" and _field(image, "interlaced")))


def _remark(raw_bytes: int) -> str | None:
    """That there is a temporary file, of a GiB or more, or which may not fit."""
    folder = tempfile.gettempdir()
    doubt = doubt_of_room(folder, raw_bytes)
    if raw_bytes <= _MOST_UNPACKED_BYTES or (raw_bytes < GiB and not doubt):
        return None
    return f"while it is read, a temporary file takes {format_bytes(raw_bytes)} in {folder}{doubt}"


def _unreadable(name: str, error: Exception) -> SourceError:
    said = " ".join(str(error).split())
    return SourceError(f"{name}: cannot be decoded: {said}", hint="it is damaged or cut short; fetch or write it again")


def _field(image: Any, name: str) -> Any:
    return image.get(name) if image.get_typeof(name) else None


def _resolution(image: Any) -> tuple[float, float] | None:
    # libvips counts in pixels per millimetre, and where a file says nothing it says 1, or 72 to the inch.
    if any(math.isclose(image.xres, nothing, rel_tol=1e-3) and image.xres == image.yres for nothing in (1, 72 / 25.4)):
        return None
    return (image.xres * 10, image.yres * 10)
