"""Opens a ``.ssplat`` file and decodes the blocks that a window needs."""

from __future__ import annotations

import contextlib
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from smartsplat_large.codec.byte_file import open_bytes
from smartsplat_large.codec.container import FormatError, SplatHeader, check, metadata_from_bytes, sealed_bytes
from smartsplat_large.codec.directory import Entry, adjoining, read_directory
from smartsplat_large.codec.entropy import Decoder, Tables
from smartsplat_large.codec.layout import Layout
from smartsplat_large.codec.ledger import byte_ledger
from smartsplat_large.codec.payload import CorruptPayloadError, Scope, code_block
from smartsplat_large.codec.quantize import Symbols, amplitude_step, dequantize, index_to_fineness
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Window
from smartsplat_large.places import is_url, place_of

CACHED_GAUSSIANS = 400_000
"""Decoded Gaussians kept between windows: some 16 MB."""
JOINED_BYTES = 4 << 20
"""Blocks that are read together make up at most so many bytes, unless one alone is larger."""
OnDamage = Literal["raise", "skip"]
_TURNS = 64
"""Locks that the blocks share."""


@dataclass(frozen=True, slots=True)
class Damage:
    """A part of a file that is not as it was written."""

    part: str
    """``block 7``, or ``block 7 layer 1`` in a file of several, ``metadata``, ``colour profile`` or ``end``."""
    window: Window | None
    """The pixels that suffer; None where none do."""
    offset: int
    length: int
    reason: str

    def __str__(self) -> str:
        where = f" (pixels {self.window})" if self.window else ""
        return f"{self.part}{where} at byte {self.offset}, {self.length} bytes: {self.reason}"


