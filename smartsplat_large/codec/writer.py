"""Gaussians to the bytes of a file, at a given fineness or within a given number of bytes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

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
from smartsplat_large.codec.payload import code_block, sort_in_frame
from smartsplat_large.codec.quantize import (
    FloatColumn,
    Symbols,
    amplitude_step,
    dequantize,
    fineness_to_index,
    index_to_fineness,
    quantize,
)
from smartsplat_large.gaussians import Gaussians, half_extent
from smartsplat_large.lattice import Size

CHUNK = 1 << 18
"""Gaussians quantised at a time while they are assigned to blocks."""


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

    parts: list[bytes]
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
    result = pack(*quantized(gaussians.take(visible), size, step_index), bits, step_index, extras)
    return replace(result, kept=visible[result.kept])


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
    columns = (gaussians.xy, gaussians.scale, gaussians.rotation, gaussians.color)
    if not all(np.isfinite(column).all() for column in columns) or not (gaussians.scale > 0).all():
        raise ValueError("a Gaussian is not finite, or its scale is not above 0")


def visible_index(gaussians: Gaussians, size: Size) -> Index:
    """The Gaussians whose box touches the image; the first if there is none such."""
    visible = np.empty(len(gaussians), bool)
    for at in _chunks(len(gaussians)):
        extent = half_extent(gaussians.scale[at], gaussians.rotation[at])
        low, high = gaussians.xy[at] + extent, gaussians.xy[at] - extent
        visible[at] = ((low > 0) & (high < (size.width, size.height))).all(axis=1)
    return np.flatnonzero(visible) if visible.any() else np.zeros(1, np.int64)


def quantized(
    gaussians: Gaussians, size: Size, step_index: int, layout: Layout | None = None
) -> tuple[Symbols, Layout]:
    """Symbols for one amplitude step, and the layout whose cells they count in: ``layout`` where one is given."""
    layout = layout or plan_layout(size, len(gaussians))
    step = amplitude_step(step_index)
    parts = [quantize(gaussians.take(at), step, layout.leaf) for at in _chunks(len(gaussians))]
    return Symbols.concatenate(parts), layout


def pack(
    symbols: Symbols,
    layout: Layout,
    bits: int,
    step_index: int,
    extras: Extras,
    *,
    start: Models | None = None,
) -> Encoded:
    """The file of ``symbols``; those whose colour rounds to nothing are left out. ``start`` as for :func:`fit_models`."""
    channels = symbols.color.shape[1]
    kept = _seen(symbols)
    if len(kept) < len(symbols):
        symbols = symbols.take(kept)
    layout = with_layers(layout, symbols.octave)
    number = _assign(symbols, layout, amplitude_step(step_index))
    wide = symbols.cell[number == WIDE]
    layout = replace(layout, wide=wide_frame(layout, wide))
    payloads = _sort(symbols, layout, number)
    tally = tally_of(payloads, layout, channels)
    models = fit_models(tally, channels, start)
    encoded = _encode(payloads, models, layout, channels)
    return Encoded(
        parts=_assemble(channels, bits, len(symbols), step_index, layout, models, encoded, extras),
        fineness=index_to_fineness(step_index, mean_spacing(layout.size, len(symbols))),
        kept=kept,
        step_index=step_index,
        models=models,
    )


Payloads = dict[tuple[int, int], Symbols]
"""Symbols by layer and block, in the order in which they are coded."""


def _sort(symbols: Symbols, layout: Layout, number: Index) -> Payloads:
    """Symbols by payload; those that hold nothing are not listed."""
    key = layout.layer_of(symbols.octave) * layout.blocks + number
    order = np.argsort(key, kind="stable")
    keys, starts = np.unique(key[order], return_index=True)
    found: Payloads = {}
    for one, low, high in zip(keys.tolist(), starts, [*starts[1:], len(order)], strict=True):
        layer, block = divmod(one, layout.blocks)
        found[layer, block] = sort_in_frame(symbols.take(order[low:high]), layout.frame(block))
    return found


def tally_of(payloads: Payloads, layout: Layout, channels: int) -> Tally:
    """What coding takes, counted."""
    tally = Tally()
    for (layer, block), symbols in payloads.items():
        code_block(tally, layout.scope(block, layer, channels), symbols, len(symbols))
    return tally


def _encode(payloads: Payloads, models: Models, layout: Layout, channels: int) -> list[list[bytes]]:
    """Bytes by layer and block."""
    tables = Tables(models)
    encoded = [[b""] * layout.blocks for _ in range(layout.layers)]
    for (layer, block), symbols in payloads.items():
        coder = Encoder(tables)
        code_block(coder, layout.scope(block, layer, channels), symbols, len(symbols))
        # Zeros at its end need no bytes, but a block of Gaussians must not pass for an empty one.
        encoded[layer][block] = coder.finish() or b"\0"
    return encoded


def _assemble(
    channels: int, bits: int, count: int, step_index: int, layout: Layout, models: Models, payloads: list[list[bytes]],
    extras: Extras,
) -> list[bytes]:  # fmt: skip
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
    return [part for part in front + blocks if part]


def _chunks(count: int) -> Iterator[Index]:
    return (np.arange(at, min(at + CHUNK, count)) for at in range(0, count, CHUNK))


def _seen(symbols: Symbols) -> Index:
    """The Gaussians that do not round to nothing; the first where all do."""
    kept = np.flatnonzero(symbols.color.any(axis=1))
    return kept if len(kept) else np.array([int(np.argmax(symbols.octave))])


def _assign(symbols: Symbols, layout: Layout, step: float) -> Index:
    """The block of each Gaussian, by its place and reach as decoded: a window must not miss what rounding let grow."""
    numbers = []
    for at in _chunks(len(symbols)):
        decoded = dequantize(symbols.take(at), step, layout.leaf)
        numbers.append(layout.assign(decoded.xy, half_extent(decoded.scale, decoded.rotation).max(axis=1)))
    return np.concatenate(numbers)


def importance_of(gaussians: Gaussians) -> FloatColumn:
    """Energy of each Gaussian, up to a factor: squared colour times area."""
    squared = np.square(gaussians.color, dtype=np.float64).sum(axis=1)
    return np.asarray(squared * gaussians.scale.astype(np.float64).prod(axis=1))
