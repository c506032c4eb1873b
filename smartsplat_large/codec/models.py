"""Fits the models of a file to what was counted, and turns them into a few bytes."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

import numpy as np

from smartsplat_large.codec.entropy import (
    SPLIT_SHAPES,
    Family,
    Histogram,
    Kernel,
    Models,
    Tally,
    Weights,
    split_weights,
)
from smartsplat_large.codec.payload import component_streams
from smartsplat_large.codec.standard import (
    DIRECTIONS,
    FARTHEST,
    LEAST_LEVEL,
    Coordinates,
    Standard,
    Table,
    powers,
    standard_tables,
)
from smartsplat_large.codec.tokens import STREAMS, ModelKey, alphabet

HISTOGRAM_OVERHEAD_BITS = 32
HISTOGRAM_TOKEN_BITS = 5.0
"""What a token of a histogram costs in the header, measured after deflation; used to decide whether one pays."""
SMALLEST_SHARE = 2.0**-24
"""Where a token's share of the weights falls below this, the coder still gives it so much."""
FAR_CENTRE = 49
KERNEL_FOLLOWS = 8
"""In place of the first coordinate of a stream."""
BEYOND_BITS = 20
"""About what a token beyond the table takes."""
KERNEL_BITS = 8
"""What a kernel takes beyond the three coordinates."""
POOR = 1.3
"""Share of the least that any model could take, from which on a kernel is tried in place of a standard model."""
_START = Kernel(centre=0, width=16, shape=1)
_ORIGIN = (0,) * DIRECTIONS
T = TypeVar("T")


def streams_of(channels: int) -> tuple[str, ...]:
    """Streams with a model of their own, in the order of the file."""
    return ("count", "octave", *component_streams(channels), "mean", "aspect", "turn")


def fit_models(tally: Tally, channels: int, start: Models | None = None) -> Models:
    """The cheapest models for what ``tally`` holds, their own bytes included. ``start`` is where the search begins."""
    families: dict[str, Family] = {}
    for name in streams_of(channels):
        counted = {key[1]: counts for key, counts in tally.histograms.items() if key[0] == name and counts.any()}
        families[name] = _fit_family(name, counted, start.families.get(name) if start else None)
    histograms = _worthwhile_histograms(tally, Models(families))
    split = min(range(len(SPLIT_SHAPES)), key=lambda shape: split_bits(tally, shape))
    return Models(families, histograms, split)


def stream_bits(models: Models, tally: Tally) -> dict[str, float]:
    """Bits that coding what ``tally`` holds takes, by stream; exact to the coder's rounding."""
    bits: dict[str, float] = dict(tally.uniform_bits)
    for key, counts in tally.histograms.items():
        first, weights = models.table(key)
        bits[key[0]] = bits.get(key[0], 0.0) + _bits(counts[first : first + len(weights)], weights)
    bits["split"] = bits.get("split", 0.0) + split_bits(tally, models.split)
    return bits


def models_to_bytes(models: Models, channels: int) -> bytes:
    """See docs/format.md, Models."""
    nibbles = [models.split]
    for name in streams_of(channels):
        family = models.families[name]
        if isinstance(family, Kernel):
            nibbles += [KERNEL_FOLLOWS, *itertools.chain.from_iterable(divmod(byte, 16) for byte in family.to_bytes())]
        elif isinstance(family, Standard):
            nibbles += [coordinate & 15 for coordinate in family.coordinates]
    nibbles += [0] * (len(nibbles) % 2)
    packed = b"".join(_histogram_bytes(k, h) for k, h in sorted(models.histograms.items()))
    families = bytes(16 * high + low for high, low in zip(nibbles[::2], nibbles[1::2], strict=True))
    return families + (deflate(packed) if packed else b"")