class SplatFile:
    """An open file. Safe to use from several threads; pickles as its path."""

    def __init__(self, path: str | Path, *, cached_gaussians: int = CACHED_GAUSSIANS) -> None:
        """Read header and index of a file, or of what lies at a URL.

        ``cached_gaussians`` bounds what is kept decoded between windows.

        Raises
        ------
        SplatFileError
            The file is missing or unreadable, no .ssplat file, of a newer version, or header or index is damaged.
        """
        self.path = place_of(path)
        self.damage: list[Damage] = []
        """What was found broken so far, each part once."""
        self._limit = cached_gaussians
        self._lock = threading.Lock()
        self._fetching = threading.Lock()
        self._turns = [threading.Lock() for _ in range(_TURNS)]
        self._cache: OrderedDict[tuple[int, int], Gaussians] = OrderedDict()
        self._held = 0
        self._file = open_bytes(self.path)
        try:
            self._directory = read_directory(self._file)
            self.header = self._read_header()
        except BaseException:
            self.close()
            raise
        self._tables = Tables(self._directory.head.models)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """As the constructor."""
        return cls(path)

    def close(self) -> None:
        """Give the file back. Harmless when repeated."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return (_reopen, (type(self), self.path, self._limit))

    @property
    def layout(self) -> Layout:
        """How the image is parted into blocks."""
        return self._directory.head.layout

    @property
    def step_index(self) -> int:
        """The amplitude step, as the header has it."""
        return self._directory.head.step_index

    @property
    def index(self) -> tuple[Entry, ...]:
        """Where every payload lies: layer by layer, in each the wide block first."""
        return self._directory.entries

    @property
    def size_bytes(self) -> int:
        """Length of the file: the denominator of every compression ratio."""
        return self._file.size_bytes

    @property
    def expected_bytes(self) -> int:
        """Length the file should have."""
        return self._directory.file_bytes

    def gaussians(self, window: Window | None = None, *, margin: int = 0, on_damage: OnDamage = "raise") -> Gaussians:
        """Every Gaussian that may show within ``margin`` pixels of ``window`` (level 0; default the whole image).

        Reads and decodes only the blocks that come into question, and returns all their Gaussians: layer by layer, the
        wide block first, then the grid's row by row, so that any two windows agree in the order of what they share.

        Parameters
        ----------
        on_damage
            ``raise``, or ``skip`` damaged blocks and note them in :attr:`damage`.

        Raises
        ------
        SplatFileError
            A block is damaged; the message names its number, pixels and offset.
        """
        reach = (window or self.header.size.window).expanded(margin)
        blocks, touched = self.layout.blocks, self.layout.touching(reach)
        entries = [self.index[layer * blocks + number] for layer in range(self.layout.layers) for number in touched]
        parts: list[Gaussians] = []
        left = self.header.count
        # Windows side by side share blocks: what is far is not fetched twice.
        with self._fetching if is_url(self.path) else contextlib.nullcontext():
            for entry, part in self._decoded([entry for entry in entries if entry.length], on_damage):
                if len(part) > left:
                    self._damaged(entry, f"more Gaussians than the {self.header.count} announced", on_damage)
                else:
                    parts.append(part)
                    left -= len(part)
        return Gaussians.concatenate(parts) if parts else Gaussians.empty(self.header.channels)

    def block_bytes(self) -> list[int]:
        """Payload bytes of every block, the wide one first; all layers together."""
        blocks = self.layout.blocks
        return [sum(entry.length for entry in self.index[number::blocks]) for number in range(blocks)]

    def verify(self) -> list[Damage]:
        """Read the whole file and list every damaged part, in the order of the file."""
        for entry, raw in self._read(self.index):
            self._payload(entry, raw, "skip")
        extra = self.size_bytes - self.expected_bytes
        if extra > 0:
            self._note(Damage("end", None, self.expected_bytes, extra, "bytes that do not belong to the file"))
        return sorted(self.damage, key=lambda damage: damage.offset)

    def ledger(self) -> dict[str, int]:
        """Where every byte goes; the values add up to the file's size.

        ``header``, ``models``, ``index`` (with the blocks' checksums), ``metadata``, ``icc``, then ``positions``,
        ``scales``, ``rotations``, ``colors``: the payloads, shared out by the information that each attribute takes.

        Raises
        ------
        SplatFileError
            A block is damaged.
        """
        return byte_ledger(self._directory, self.payloads(), self.size_bytes)

    def payloads(self) -> Iterator[tuple[Scope, Symbols]]:
        """What every payload that is not empty holds, and its symbols, in the order of the file.

        Raises
        ------
        SplatFileError
            A block is damaged.
        """
        for entry, raw in self._read(self.index):
            symbols = self._symbols(entry, raw, "raise")
            if symbols:  # neither empty nor forged to be so
                yield self._scope(entry), symbols

    def _scope(self, entry: Entry) -> Scope:
        scope = self.layout.scope(entry.number, entry.layer, self.header.channels)
        return replace(scope, version=self._directory.head.version)

    def _read_header(self) -> SplatHeader:
        head, offset = self._directory.head, self._directory.extras_offset
        size = head.layout.size
        spacing = math.sqrt(size.pixels / head.count)
        return SplatHeader(
            size=size,
            channels=head.channels,
            bits=head.bits,
            count=head.count,
            block=head.layout.block,
            fineness=index_to_fineness(head.step_index, spacing),
            background=tuple(level / ((1 << head.bits) - 1) for level in head.background),
            metadata=self._read_metadata(offset + sealed_bytes(head.icc_bytes), head.metadata_bytes),
            icc_profile=self._section("colour profile", offset, head.icc_bytes),
            pixels_per_cm=head.pixels_per_cm,
        )

    def _read_metadata(self, offset: int, length: int) -> dict[str, Any]:
        raw = self._section("metadata", offset, length)
        try:
            return metadata_from_bytes(raw) if raw else {}
        except FormatError as error:
            self._note(Damage("metadata", None, offset, length, str(error)))
            return {}

    def _section(self, part: str, offset: int, length: int) -> bytes | None:
        """The bytes of a section that the picture does not need; None, and noted, where they are damaged."""
        if not length:
            return None
        raw = self._file.read(offset, sealed_bytes(length))
        if len(raw) == sealed_bytes(length) and check(raw[:length]) == raw[length:]:
            return raw[:length]
        self._note(Damage(part, None, offset, length, self._reason(offset + sealed_bytes(length))))
        return None

    def _reason(self, end: int) -> str:
        if end > self.size_bytes:
            return f"cut short, the file ends at byte {self.size_bytes} of {self.expected_bytes}"
        return "its checksum does not match"

    def _note(self, damage: Damage) -> None:
        with self._lock:
            if damage not in self.damage:
                self.damage.append(damage)

    def _read(self, entries: Sequence[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """Blocks and what the file has of them; those that lie side by side there are read together."""
        for run in adjoining(entries, JOINED_BYTES):
            start = run[0].offset
            raw = self._file.read(start, run[-1].end - start)
            yield from ((entry, raw[entry.offset - start : entry.end - start]) for entry in run)

    def _payload(self, entry: Entry, raw: bytes, on_damage: OnDamage) -> bytes | None:
        """The checked bytes of a block; None where they are damaged and that is to be skipped."""
        if not entry.length:
            return b""
        if len(raw) == entry.end - entry.offset and check(raw[: entry.length]) == (
            raw[entry.length :] or entry.checksum
        ):
            return raw[: entry.length]
        self._damaged(entry, self._reason(entry.end), on_damage)
        return None

    def _damaged(self, entry: Entry, reason: str, on_damage: OnDamage) -> None:
        part = f"block {entry.number}" + (f" layer {entry.layer}" if self.layout.layers > 1 else "")
        damage = Damage(part, entry.window, entry.offset, entry.length, reason)
        self._note(damage)
        if on_damage == "raise":
            raise self._file.error(str(damage), "fetch the file again; decode --skip-damage leaves the block out")

    def _symbols(self, entry: Entry, raw: bytes, on_damage: OnDamage) -> Symbols | None:
        """The symbols of a block; None where it is empty, or damaged and that is to be skipped."""
        payload = self._payload(entry, raw, on_damage)
        if not payload:
            return None
        try:
            return code_block(Decoder(self._tables, payload), self._scope(entry), None, self.header.count)
        except (CorruptPayloadError, AssertionError, ValueError) as error:
            self._damaged(entry, f"its symbols make no sense ({error})", on_damage)
            return None

    def _decoded(self, entries: Sequence[Entry], on_damage: OnDamage) -> Iterator[tuple[Entry, Gaussians]]:
        """Blocks and their Gaussians; without those that are damaged and to be skipped."""
        remembered = [self._remembered(entry) for entry in entries]
        read = self._read([entry for entry, known in zip(entries, remembered, strict=True) if known is None])
        for entry, known in zip(entries, remembered, strict=True):
            part = self._block(*next(read), on_damage) if known is None else known
            if part is not None:
                yield entry, part

    def _block(self, entry: Entry, raw: bytes, on_damage: OnDamage) -> Gaussians | None:
        # The second to come waits for the first instead of decoding it again.
        with self._turns[entry.number % len(self._turns)]:
            found = self._remembered(entry)
            if found is not None:
                return found
            symbols = self._symbols(entry, raw, on_damage)
            if symbols is None:
                return None
            decoded = dequantize(symbols, amplitude_step(self._directory.head.step_index), self.layout.leaf)
            self._remember(entry, decoded)
            return decoded

    def _remembered(self, entry: Entry) -> Gaussians | None:
        with self._lock:
            key = (entry.layer, entry.number)  # far cheaper to hash than the entry
            if key in self._cache:
                self._cache.move_to_end(key)
            return self._cache.get(key)

    def _remember(self, entry: Entry, decoded: Gaussians) -> None:
        with self._lock:
            key = (entry.layer, entry.number)
            replaced = self._cache.pop(key, None)
            self._held += len(decoded) - (len(replaced) if replaced is not None else 0)
            self._cache[key] = decoded
            while self._held > self._limit and self._cache:
                self._held -= len(self._cache.popitem(last=False)[1])


def _reopen(kind: type[SplatFile], path: str | Path, cached_gaussians: int) -> SplatFile:
    return kind(path, cached_gaussians=cached_gaussians)
