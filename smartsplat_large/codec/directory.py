"""Reads and checks what stands at the front of a file: header and index."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from smartsplat_large.codec.container import (
    MAGIC,
    PREFIX_BYTES,
    READ_VERSIONS,
    FormatError,
    Head,
    check,
    check_bytes,
    head_from_bytes,
    index_from_bytes,
    prefix_length,
    sealed_bytes,
)
from smartsplat_large.codec.layout import WIDE
from smartsplat_large.codec.readable import Readable
from smartsplat_large.lattice import Window

FIRST_READ_BYTES = 1024
COUNT_SLACK, COUNT_PER_BYTE = 1 << 20, 64
"""A file may announce this many Gaussians, and this many more per byte: more is a forgery, not a picture."""
CELL_SLACK, CELLS_PER_BYTE = 1 << 22, 256
"""And so many coarse cells to look for them in, which take time even where they are empty."""
_AGAIN = "fetch or encode the file again"


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a block lies in the file."""

    layer: int
    number: int
    """0 is the wide block; the blocks of the grid follow, row by row."""
    window: Window
    """The pixels whose Gaussians it holds."""
    offset: int
    length: int
    checksum: bytes
    """Empty where it stands behind the payload (the wide block)."""

    @property
    def end(self) -> int:
        """The first byte behind it, a checksum of its own included."""
        return self.offset + (sealed_bytes(self.length) if self.number == WIDE else self.length)


@dataclass(frozen=True, slots=True)
class Directory:
    """Everything in front of the payloads."""

    head: Head
    entries: tuple[Entry, ...]
    """All blocks of the first layer by number, then those of the second, ...: ascending offsets."""
    extras_offset: int
    """Where profile and metadata start."""

    @property
    def file_bytes(self) -> int:
        """Length of the whole file."""
        return self.entries[-1].end


def adjoining(entries: Sequence[Entry], limit: int) -> Iterator[list[Entry]]:
    """``entries``, which ascend, in runs without a gap, of at most ``limit`` bytes or one entry."""
    run: list[Entry] = []
    for entry in entries:
        if run and (run[-1].end != entry.offset or entry.end - run[0].offset > limit):
            yield run
            run = []
        run.append(entry)
    if run:
        yield run


def read_directory(file: Readable) -> Directory:
    """Header and index of a file.

    Raises
    ------
    SplatFileError
        It is no .ssplat file, of a newer version, cut short within header or index, or one of them is damaged.
    """
    head, header_end = _read_head(file)
    checked = _read_index(file, head, header_end)
    extras = header_end + sealed_bytes(head.index_bytes)
    offset = extras + sealed_bytes(head.icc_bytes) + sealed_bytes(head.metadata_bytes)
    entries: list[Entry] = []
    listed = iter(checked)
    for layer, number in itertools.product(range(head.layout.layers), range(head.layout.blocks)):
        length, checksum = next(listed) if number else (head.wide_bytes[layer], b"")
        entries.append(Entry(layer, number, head.layout.window(number), offset, length, checksum))
        offset = entries[-1].end
    _require_countable(file, head, entries)
    return Directory(head, tuple(entries), extras)


def _read_head(file: Readable) -> tuple[Head, int]:
    raw = file.read(0, FIRST_READ_BYTES)
    _require_ours(file, raw)
    try:
        start, end = prefix_length(raw)
        total = end + check_bytes(end)
        if total > file.size_bytes:
            raise file.error(f"cut short at byte {file.size_bytes}, within its header of {total} bytes", _AGAIN)
        raw += file.read(len(raw), total - len(raw))
        if check(raw[:end]) != raw[end:total]:
            raise file.error(f"the header (bytes 0 to {total}) is damaged: its checksum does not match", _AGAIN)
        head = head_from_bytes(raw[start:end], raw[len(MAGIC)])
    except FormatError as error:
        raise file.error(f"the header is damaged: {error}", _AGAIN) from error
    if head.count > COUNT_SLACK + COUNT_PER_BYTE * file.size_bytes:
        raise file.error(f"announces {head.count} Gaussians, more than {file.size_bytes} bytes can hold", _AGAIN)
    return head, total


def _require_ours(file: Readable, raw: bytes) -> None:
    if not raw:
        raise file.error("is empty", _AGAIN)
    if raw[: len(MAGIC)] != MAGIC[: len(raw)]:
        raise file.error(f"is no .ssplat file: it starts with {raw[:4]!r}, not {MAGIC!r}", "fit an image to make one")
    if len(raw) < PREFIX_BYTES:
        raise file.error(f"cut short at byte {len(raw)}, within its header", _AGAIN)
    version = raw[len(MAGIC)]
    if version not in READ_VERSIONS:
        raise file.error(
            f"is of format version {version}; this program reads versions {READ_VERSIONS[0]} to {READ_VERSIONS[-1]}",
            "upgrade smartsplat-large",
        )


def _require_countable(file: Readable, head: Head, entries: list[Entry]) -> None:
    cells = (head.layout.wide.cells, head.layout.block_cells)
    counted = sum(cells[entry.number != WIDE] for entry in entries if entry.length)
    if counted > CELL_SLACK + CELLS_PER_BYTE * file.size_bytes:
        raise file.error(
            f"spreads its Gaussians over {counted} cells, more than {file.size_bytes} bytes can mean", _AGAIN
        )


def _read_index(file: Readable, head: Head, offset: int) -> list[tuple[int, bytes]]:
    if not head.layout.grid:
        return []
    blocks, length = len(head.layout.grid) * head.layout.layers, head.index_bytes
    end = offset + sealed_bytes(length)
    if end > file.size_bytes:
        raise file.error(f"cut short at byte {file.size_bytes}, within its index (bytes {offset} to {end})", _AGAIN)
    if blocks > length:
        raise file.error(f"the header is damaged: {blocks} payloads cannot be listed in {length} bytes", _AGAIN)
    raw = file.read(offset, sealed_bytes(length))
    if check(raw[:length]) != raw[length:]:
        raise file.error(f"the index (bytes {offset} to {end}) is damaged: its checksum does not match", _AGAIN)
    try:
        return index_from_bytes(raw[:length], blocks)
    except FormatError as error:
        raise file.error(f"the index is damaged: {error}", _AGAIN) from error
