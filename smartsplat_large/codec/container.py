"""Byte layout of a ``.ssplat`` file: varints, checksums, header, index. docs/format.md describes every field."""

from __future__ import annotations

import binascii
import itertools
import json
import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

from smartsplat_large.codec.entropy import Models
from smartsplat_large.codec.layout import GRID_DEPTH, LEAF_RANGE, Layout, image_frame
from smartsplat_large.codec.models import models_from_bytes, models_to_bytes
from smartsplat_large.codec.payload import Frame
from smartsplat_large.codec.quantize import MAX_OCTAVE, MAX_STEP_INDEX
from smartsplat_large.codec.version2 import models_of_version2
from smartsplat_large.lattice import Size

MAGIC = b"SSPL"
VERSION = 3
READ_VERSIONS = (2, 3)
PREFIX_BYTES = 8
"""Magic, version and the longest header length (three bytes)."""
SHORT_CHECK_BELOW = 1024
"""Shorter parts carry CRC-16, which finds every burst of 16 bits; longer ones CRC-32."""
MAX_SIDE = 1 << 31
MAX_COUNT = 1 << 33
MAX_METADATA_BYTES = 1 << 22

_CHANNELS, _DEEP, _GRID, _RECT, _SECTIONS, _LAYERS = 0x03, 0x04, 0x08, 0x10, 0x20, 0xC0
_ONE_LAYER = 0x40
_RESOLUTION, _ICC, _METADATA, _BACKGROUND = 0x01, 0x02, 0x04, 0x08


@dataclass(frozen=True, slots=True, kw_only=True)
class SplatHeader:
    """What a file says of itself."""

    size: Size
    channels: int
    bits: int
    """Of a pixel's channel in the image that was fitted, and in the one that is restored: 8 or 16."""
    count: int
    """Number of Gaussians."""
    block: int
    """Side of a block in pixels; 0 where one block holds all."""
    fineness: float
    """1 is quantisation noise of roughly 40 dB; 2 halves the steps."""
    background: tuple[float, ...] = ()
    """What the Gaussians are added to, one number a channel, 1 is the brightest; black where empty."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """Provenance: anything JSON holds."""
    icc_profile: bytes | None = None
    pixels_per_cm: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The header as it stands in the file: enough to find and decode everything behind it."""

    channels: int
    bits: int
    count: int
    step_index: int
    layout: Layout
    models: Models
    wide_bytes: tuple[int, ...]
    """Of the wide block in each layer."""
    index_bytes: int
    """Length of the index without its checksum; 0 without a grid."""
    icc_bytes: int = 0
    metadata_bytes: int = 0
    pixels_per_cm: tuple[float, float] | None = None
    background: tuple[int, ...] = ()
    """In levels of a pixel."""
    version: int = VERSION
    """Of the format."""
    models_bytes: int = 0
    """Length of the models, in a header that was read."""


class FormatError(Exception):
    """Bytes that are no header or no index; the reader turns it into an error that names the file."""


def check(data: bytes) -> bytes:
    """The checksum that follows ``data`` in the file."""
    if len(data) < SHORT_CHECK_BELOW:
        return struct.pack("<H", binascii.crc_hqx(data, 0xFFFF))
    return struct.pack("<I", zlib.crc32(data))


def check_bytes(length: int) -> int:
    """Length of the checksum of ``length`` bytes."""
    return 2 if length < SHORT_CHECK_BELOW else 4


def sealed_bytes(length: int) -> int:
    """Length of a part and its checksum; an absent part has none."""
    return length + check_bytes(length) if length else 0


def sealed(data: bytes) -> bytes:
    """``data`` and its checksum, or nothing for nothing."""
    return data + check(data) if data else b""


