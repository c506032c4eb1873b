"""PNG and JPEG through libvips, in the memory of a few bands and without a temporary file.

libvips takes no rows from Python, but it decodes PNG from a pipe: on a thread of its own it reads one end of a pipe as
an uncompressed PNG, while the caller's thread writes the bands, wrapped as such, into the other.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from smartsplat_large.array_types import Pixels
from smartsplat_large.errors import SmartSplatError
from smartsplat_large.native_threads import pyvips
from smartsplat_large.sink.base import OutputSpec

BAND = 256
LARGEST_PNG_SIDE = 100_000_000
"""libvips's own limit, on reading as on writing."""
LARGEST_JPEG_SIDE = 65_500

_COLOUR_TYPE = {1: 0, 2: 4, 3: 2, 4: 6}
_PIPE_READ = 1 << 20

Save = Callable[[Any, Any], None]
"""Writes an image of libvips to one of its targets."""


def write_png(path: Path, spec: OutputSpec, bands: Iterator[Pixels]) -> None:
    """A PNG of 8 or 16 bits a channel, not interlaced."""
    # On photographs Paeth alone gives the size of libpng's choice by the row in seven eighths of its time.
    _write(path, spec, bands, lambda image, target: image.pngsave_target(target, compression=6, filter="paeth"))


def write_jpeg(path: Path, spec: OutputSpec, bands: Iterator[Pixels]) -> None:
    """Baseline JPEG of quality 95, full chroma resolution (4:4:4)."""
    # Only its EXIF block can hold the resolution, and libvips would invent one.
    keep = "icc|exif" if spec.pixels_per_cm else "icc"
    options = {"Q": 95, "subsample_mode": "off", "keep": keep}
    _write(path, spec, bands, lambda image, target: image.jpegsave_target(target, **options))


def _write(path: Path, spec: OutputSpec, bands: Iterator[Pixels], save: Save) -> None:
    """Create ``path`` by ``save`` from ``bands``, which are taken on this thread.

    Raises
    ------
    OSError
        The system refused to write; its ``errno`` says why.
    SmartSplatError
        libvips failed for another reason.
    """
    failures: list[Exception] = []
    with path.open("xb") as file:
        read_end, write_end = os.pipe()
        saver = threading.Thread(target=_save, args=(read_end, file, spec, save, failures), name="libvips")
        try:
            # To leave this block, by an interrupt too, ends the stream, and with it the thread.
            with os.fdopen(write_end, "wb") as pipe:
                saver.start()
                for piece in _uncompressed_png(spec, takewhile(lambda _: not failures, bands)):
                    pipe.write(piece)
        finally:
            if saver.is_alive():
                saver.join()
    if failures:
        raise failures[0]


def _save(read_end: int, file: BinaryIO, spec: OutputSpec, save: Save, failures: list[Exception]) -> None:
    """Save what comes through the pipe; note a failure, and read on to the end so that the writer is never stuck."""
    try:
        vips = pyvips()
        source = vips.Source.new_from_descriptor(read_end)
        image = vips.Image.pngload_source(source, access="sequential", fail_on="truncated")
        save(_described(image, spec), vips.Target.new_to_descriptor(file.fileno()))
    except Exception as error:
        failures.append(_named(error, file.name))
    finally:
        while os.read(read_end, _PIPE_READ):
            pass
        os.close(read_end)


def _described(image: Any, spec: OutputSpec) -> Any:
    """``image`` with the profile and the resolution of ``spec``."""
    # Pixels per millimetre; 1 is libvips's "unknown", where a PNG that is silent would be taken for 72 dpi.
    x, y = (density / 10 for density in spec.pixels_per_cm or (10, 10))
    image = image.copy(xres=x, yres=y)
    if spec.icc_profile:
        image.set_type(pyvips().GValue.blob_type, "icc-profile-data", spec.icc_profile)
    return image


def _uncompressed_png(spec: OutputSpec, bands: Iterable[Pixels]) -> Iterator[bytes]:
    """The chunks of a PNG whose rows are stored as they are: no filter, deflate of level 0."""
    bits, colour = spec.dtype.itemsize * 8, _COLOUR_TYPE[spec.channels]
    header = struct.pack(">IIBBBBB", spec.size.width, spec.size.height, bits, colour, 0, 0, 0)
    yield b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header)
    deflate = zlib.compressobj(0)
    for band in bands:
        values = np.ascontiguousarray(band, spec.dtype.newbyteorder(">")).reshape(len(band), -1).view(np.uint8)
        for row in values:
            yield _chunk(b"IDAT", deflate.compress(b"\0" + row.tobytes()))
    yield _chunk(b"IDAT", deflate.flush())
    yield _chunk(b"IEND", b"")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


def _named(error: Exception, name: str) -> Exception:
    """The system's error where libvips, which tells only in words, tells of one; or else its words."""
    said = " ".join(str(error).split())
    for number in errno.errorcode:
        if os.strerror(number) in said:
            return OSError(number, os.strerror(number), name)
    return SmartSplatError(f"{name}: libvips could not write it: {said}", hint="write .tif or .zarr")
