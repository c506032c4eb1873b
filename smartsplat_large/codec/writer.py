"""Gaussians to the bytes of a file, at a given fineness or within a given number of bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Int64

from smartsplat_large import columns
from smartsplat_large.array_types import Index
from smartsplat_large.codec.container import (
    Head,
    head_to_bytes,
    index_to_bytes,
    metadata_to_bytes,
    sealed,
)
from smartsplat_large.codec.entropy import Encoder, Models, Tables, Tally
from smartsplat_large.codec.layout import WIDE, Layout, plan_layout, wide_frame, with_layers
from smartsplat_large.codec.models import fit_models
from smartsplat_large.codec.payload import code_block, coded_order
from smartsplat_large.codec.quantize import (
    MAX_OCTAVE,
    ROWS,
    FloatColumn,
    IntColumn,
    Symbols,
    SymbolTable,
    amplitude_step,
    decoded_geometry,
    fineness_to_index,
    index_to_fineness,
    quantize,
)
from smartsplat_large.gaussians import Gaussians, half_extent
from smartsplat_large.lattice import Size
from smartsplat_large.ordering import by_cell

Cells = Int64[np.ndarray, "n 2"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What a file may carry beside the Gaussians."""

    background: tuple[int, ...] = ()
    """What they are added to, in levels of a pixel, one a channel; black where empty. Never left out."""
    metadata: dict[str, Any] = field(default_factory=dict)
    icc_profile: bytes | None = None
    pixels_per_cm: tuple[float, float] | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes they take in the file, nearly."""
        packed = len(metadata_to_bytes(self.metadata))
        return packed + len(self.icc_profile or b"") + (8 if self.pixels_per_cm else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A file in memory, and what became of the Gaussians that went in."""

    parts: list[memoryview]
    """The file, in pieces to be written one after the other."""
    fineness: float
    kept: Index
    """Which of the given Gaussians are in the file, ascending. Those that cannot show, or round to nothing, are not."""
    under_budget: bool = False
    """Whether less than 97 % of the budget could be used: the finest steps do not need more."""
    dropped_extras: tuple[str, ...] = ()
    """Which of resolution, colour profile and provenance were left out to make room."""
    step_index: int = 0
    models: Models | None = field(default=None, repr=False)

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.parts))

    @property
    def data(self) -> bytes:
        """The file in one piece."""
        return b"".join(self.parts)


def encode(
    gaussians: Gaussians,
    *,
    size: Size,
    bits: int,
    fineness: float = 1.0,
    metadata: dict[str, Any] | None = None,
    icc_profile: bytes | None = None,
    pixels_per_cm: tuple[float, float] | None = None,
    background: tuple[int, ...] = (),
) -> Encoded:
    """Encode with quantisation steps of ``1 / fineness`` times the usual.

    Parameters
    ----------
    gaussians
        At least one; finite, scales above 0. Centres may lie outside the image.
    size, bits
        Of the image that they render: pixels, and 8 or 16 bits a channel.
    fineness
        1 is noise of roughly 40 dB; 2 halves all steps.

    Raises
    ------
    ValueError
        There is no Gaussian, or one of them is not finite.
    """
    extras = Extras(
        metadata=metadata or {}, icc_profile=icc_profile, pixels_per_cm=pixels_per_cm, background=background
    )
    require_encodable(gaussians, bits)
    visible = visible_index(gaussians, size)
    spacing = mean_spacing(size, len(visible))
    step_index = fineness_to_index(fineness, spacing)
    result = pack(*quantized(only(gaussians, visible), size, step_index), bits, step_index, extras)
    return replace(result, kept=columns.taken(visible, result.kept))


def mean_spacing(size: Size, count: int) -> float:
    """Side of the square of pixels that each Gaussian has to itself."""
    return math.sqrt(size.pixels / count)


