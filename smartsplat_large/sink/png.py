"""PNG, row by row: our filters, deflate by zlib, nothing held but one band."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from smartsplat_large.array_types import Pixels
from smartsplat_large.sink.base import OutputSpec
from smartsplat_large.sink.png_filter import filtered

BAND = 64
_LEVEL = 4
_COLOUR_TYPE = {1: 0, 2: 4, 3: 2, 4: 6}


def write(path: Path, spec: OutputSpec, bands: Iterator[Pixels]) -> None:
    """A PNG of 8 or 16 bits a channel, not interlaced."""
    with path.open("xb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        _write_header(file, spec)
        deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS, 9, zlib.Z_FILTERED)
        pixel_bytes = spec.channels * spec.dtype.itemsize
        above = np.zeros(spec.size.width * pixel_bytes, np.uint8)
        for band in bands:
            rows = band.astype(spec.dtype.newbyteorder(">")).reshape(len(band), -1).view(np.uint8)
            _write_chunk(file, b"IDAT", deflate.compress(filtered(rows, above, pixel_bytes).data))
            above = rows[-1]
        _write_chunk(file, b"IDAT", deflate.flush())
        _write_chunk(file, b"IEND", b"", even_empty=True)


def _write_header(file: BinaryIO, spec: OutputSpec) -> None:
    bits, colour = spec.dtype.itemsize * 8, _COLOUR_TYPE[spec.channels]
    _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", spec.size.width, spec.size.height, bits, colour, 0, 0, 0))
    if spec.icc_profile:
        _write_chunk(file, b"iCCP", b"ICC profile\0\0" + zlib.compress(spec.icc_profile))
    if spec.pixels_per_cm:
        x, y = (round(100 * value) for value in spec.pixels_per_cm)
        _write_chunk(file, b"pHYs", struct.pack(">IIB", x, y, 1))


def _write_chunk(file: BinaryIO, kind: bytes, body: bytes, *, even_empty: bool = False) -> None:
    if body or even_empty:
        file.write(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind))))