def varint(value: int) -> bytes:
    """LEB128: seven bits a byte, lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def zigzag(value: int) -> bytes:
    """A varint of either sign."""
    return varint(2 * value if value >= 0 else -2 * value - 1)


class Cursor:
    """Reads fields one after the other.

    Raises
    ------
    FormatError
        On reading past the end, or a number out of its range.
    """

    def __init__(self, raw: bytes) -> None:
        self.raw, self.at = raw, 0

    def take(self, length: int) -> bytes:
        if length < 0 or self.at + length > len(self.raw):
            raise FormatError(f"a field at byte {self.at} runs past the end")
        self.at += length
        return self.raw[self.at - length : self.at]

    def varint(self, limit: int = 1 << 63) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
            if shift > 63:
                raise FormatError(f"the number at byte {self.at} never ends")
        if value > limit:
            raise FormatError(f"the number {value} at byte {self.at} is above {limit}")
        return value

    def zigzag(self, limit: int = 1 << 40) -> int:
        value = self.varint(2 * limit)
        return value // 2 if value % 2 == 0 else -(value + 1) // 2


def head_to_bytes(head: Head) -> bytes:
    """Prefix, header and checksum."""
    layout, models = head.layout, models_to_bytes(head.models, head.channels)
    rect = layout.wide != image_frame(layout.size, layout.leaf, layout.wide.depth)
    sections = (
        (_RESOLUTION if head.pixels_per_cm else 0)
        | (_ICC if head.icc_bytes else 0)
        | (_METADATA if head.metadata_bytes else 0)
        | (_BACKGROUND if any(head.background) else 0)
    )
    flags = (
        (head.channels - 1)
        | (_DEEP if head.bits == 16 else 0)
        | (_GRID if layout.block_exponent else 0)
        | (_RECT if rect else 0)
        | (_SECTIONS if sections else 0)
        | (layout.layers - 1) * _ONE_LAYER
    )
    body = bytes([flags]) + varint(layout.size.width) + varint(layout.size.height) + varint(head.count)
    body += zigzag(head.step_index) + bytes([layout.leaf - LEAF_RANGE[0], layout.wide.depth])
    if rect:
        body += zigzag(layout.wide.x) + zigzag(layout.wide.y) + varint(layout.wide.columns) + varint(layout.wide.rows)
    body += bytes(layout.least_octaves[:-1]) + b"".join(map(varint, head.wide_bytes))
    if layout.block_exponent:
        body += bytes([layout.block_exponent]) + varint(head.index_bytes)
    if sections:
        body += bytes([sections])
        body += struct.pack("<2f", *head.pixels_per_cm) if head.pixels_per_cm else b""
        body += varint(head.icc_bytes) if head.icc_bytes else b""
        body += varint(head.metadata_bytes) if head.metadata_bytes else b""
        body += (
            b"".join(level.to_bytes(head.bits // 8, "little") for level in head.background)
            if any(head.background)
            else b""
        )
    body += models
    return sealed(MAGIC + bytes([VERSION]) + varint(len(body)) + body)


def prefix_length(raw: bytes) -> tuple[int, int]:
    """From the first bytes of a file: where the header's body starts, and where it ends (its checksum follows)."""
    cursor = Cursor(raw)
    cursor.take(len(MAGIC) + 1)
    length = cursor.varint(1 << 20)
    return cursor.at, cursor.at + length