def models_from_bytes(raw: bytes, channels: int) -> Models:
    """Inverse of :func:`models_to_bytes`.

    Raises
    ------
    ValueError
        The bytes are no models.
    """
    nibbles = _Nibbles(raw)
    split = nibbles.take()
    families = {name: _parse_family(name, nibbles) for name in streams_of(channels)}
    if split >= len(SPLIT_SHAPES):
        raise ValueError("models of an unknown split")
    rest = raw[(nibbles.at + 1) // 2 :]
    return Models(families, dict(_parse_histograms(inflate(rest))) if rest else {}, split)


class _Nibbles:
    """Half bytes, the upper one first."""

    def __init__(self, raw: bytes) -> None:
        self._raw, self.at = raw, 0

    def take(self) -> int:
        if self.at >= 2 * len(self._raw):
            raise ValueError("models cut short")
        self.at += 1
        byte = self._raw[(self.at - 1) // 2]
        return byte >> 4 if self.at % 2 else byte & 15


def _parse_family(name: str, nibbles: _Nibbles) -> Family:
    first = nibbles.take()
    if first == KERNEL_FOLLOWS:
        return Kernel.from_bytes(bytes(16 * nibbles.take() + nibbles.take() for _ in range(2)))
    coordinates = [first, *(nibbles.take() for _ in range(DIRECTIONS - 1))]
    if name not in standard_tables() or KERNEL_FOLLOWS in coordinates:
        raise ValueError(f"models: no standard model of {name}")
    return Standard(tuple(value - 16 if value > KERNEL_FOLLOWS else value for value in coordinates))


def _fit_family(name: str, counted: Mapping[int, Weights], start: Family | None) -> Family:
    """A standard model; a kernel where that serves better, or there is no other."""
    if name not in standard_tables():
        return _fit_kernel(name, counted, start if isinstance(start, Kernel) else _START)[0]
    origin = start.coordinates if isinstance(start, Standard) else _ORIGIN
    standard, bits = fit_standard(name, standard_tables()[name], counted, origin)
    least = sum(_bits(counts, counts) for counts in counted.values())
    if bits > POOR * least + KERNEL_BITS:
        kernel, kernel_bits = _fit_kernel(name, counted, start if isinstance(start, Kernel) else _START)
        if kernel_bits + KERNEL_BITS < bits:
            return kernel
    return standard


def fit_standard(
    name: str, table: Table, counted: Mapping[int, Weights], start: Coordinates = _ORIGIN
) -> tuple[Standard, float]:
    """Descent over the coordinates of a stream with counts by context, and the bits that the best take."""
    shown = [alphabet((name, context)) for context in counted]
    rows = np.array([table.row(name, context) for context in counted], np.int64)
    at = np.arange(table.first, table.first + table.base.shape[1])
    masks = np.array([(at >= first) & (at < end) for first, end in shown]).reshape(len(rows), len(at))
    counts = np.array([c[table.first : table.first + len(at)] for c in counted.values()]).reshape(masks.shape)
    beyond = sum(c.sum() for c in counted.values()) - counts.sum()
    # Tokens that the table lacks have the least of weights.
    least = float(powers(np.array(LEAST_LEVEL)))
    lacking = np.array([end - first for first, end in shown]) - masks.sum(axis=1)

    def cost(coordinates: Coordinates) -> float:
        weights = powers(table.levels(coordinates, rows)) * masks
        total = weights.sum(axis=1) + lacking * least
        logs = np.log2(np.maximum(weights, 2.0**-40)) - np.log2(total)[:, None]
        return float(-(counts * logs).sum() + BEYOND_BITS * beyond)

    best, bits = _descend(cost, start, _standard_neighbors)
    return Standard(best), bits


def _standard_neighbors(coordinates: Coordinates, step: int) -> Iterable[Coordinates]:
    for k, sign in itertools.product(range(len(coordinates)), (-1, 1)):
        moved = coordinates[k] + sign * step
        if abs(moved) <= FARTHEST:
            yield (*coordinates[:k], moved, *coordinates[k + 1 :])


def _fit_kernel(name: str, counted: Mapping[int, Weights], start: Kernel) -> tuple[Kernel, float]:
    """Descent over the three numbers of a kernel, and the bits that the best takes."""
    if not counted:
        return Kernel(), 0.0

    def cost(kernel: Kernel) -> float:
        return sum(_context_bits(name, context, counts, kernel) for context, counts in counted.items())

    starts = [start]
    if start == _START:
        # From a centre of 0 the way to a far centre leads uphill.
        starts += [replace(start, centre=FAR_CENTRE), replace(start, centre=-FAR_CENTRE)]
    best, bits = min((_descend(cost, begin, _kernel_neighbors) for begin in starts), key=lambda found: found[1])
    return (best, bits) if math.isfinite(bits) else (Kernel(), bits)


def _context_bits(name: str, context: int, counts: Weights, family: Family) -> float:
    first, end = alphabet((name, context))
    return _bits(counts[first:end], family.weights(name, context)[first:end])


def _descend(cost: Callable[[T], float], at: T, neighbors: Callable[[T, int], Iterable[T]]) -> tuple[T, float]:
    """Steps that shrink, from better to better; the best and its cost."""
    best_cost = cost(at)
    for step in (8, 4, 2, 1):
        improved = True
        while improved:
            improved = False
            for neighbor in neighbors(at, step):
                neighbor_cost = cost(neighbor)
                if neighbor_cost < best_cost:
                    at, best_cost, improved = neighbor, neighbor_cost, True
    return at, best_cost


def _kernel_neighbors(kernel: Kernel, step: int) -> Iterable[Kernel]:
    for centre in (kernel.centre - step, kernel.centre + step):
        if abs(centre) <= 127:
            yield replace(kernel, centre=centre)
    for width in (kernel.width - (step + 1) // 2, kernel.width + (step + 1) // 2):
        if 0 <= width <= 63:
            yield replace(kernel, width=width)
    for shape in (kernel.shape - 1, kernel.shape + 1):
        if 0 <= shape <= 3:
            yield replace(kernel, shape=shape)


def _bits(counts: Weights, weights: Weights) -> float:
    at = np.flatnonzero(counts)
    if len(weights) < 2:
        return 0.0
    share = np.maximum(weights[at] / weights.sum(), SMALLEST_SHARE)
    return float(-(counts[at] * np.log2(share)).sum())


def split_bits(tally: Tally, shape: int) -> float:
    """Bits that splits take with one of the shapes."""
    return sum(_bits(counts, split_weights(total, shape)) for total, counts in tally.splits.items())


def _worthwhile_histograms(tally: Tally, models: Models) -> dict[ModelKey, Histogram]:
    found = {}
    for key, counts in tally.histograms.items():
        if key[0] == "octave" or not counts.any():
            continue
        histogram = _measure(counts)
        cost = HISTOGRAM_OVERHEAD_BITS + HISTOGRAM_TOKEN_BITS * len(histogram.levels)
        at = slice(histogram.first, histogram.first + len(histogram.levels))
        gain = _context_bits(*key, counts, models.families[key[0]]) - _bits(counts[at], histogram.weights())
        if gain > cost:
            found[key] = histogram
    return found


def _measure(counts: Weights) -> Histogram:
    """Counts on a logarithmic scale of quarter octaves."""
    at = np.flatnonzero(counts)
    first, last = int(at[0]), int(at[-1])
    used = counts[first : last + 1]
    with np.errstate(divide="ignore"):
        levels = np.where(used > 0, 1 + np.rint(4 * np.log2(np.maximum(used, 1))), 0)
    return Histogram(first, np.minimum(levels, 255).astype(np.uint8).tobytes())


def _histogram_bytes(key: ModelKey, histogram: Histogram) -> bytes:
    sizes = (*divmod(histogram.first, 256), *divmod(len(histogram.levels), 256))
    return bytes([list(STREAMS).index(key[0]), key[1], *sizes]) + histogram.levels


def _parse_histograms(raw: bytes) -> Iterable[tuple[ModelKey, Histogram]]:
    at, names = 0, list(STREAMS)[:-1]
    while at < len(raw):
        head = raw[at : at + 6]
        if len(head) < 6 or head[0] >= len(names):
            raise ValueError("histogram cut short")
        yield (names[head[0]], head[1]), histogram_of(names[head[0]], head[1], head[2:], raw[at + 6 :])
        at += 6 + (head[4] << 8 | head[5])


def histogram_of(name: str, context: int, sizes: bytes, raw: bytes) -> Histogram:
    """The histogram at the start of ``raw``, whose first token and number of them are ``sizes``."""
    first, length = sizes[0] << 8 | sizes[1], sizes[2] << 8 | sizes[3]
    levels = raw[:length]
    if context >= STREAMS[name].contexts:
        raise ValueError("histogram of no such context")
    if len(levels) != length or not length or first + length > alphabet((name, context))[1]:
        raise ValueError("histogram out of its alphabet")
    if not any(levels):
        raise ValueError("histogram without weight")
    return Histogram(first, levels)


def deflate(raw: bytes) -> bytes:
    """Raw deflate, without a header."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(raw) + packer.flush()


def inflate(raw: bytes) -> bytes:
    """Inverse of :func:`deflate`.

    Raises
    ------
    ValueError
        The bytes are not deflated, or too much.
    """
    unpacker = zlib.decompressobj(-15)
    try:
        # Some two hundred contexts of at most 319 tokens: what lies beyond was not written by us.
        plain = unpacker.decompress(raw, 1 << 17)
    except zlib.error as error:
        raise ValueError(f"models: {error}") from error
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError("models cut short, or too long")
    return plain
