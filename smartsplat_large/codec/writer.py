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
from smartsplat_large.codec.layout import WIDE, Layout, plan_layout, wide_frame
from smartsplat_large.codec.models import fit_models
from smartsplat_large.codec.payload import code_block, sort_in_frame
from smartsplat_large.codec.quantize import (
    BoolColumn,
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
KEPT_SYMBOLS = 1 << 20
"""Up to so many Gaussians, their symbols are kept between counting and coding; beyond, they are computed twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What a file may carry beside the Gaussians."""

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
    extras = Extras(metadata=metadata or {}, icc_profile=icc_profile, pixels_per_cm=pixels_per_cm)
    require_encodable(gaussians, bits)
    visible = visible_index(gaussians, size)
    spacing = mean_spacing(size, len(visible))
    result = pack(gaussians.take(visible), size, bits, fineness_to_index(fineness, spacing), extras)
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


def pack(
    gaussians: Gaussians,
    size: Size,
    bits: int,
    step_index: int,
    extras: Extras,
    *,
    layout: Layout | None = None,
    start: Models | None = None,
) -> Encoded:
    """The file for one amplitude step. ``layout`` as for a larger batch, where this one is a sample of it."""
    layout = layout or plan_layout(size, len(gaussians))
    step = amplitude_step(step_index)
    kept, number = _assign(gaussians, layout, step)
    order = kept[np.argsort(number, kind="stable")]
    borders = np.searchsorted(np.sort(number), np.arange(layout.blocks + 1))
    wide = gaussians.take(order[: borders[1]])
    layout = replace(layout, wide=wide_frame(layout, np.floor(np.ldexp(wide.xy, -layout.leaf)).astype(np.int64)))
    blocks = _Blocks(gaussians, layout, step, order, borders)
    tally = Tally()
    for number_, symbols in blocks:
        code_block(tally, layout.frame(number_), layout.leaf, gaussians.channels, symbols, len(order))
    models = fit_models(tally, gaussians.channels, start)
    payloads = _encode_blocks(blocks, models, layout, gaussians.channels)
    spacing = mean_spacing(size, len(order))
    return Encoded(
        parts=_assemble(gaussians.channels, bits, len(order), step_index, layout, models, payloads, extras),
        fineness=index_to_fineness(step_index, spacing),
        kept=np.sort(order),
        step_index=step_index,
        models=models,
    )


def _encode_blocks(blocks: _Blocks, models: Models, layout: Layout, channels: int) -> list[bytes]:
    tables = Tables(models)
    payloads = [b""] * layout.blocks
    for number, symbols in blocks:
        coder = Encoder(tables)
        code_block(coder, layout.frame(number), layout.leaf, channels, symbols, len(symbols))
        # Zeros at its end need no bytes, but a block of Gaussians must not pass for an empty one.
        payloads[number] = coder.finish() or b"\0"
    return payloads


def _assemble(
    channels: int, bits: int, count: int, step_index: int, layout: Layout, models: Models, payloads: list[bytes],
    extras: Extras,
) -> list[bytes]:  # fmt: skip
    metadata = metadata_to_bytes(extras.metadata)
    index = index_to_bytes(payloads[1:]) if layout.grid else b""
    head = Head(
        channels=channels, bits=bits, count=count, step_index=step_index, layout=layout, models=models,
        wide_bytes=len(payloads[WIDE]), index_bytes=len(index), icc_bytes=len(extras.icc_profile or b""),
        metadata_bytes=len(metadata), pixels_per_cm=extras.pixels_per_cm,
    )  # fmt: skip
    front = [
        head_to_bytes(head),
        sealed(index),
        sealed(extras.icc_profile or b""),
        sealed(metadata),
        sealed(payloads[WIDE]),
    ]
    return [part for part in front + payloads[1:] if part]


def _chunks(count: int) -> Iterator[slice]:
    return (slice(at, at + CHUNK) for at in range(0, count, CHUNK))


def _assign(gaussians: Gaussians, layout: Layout, step: float) -> tuple[Index, Index]:
    """The Gaussians that do not round to nothing (at least the strongest), and the block of each."""
    seen: list[BoolColumn] = []
    numbers: list[Index] = []
    for at in _chunks(len(gaussians)):
        part = gaussians.take(np.arange(len(gaussians))[at])
        symbols = quantize(part, step, layout.leaf)
        decoded = dequantize(symbols, step, layout.leaf)
        seen.append(np.asarray(symbols.color.any(axis=1)))
        # The reach as it will be decoded, not as given: a window must not miss what rounding let grow.
        numbers.append(layout.assign(part.xy, half_extent(decoded.scale, decoded.rotation).max(axis=1)))
    kept = np.flatnonzero(np.concatenate(seen))
    if not len(kept):
        kept = np.array([int(np.argmax(importance_of(gaussians)))])
    return kept, np.concatenate(numbers)[kept]


def importance_of(gaussians: Gaussians) -> FloatColumn:
    """Energy of each Gaussian, up to a factor: squared colour times area."""
    squared = np.square(gaussians.color, dtype=np.float64).sum(axis=1)
    return np.asarray(squared * gaussians.scale.astype(np.float64).prod(axis=1))


class _Blocks:
    """The blocks that hold Gaussians, as ``(number, symbols)``, as often as one iterates."""

    def __init__(self, gaussians: Gaussians, layout: Layout, step: float, order: Index, borders: Index) -> None:
        self._gaussians, self._layout, self._step = gaussians, layout, step
        self._order, self._borders = order, borders
        self._kept: list[tuple[int, Symbols]] | None = None

    def __iter__(self) -> Iterator[tuple[int, Symbols]]:
        if self._kept is None and len(self._order) <= KEPT_SYMBOLS:
            self._kept = list(self._quantized())
        return iter(self._kept) if self._kept is not None else self._quantized()

    def _quantized(self) -> Iterator[tuple[int, Symbols]]:
        for number in np.flatnonzero(np.diff(self._borders)).tolist():
            part = self._gaussians.take(self._order[self._borders[number] : self._borders[number + 1]])
            symbols = quantize(part, self._step, self._layout.leaf)
            yield number, sort_in_frame(symbols, self._layout.frame(number))