def head_from_bytes(body: bytes, version: int = VERSION) -> Head:
    """Inverse of :func:`head_to_bytes`, without prefix and checksum.

    Raises
    ------
    FormatError
        A field is out of its range.
    """
    cursor = Cursor(body)
    flags = cursor.take(1)[0]
    size = Size(max(cursor.varint(MAX_SIDE), 1), max(cursor.varint(MAX_SIDE), 1))
    count, step_index = cursor.varint(MAX_COUNT), cursor.zigzag(MAX_STEP_INDEX)
    leaf, depth = cursor.take(1)[0] + LEAF_RANGE[0], cursor.take(1)[0]
    if leaf > LEAF_RANGE[1] or depth > 40 or not count:
        raise FormatError(f"cells of 2^{leaf} pixels, depth {depth}, {count} Gaussians: out of range")
    wide = image_frame(size, leaf, depth)
    if flags & _RECT:
        wide = Frame(cursor.zigzag(), cursor.zigzag(), cursor.varint(1 << 40), cursor.varint(1 << 40), depth)
    layers = (flags & _LAYERS) // _ONE_LAYER + 1
    least = (*cursor.take(layers - 1), 1)
    wide_bytes = tuple(cursor.varint() for _ in range(layers))
    exponent, index_bytes = (cursor.take(1)[0], cursor.varint()) if flags & _GRID else (0, 0)
    sections = cursor.take(1)[0] if flags & _SECTIONS else 0
    resolution = struct.unpack("<2f", cursor.take(8)) if sections & _RESOLUTION else None
    icc_bytes = cursor.varint() if sections & _ICC else 0
    metadata_bytes = cursor.varint() if sections & _METADATA else 0
    channels, width = (flags & _CHANNELS) + 1, 2 if flags & _DEEP else 1
    levels = [cursor.take(width) for _ in range(channels)] if sections & _BACKGROUND else []
    layout = Layout(size, leaf, exponent, wide, least)
    _require_sane(layout, bool(flags & _GRID))
    try:
        parse = models_of_version2 if version == 2 else models_from_bytes
        models_bytes = len(body) - cursor.at
        models = parse(cursor.take(models_bytes), channels)
    except ValueError as error:
        raise FormatError(str(error)) from error
    return Head(
        channels=channels, bits=8 * width, count=count, step_index=step_index, layout=layout,
        models=models, wide_bytes=wide_bytes, index_bytes=index_bytes, icc_bytes=icc_bytes,
        metadata_bytes=metadata_bytes, pixels_per_cm=resolution,
        background=tuple(int.from_bytes(level, "little") for level in levels), version=version, models_bytes=models_bytes,
    )  # fmt: skip


def _require_sane(layout: Layout, has_grid: bool) -> None:
    if has_grid and not max(layout.leaf + GRID_DEPTH, 1) <= layout.block_exponent <= 40:
        raise FormatError(f"blocks of 2^{layout.block_exponent} pixels: out of range")
    if any(low >= high for high, low in itertools.pairwise((MAX_OCTAVE + 1, *layout.least_octaves))):
        raise FormatError(f"layers from the octaves {layout.least_octaves}: out of range")
    frames = [layout.wide]
    if has_grid:
        side = 1 << (layout.block_exponent - layout.leaf - GRID_DEPTH)
        frames.append(Frame(0, 0, side, side, GRID_DEPTH))
    for frame in frames:
        if not frame.is_codable:
            raise FormatError(f"a block of {frame.columns} x {frame.rows} cells of depth {frame.depth}: out of range")


def index_to_bytes(payloads: list[bytes]) -> bytes:
    """Lengths, then checksums, of the blocks of the grid."""
    return b"".join(varint(len(p)) for p in payloads) + b"".join(check(p) for p in payloads if p)


def index_from_bytes(raw: bytes, blocks: int) -> list[tuple[int, bytes]]:
    """``(length, checksum)`` of each block.

    Raises
    ------
    FormatError
        The index does not hold ``blocks`` entries.
    """
    cursor = Cursor(raw)
    lengths = [cursor.varint(1 << 40) for _ in range(blocks)]
    entries = [(length, cursor.take(check_bytes(length)) if length else b"") for length in lengths]
    if cursor.at != len(raw):
        raise FormatError(f"the index is longer than its {blocks} entries")
    return entries


def metadata_to_bytes(metadata: dict[str, Any]) -> bytes:
    """Deflated JSON; nothing for nothing."""
    if not metadata:
        return b""
    return zlib.compress(json.dumps(metadata, separators=(",", ":"), sort_keys=True).encode(), 9)


def metadata_from_bytes(raw: bytes) -> dict[str, Any]:
    """Inverse of :func:`metadata_to_bytes`.

    Raises
    ------
    FormatError
        The bytes are not deflated JSON, or far too much of it.
    """
    try:
        plain = zlib.decompressobj().decompress(raw, MAX_METADATA_BYTES)
        found = json.loads(plain)
    except (zlib.error, ValueError, RecursionError) as error:
        raise FormatError(f"metadata: {error}") from error
    if not isinstance(found, dict):
        raise FormatError("metadata is not a table")
    return found
