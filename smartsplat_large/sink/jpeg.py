"""Baseline JPEG of any height in the memory of one band.

Each band is encoded by itself, with the same tables, and the encoded bands are joined by restart markers. These reset
the coder, so the joined file is the one that a single encoder with that restart interval would have written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from smartsplat_large.array_types import Pixels
from smartsplat_large.sink.base import OutputSpec

LARGEST_SIDE = 65535
_QUALITY = 95
_UNIT = 8
_MOST_UNITS = 65535
_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SOF0, _SOS, _APP0 = 0xC0, 0xDA, 0xE0
_PROFILE_PIECE = 65519


def band_height(spec: OutputSpec) -> int:
    """Rows of a band: one restart interval, which may have 65535 units of 8 x 8 pixels."""
    return _UNIT * min(32, _MOST_UNITS // -(-spec.size.width // _UNIT))


def write(path: Path, spec: OutputSpec, bands: Iterator[Pixels]) -> None:
    """Quality 95, full chroma resolution (4:4:4)."""
    units = band_height(spec) // _UNIT * -(-spec.size.width // _UNIT)
    first = next(bands)
    tables, _ = _split(_encode(first))
    with path.open("xb") as file:
        file.write(_SOI + _application_segments(spec))
        for marker, body in tables:
            if marker == _SOF0:
                body = body[:1] + struct.pack(">H", spec.size.height) + body[3:]
            if marker == _SOS:
                file.write(_segment(0xDD, struct.pack(">H", units)))
            file.write(_segment(marker, body))
        for index, band in enumerate(chain([first], bands)):
            if index:
                file.write(bytes([0xFF, 0xD0 + (index - 1) % 8]))
            file.write(_split(_encode(band))[1])
        file.write(_EOI)


def _encode(band: Pixels) -> bytes:
    import imagecodecs

    pixels = band[:, :, 0] if band.shape[2] == 1 else band
    encoded = imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels), level=_QUALITY, subsampling="444", optimize=False)
    return bytes(encoded)


def _split(encoded: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The segments of a JPEG, without its application data, and its entropy-coded bytes."""
    segments: list[tuple[int, bytes]] = []
    position = len(_SOI)
    while True:
        marker, length = encoded[position + 1], struct.unpack_from(">H", encoded, position + 2)[0]
        if not _APP0 <= marker < _APP0 + 16:
            segments.append((marker, encoded[position + 4 : position + 2 + length]))
        position += 2 + length
        if marker == _SOS:
            return segments, encoded[position : -len(_EOI)]


def _application_segments(spec: OutputSpec) -> bytes:
    unit, x, y = 0, 1, 1
    if spec.pixels_per_cm:
        unit, (x, y) = 2, (min(65535, max(1, round(value))) for value in spec.pixels_per_cm)
    out = _segment(_APP0, b"JFIF\0" + struct.pack(">HBHHBB", 0x0102, unit, x, y, 0, 0))
    profile = spec.icc_profile or b""
    pieces = [profile[i : i + _PROFILE_PIECE] for i in range(0, len(profile), _PROFILE_PIECE)]
    for number, piece in enumerate(pieces, 1):
        out += _segment(0xE2, b"ICC_PROFILE\0" + bytes([number, len(pieces)]) + piece)
    return out


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body