def require_encodable(gaussians: Gaussians, bits: int) -> None:
    """Raise ValueError where a batch cannot be written."""
    if not len(gaussians) or not 1 <= gaussians.channels <= 4 or bits not in (8, 16):
        raise ValueError(
            f"{len(gaussians)} Gaussians of {gaussians.channels} channels at {bits} bits: "
            "at least 1, 1 to 4 channels, and 8 or 16 bits can be written"
        )
    for rows in columns.chunks(len(gaussians)):
        part = gaussians.part(rows)
        numbers = (part.xy, part.scale, part.rotation, part.color)
        if not all(np.isfinite(column).all() for column in numbers) or not (part.scale > 0).all():
            raise ValueError("a Gaussian is not finite, or its scale is not above 0")


def visible_index(gaussians: Gaussians, size: Size) -> Index:
    """The Gaussians whose box touches the image; the first if there is none such."""
    visible = columns.empty(len(gaussians), bool)
    for rows in columns.chunks(len(gaussians)):
        part = gaussians.part(rows)
        extent = half_extent(part.scale, part.rotation)
        low, high = part.xy + extent, part.xy - extent
        visible[rows] = ((low > 0) & (high < (size.width, size.height))).all(axis=1)
    found = columns.true_rows(visible)
    return found if len(found) else np.zeros(1, np.int64)


def only(gaussians: Gaussians, index: Index) -> Gaussians:
    """Those at ``index``, which ascends: the batch itself where that is all of them."""
    return gaussians if len(index) == len(gaussians) else gaussians.chosen(index)


def quantized(
    gaussians: Gaussians, size: Size, step_index: int, layout: Layout | None = None
) -> tuple[SymbolTable, Layout]:
    """Symbols for one amplitude step, and the layout whose cells they count in: ``layout`` where one is given."""
    layout = layout or plan_layout(size, len(gaussians))
    step = amplitude_step(step_index)
    table = SymbolTable.empty(len(gaussians), gaussians.channels)
    for rows in columns.chunks(len(gaussians), ROWS):
        table.put(rows, quantize(gaussians.part(rows), step, layout.leaf))
    return table, layout


def pack(
    symbols: SymbolTable,
    layout: Layout,
    bits: int,
    step_index: int,
    extras: Extras,
    *,
    start: Models | None = None,
) -> Encoded:
    """The file of ``symbols``; those whose colour rounds to nothing are left out. ``start`` as for :func:`fit_models`."""
    kept = _seen(symbols)
    layout = with_layers(layout, _octaves(symbols, kept))
    payloads = _sort(symbols, kept, layout)
    layout = payloads.layout
    models = fit_models(tally_of(payloads), symbols.channels, start)
    encoded = _encode(payloads, models)
    return Encoded(
        parts=_assemble(symbols.channels, bits, len(kept), step_index, layout, models, encoded, extras),
        fineness=index_to_fineness(step_index, mean_spacing(layout.size, len(kept))),
        kept=kept,
        step_index=step_index,
        models=models,
    )


@dataclass(frozen=True, slots=True)
class Payloads:
    """Symbols by layer and block, in the order in which they are coded; taken from the table one payload at a time."""

    symbols: SymbolTable
    layout: Layout
    rows: Index
    """Of the table, payload by payload."""
    slices: dict[int, slice]
    """The rows of each payload that holds something; payloads are numbered block by block, layer by layer."""

    def __iter__(self) -> Iterator[tuple[int, int, Symbols]]:
        """Layer, block and symbols of each payload."""
        for number, rows in self.slices.items():
            yield *divmod(number, self.layout.blocks), self.symbols.take(self.rows[rows])


def _seen(symbols: SymbolTable) -> Index:
    """The Gaussians that do not round to nothing; the first where all do."""
    seen = columns.empty(len(symbols), bool)
    for rows in columns.chunks(len(symbols)):
        seen[rows] = symbols.color[rows].any(axis=1)
    kept = columns.true_rows(seen)
    return kept if len(kept) else np.array([int(np.argmax(symbols.octave))])


def _octaves(symbols: SymbolTable, kept: Index) -> IntColumn:
    """How many of the Gaussians at ``kept`` have each octave."""
    found = np.zeros(MAX_OCTAVE + 1, np.int64)
    for rows in columns.chunks(len(kept)):
        found += np.bincount(symbols.octave.take(kept[rows]), minlength=len(found))
    return found


