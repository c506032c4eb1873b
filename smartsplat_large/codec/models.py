"""Fits the models of a file to what was counted, and turns them into a few bytes."""

from __future__ import annotations

import functools
import math
import zlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numba import njit

from smartsplat_large.codec.entropy import (
    MAX_CONTEXT,
    SPLIT_SHAPES,
    STREAMS,
    Histogram,
    Kernel,
    ModelKey,
    Models,
    Tally,
    Weights,
    bell_axes,
    split_weights,
    token_count,
)
from smartsplat_large.codec.payload import component_streams

HISTOGRAM_OVERHEAD_BITS = 24
HISTOGRAM_TOKEN_BITS = 5.0
"""What a token of a histogram costs in the header, measured after deflation; used to decide whether one pays."""
SMALLEST_SHARE = 2.0**-24
"""Where a token's share of the weights falls below this, the coder still gives it so much."""
FAR_CENTRE = 49
_START = Kernel(centre=0, width=16, shape=1)


def kernel_streams(channels: int) -> tuple[str, ...]:
    """Streams with a kernel of their own, in the order of the file; ``chroma2`` shares that of ``chroma1``."""
    colors = [name for name in component_streams(channels) if name != "chroma2"]
    return ("count", "octave", *colors, "mean", "aspect")


def fit_models(tally: Tally, channels: int, start: Models | None = None) -> Models:
    """The cheapest models for what ``tally`` holds, their own bytes included. ``start`` is where the search begins."""
    kernels: dict[str, Kernel] = {}
    for name in kernel_streams(channels):
        shared = ("chroma1", "chroma2") if name == "chroma1" else (name,)
        counted = {key: counts for key, counts in tally.histograms.items() if key[0] in shared}
        kernels[name] = _fit_kernel(counted, start.kernels[name] if start else _START)
    if "chroma1" in kernels:
        kernels["chroma2"] = kernels["chroma1"]
    histograms = _worthwhile_histograms(tally, Models(kernels))
    split = min(range(len(SPLIT_SHAPES)), key=lambda shape: _split_bits(tally, shape))
    return Models(kernels, histograms, split)


def stream_bits(models: Models, tally: Tally) -> dict[str, float]:
    """Bits that coding what ``tally`` holds takes, by stream; exact to the coder's rounding."""
    bits: dict[str, float] = dict(tally.uniform_bits)
    for key, counts in tally.histograms.items():
        first, weights = models.table(key)
        bits[key[0]] = bits.get(key[0], 0.0) + _bits(counts[first : first + len(weights)], weights)
    bits["split"] = bits.get("split", 0.0) + _split_bits(tally, models.split)
    return bits


def models_to_bytes(models: Models, channels: int) -> bytes:
    """See docs/format.md, Models."""
    kernels = b"".join(models.kernels[name].to_bytes() for name in kernel_streams(channels))
    packed = b""
    if models.histograms:
        packed = _deflate(b"".join(_histogram_bytes(k, h) for k, h in sorted(models.histograms.items())))
    return bytes([models.split]) + kernels + packed


def models_from_bytes(raw: bytes, channels: int) -> Models:
    """Inverse of :func:`models_to_bytes`.

    Raises
    ------
    ValueError
        The bytes are no models.
    """
    names = kernel_streams(channels)
    end = 1 + 2 * len(names)
    if len(raw) < end or raw[0] >= len(SPLIT_SHAPES):
        raise ValueError("models cut short")
    kernels = {name: Kernel.from_bytes(raw[1 + 2 * i : 3 + 2 * i]) for i, name in enumerate(names)}
    if "chroma1" in kernels:
        kernels["chroma2"] = kernels["chroma1"]
    return Models(kernels, dict(_parse_histograms(_inflate(raw[end:]))) if raw[end:] else {}, raw[0])