def _sort(symbols: SymbolTable, kept: Index, layout: Layout) -> Payloads:
    """The Gaussians at ``kept`` by payload; the layout's wide frame becomes theirs."""
    number, wide = _assign(symbols, kept, layout)
    layout = replace(layout, wide=wide_frame(layout, wide))
    edges, order = by_cell(number, layout.layers * layout.blocks)
    rows, slices = columns.taken(kept, order), {}
    for payload in np.flatnonzero(np.diff(edges)).tolist():
        at = slices[payload] = slice(int(edges[payload]), int(edges[payload + 1]))
        some = rows[at]
        rows[at] = some[coded_order(symbols.cell.take(some, axis=0), layout.frame(payload % layout.blocks))]
    return Payloads(symbols, layout, rows, slices)


def _assign(symbols: SymbolTable, kept: Index, layout: Layout) -> tuple[IntColumn, Cells]:
    """The payload of each of the Gaussians at ``kept``, and the cells of those in the wide block.

    By place and reach as decoded: a window must not miss what rounding let grow.
    """
    number, wide = columns.empty(len(kept), np.int64), []
    for rows in columns.chunks(len(kept), ROWS):
        part = symbols.take(kept[rows])
        _, xy, scale, rotation = decoded_geometry(part, layout.leaf)
        block = layout.assign(xy, half_extent(scale, rotation).max(axis=1))
        wide.append(part.cell[block == WIDE])
        number[rows] = layout.layer_of(part.octave) * layout.blocks + block
    return number, np.concatenate(wide)


def tally_of(payloads: Payloads) -> Tally:
    """What coding takes, counted."""
    tally = Tally()
    for layer, block, symbols in payloads:
        code_block(tally, payloads.layout.scope(block, layer, payloads.symbols.channels), symbols, len(symbols))
    return tally


def _encode(payloads: Payloads, models: Models) -> list[list[bytes]]:
    """Bytes by layer and block."""
    tables, layout = Tables(models), payloads.layout
    encoded = [[b""] * layout.blocks for _ in range(layout.layers)]
    for layer, block, symbols in payloads:
        coder = Encoder(tables)
        code_block(coder, layout.scope(block, layer, payloads.symbols.channels), symbols, len(symbols))
        # Zeros at its end need no bytes, but a block of Gaussians must not pass for an empty one.
        encoded[layer][block] = coder.finish() or b"\0"
    return encoded


def _assemble(
    channels: int, bits: int, count: int, step_index: int, layout: Layout, models: Models, payloads: list[list[bytes]],
    extras: Extras,
) -> list[memoryview]:  # fmt: skip
    metadata = metadata_to_bytes(extras.metadata)
    index = index_to_bytes([payload for layer in payloads for payload in layer[1:]]) if layout.grid else b""
    head = Head(
        channels=channels, bits=bits, count=count, step_index=step_index, layout=layout, models=models,
        wide_bytes=tuple(len(layer[WIDE]) for layer in payloads), index_bytes=len(index),
        icc_bytes=len(extras.icc_profile or b""), metadata_bytes=len(metadata), pixels_per_cm=extras.pixels_per_cm,
        background=extras.background,
    )  # fmt: skip
    front = [head_to_bytes(head), sealed(index), sealed(extras.icc_profile or b""), sealed(metadata)]
    blocks = [part for layer in payloads for part in (sealed(layer[WIDE]), *layer[1:])]
    return _as_column([part for part in front + blocks if part])


def _as_column(parts: list[bytes]) -> list[memoryview]:
    """The same in one column: of the file of many Gaussians, several versions may live at a time."""
    room, end = columns.empty(sum(map(len, parts)), np.uint8).data, 0
    found = []
    for part in parts:
        start, end = end, end + len(part)
        room[start:end] = part
        found.append(room[start:end])
    return found


def importance_of(gaussians: Gaussians) -> FloatColumn:
    """Energy of each Gaussian, up to a factor: squared colour times area."""
    found = columns.empty(len(gaussians))
    for rows in columns.chunks(len(gaussians)):
        squared = np.square(gaussians.color[rows], dtype=np.float64).sum(axis=1)
        found[rows] = squared * gaussians.scale[rows].astype(np.float64).prod(axis=1)
    return found