def _fit_kernel(counted: dict[ModelKey, Weights], start: Kernel) -> Kernel:
    """Descent over the three numbers of a kernel, in steps that shrink."""
    present = [(key[1], counts) for key, counts in counted.items() if counts.any()]
    if not present:
        return Kernel()
    stream = STREAMS[next(iter(counted))[0]]

    counts, axes = np.stack([counts for _, counts in present]), bell_axes(stream)
    growths = np.array([stream.growth_in(context) for context, _ in present])

    @functools.cache
    def cost(kernel: Kernel) -> float:
        return float(_bell_bits(counts, *axes, *kernel.bell(growths), kernel.shape))

    starts = [start]
    if start == _START:
        # From a centre of 0 the way to a far centre leads uphill.
        starts += [replace(start, centre=FAR_CENTRE), replace(start, centre=-FAR_CENTRE)]
    best, best_bits = min((_descend(cost, begin) for begin in starts), key=lambda found: found[1])
    return best if math.isfinite(best_bits) else Kernel()


@njit(cache=True, nogil=True, error_model="numpy")
def _bell_bits(counts: Any, middles: Any, widths: Any, centre: Any, width: Any, shape: int) -> Any:
    """What :func:`_bits` says of :meth:`Kernel.weights`, summed over contexts: rows of ``counts``."""
    weights = np.empty(len(middles))
    bits = 0.0
    for context in range(len(counts)):
        for i in range(np.uintp(len(middles))):
            offset = (middles[i] - centre[context]) / width[context]
            bell = 1.0 / (1.0 + offset * offset)
            for _ in range(shape):
                bell *= bell
            weights[i] = widths[i] * bell
        total = weights.sum()
        for i in range(len(middles)):
            if counts[context, i]:
                bits -= counts[context, i] * np.log2(max(weights[i] / total, SMALLEST_SHARE))
    return bits


def _descend(cost: Callable[[Kernel], float], kernel: Kernel) -> tuple[Kernel, float]:
    best_cost = cost(kernel)
    for step in (8, 4, 2, 1):
        improved = True
        while improved:
            improved = False
            for neighbor in _neighbors(kernel, step):
                neighbor_cost = cost(neighbor)
                if neighbor_cost < best_cost:
                    kernel, best_cost, improved = neighbor, neighbor_cost, True
    return kernel, best_cost


def _neighbors(kernel: Kernel, step: int) -> Iterable[Kernel]:
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


def _split_bits(tally: Tally, shape: int) -> float:
    return sum(_bits(counts, split_weights(total, shape)) for total, counts in tally.splits.items())


def _worthwhile_histograms(tally: Tally, models: Models) -> dict[ModelKey, Histogram]:
    found = {}
    for key, counts in tally.histograms.items():
        if not counts.any():
            continue
        histogram = _measure(counts)
        cost = HISTOGRAM_OVERHEAD_BITS + HISTOGRAM_TOKEN_BITS * len(histogram.levels)
        at = slice(histogram.first, histogram.first + len(histogram.levels))
        gain = _bits(counts, models.table(key)[1]) - _bits(counts[at], histogram.weights())
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
    stream = list(STREAMS).index(key[0])
    head = [stream << 4 | key[1], histogram.first >> 8, histogram.first & 0xFF, *divmod(len(histogram.levels), 256)]
    return bytes(head) + histogram.levels


def _parse_histograms(raw: bytes) -> Iterable[tuple[ModelKey, Histogram]]:
    at = 0
    names = list(STREAMS)
    while at < len(raw):
        head = raw[at : at + 5]
        if len(head) < 5 or head[0] >> 4 >= len(names) or head[0] & 15 > MAX_CONTEXT:
            raise ValueError("histogram cut short")
        name, first, length = names[head[0] >> 4], head[1] << 8 | head[2], head[3] << 8 | head[4]
        levels = raw[at + 5 : at + 5 + length]
        if len(levels) != length or not length or first + length > token_count(STREAMS[name].signed):
            raise ValueError("histogram out of its alphabet")
        if not any(levels):
            raise ValueError("histogram without weight")
        yield (name, head[0] & 15), Histogram(first, levels)
        at += 5 + length


def _deflate(raw: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(raw) + packer.flush()


def _inflate(raw: bytes) -> bytes:
    unpacker = zlib.decompressobj(-15)
    try:
        # Seven streams of sixteen contexts of at most 319 tokens: what lies beyond was not written by us.
        plain = unpacker.decompress(raw, 1 << 16)
    except zlib.error as error:
        raise ValueError(f"models: {error}") from error
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError("models cut short, or too long")
    return plain
