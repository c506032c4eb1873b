"""Tokens to bits and back: their models, and the coders that share one grammar.

Three coders run the same grammar (``payload.py``): :class:`Tally`
counts, :class:`Encoder` writes, :class:`Decoder` reads. Model weights are made of literals by multiplication and
division only: they are the same on every machine.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import constriction
import numpy as np
from jaxtyping import Float64
from numba import njit

from smartsplat_large.codec.tokens import (
    MAGNITUDES,
    STREAMS,
    Ints,
    ModelKey,
    alphabet,
    token_axes,
    token_count,
    token_sizes,
    tokenize,
    untokenize,
)

Weights = Float64[np.ndarray, "t"]

SPLIT_SHAPES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 64.0, 1e6)
"""How evenly the Gaussians of a cell fall into its halves (beta-binomial): 1 anyhow, large values by coin toss."""
COUNTED_KEYS = 4096
CACHED_SPLIT = 512
"""Models for splitting at most so many Gaussians are kept; larger ones are rare and large."""


_ROOTS8 = (1.0, 1.0905077326652577, 1.189207115002721, 1.2968395546510096,
           1.4142135623730951, 1.5422108254079407, 1.681792830507429, 1.8340080864093424)  # fmt: skip


def power_of_root8(index: int) -> float:
    """``2**(index / 8)`` from literals."""
    return math.ldexp(_ROOTS8[index % 8], index // 8)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A bell of two bytes: ``(1 + ((x - centre) / width)^2)^-(2^shape)``."""

    centre: int = 0
    """0 for 0; otherwise its sign, and ``2**((|centre| - 41) / 8)``; -127 to 127."""
    width: int = 16
    """``2**((width - 8) / 2)``; 0 to 63."""
    shape: int = 1
    """0 heavy tails, 3 nearly Gaussian."""

    def weights(self, name: str, context: int) -> Weights:
        """Weight of each token of a stream, unnormalised."""
        stream = STREAMS[name]
        growth = power_of_root8(round(8 * stream.growth * (context // stream.steps)))
        centre = math.copysign(power_of_root8(abs(self.centre) - 41), self.centre) * growth if self.centre else 0.0
        width = max(power_of_root8(4 * (self.width - 8)) * growth, 0.25)
        middles, widths = token_axes(stream)
        offset = (middles - centre) / width
        bell = 1.0 / (1.0 + offset * offset)
        for _ in range(self.shape):
            bell = bell * bell
        return widths * bell

    def to_bytes(self) -> bytes:
        return bytes([self.centre & 0xFF, self.width << 2 | self.shape])

    @staticmethod
    def from_bytes(raw: bytes) -> Kernel:
        return Kernel(raw[0] - 256 if raw[0] > 127 else raw[0], raw[1] >> 2, raw[1] & 3)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Measured weights of the tokens from ``first`` on, each a byte: 0 for none, otherwise ``2**(byte / 4)``."""

    first: int
    levels: bytes

    def weights(self) -> Weights:
        return np.array([power_of_root8(2 * level) if level else 0.0 for level in self.levels])


class Family(Protocol):
    """A model for all contexts of a stream."""

    def weights(self, name: str, context: int) -> Weights:
        """Weight of each token, unnormalised."""
        ...


@dataclass(frozen=True, slots=True)
class Models:
    """Everything a decoder must know beforehand: a family per stream, histograms where they pay, the split shape."""

    families: Mapping[str, Family]
    histograms: dict[ModelKey, Histogram] = field(default_factory=dict)
    split: int = 2

    def table(self, key: ModelKey) -> tuple[int, Weights]:
        """First token and weights of the tokens from there on."""
        if key in self.histograms:
            histogram = self.histograms[key]
            return histogram.first, histogram.weights()
        first, end = alphabet(key)
        return first, self.families[key[0]].weights(*key)[first:end]


class Coder(Protocol):
    """What the grammar of a block calls. An encoder is given the values; a decoder is given None and returns them."""

    def tokens(self, stream: str, contexts: Ints, values: Ints | None) -> Ints:
        """One value per context."""
        ...

    def uniform(self, stream: str, sizes: Ints, values: Ints | None) -> Ints:
        """``0 <= value < size`` for each size."""
        ...

    def split(self, totals: Ints, values: Ints | None) -> Ints:
        """How many of ``totals`` (at least 1 each) fall into the first half."""
        ...


def _groups(keys: Ints) -> list[tuple[int, Ints]]:
    """``(key, positions)`` in ascending order of the keys."""
    if not len(keys):
        return []
    highest = int(keys.max())
    if highest < COUNTED_KEYS:
        order, ends = _counted(keys, highest)
        edges = [0, *ends.tolist()]
        return [(key, order[low:high]) for key, (low, high) in enumerate(itertools.pairwise(edges)) if high > low]
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    borders = [0, *(np.flatnonzero(ordered[1:] != ordered[:-1]) + 1).tolist(), len(keys)]
    return [(int(ordered[low]), order[low:high]) for low, high in itertools.pairwise(borders)]


@njit(cache=True, nogil=True)
def _counted(keys: Any, highest: int) -> tuple[Any, Any]:
    """Positions in the order of their keys, and where each key's end."""
    ends = np.zeros(highest + 2, np.int64)
    for key in keys:
        ends[key + 1] += 1
    for key in range(highest + 1):
        ends[key + 1] += ends[key]
    order = np.empty(len(keys), np.int64)
    for i in range(len(keys)):
        order[ends[keys[i]]] = i
        ends[keys[i]] += 1
    return order, ends[:-1]


class Tally:
    """Counts symbols, for fitting :class:`Models` and for knowing a size without coding."""

    def __init__(self) -> None:
        self.histograms: dict[ModelKey, Float64[np.ndarray, t]] = {}
        self.splits: dict[int, Float64[np.ndarray, k]] = {}
        self.uniform_bits: defaultdict[str, float] = defaultdict(float)

    def tokens(self, stream: str, contexts: Ints, values: Ints | None) -> Ints:
        assert values is not None
        signed = STREAMS[stream].signed
        tokens, _, sizes = tokenize(values, signed)
        for context, at in _groups(contexts):
            counts = np.bincount(tokens[at], minlength=token_count(signed)).astype(np.float64)
            key = (stream, context)
            self.histograms[key] = self.histograms[key] + counts if key in self.histograms else counts
        self.uniform_bits[stream] += float(np.log2(sizes).sum())
        return values

    def uniform(self, stream: str, sizes: Ints, values: Ints | None) -> Ints:
        assert values is not None
        self.uniform_bits[stream] += float(np.log2(sizes).sum())
        return values

    def split(self, totals: Ints, values: Ints | None) -> Ints:
        assert values is not None
        for total, at in _groups(totals):
            if total == 1:
                self.uniform_bits["split"] += len(at)
                continue
            counts = np.bincount(values[at], minlength=total + 1).astype(np.float64)
            self.splits[total] = self.splits[total] + counts if total in self.splits else counts
        return values


class Tables:
    """Ready-made constriction models, shared by all blocks of a file."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._ready: dict[ModelKey, tuple[int, Any]] = {}

    def tokens(self, key: ModelKey) -> tuple[int, Any]:
        """First token, and the model (None where there is only that token)."""
        if key not in self._ready:
            first, weights = self._models.table(key)
            self._ready[key] = (first, _categorical(weights) if len(weights) > 1 else None)
        return self._ready[key]

    def split(self, total: int) -> Any:
        shape = self._models.split
        return _split_model(total, shape) if total <= CACHED_SPLIT else _categorical(split_weights(total, shape))


def _categorical(weights: Weights) -> Any:
    return constriction.stream.model.Categorical(weights, perfect=False)


@lru_cache(maxsize=4096)
def _split_model(total: int, shape: int) -> Any:
    return _categorical(split_weights(total, shape))


def split_weights(total: int, shape: int) -> Weights:
    """Beta-binomial weights of 0 to ``total`` in the first half, by its recurrence from the middle outwards."""
    alpha = SPLIT_SHAPES[shape]
    k = np.arange(total // 2, 0, -1, dtype=np.float64)
    ratios = k * (total - k + alpha) / ((total - k + 1.0) * (k - 1.0 + alpha))
    falling = np.cumprod(np.concatenate([[1.0], ratios]))
    lower = falling[::-1]
    return np.concatenate([lower, falling[1 - total % 2 :]])


class Encoder:
    """Writes symbols into bytes."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._coder = constriction.stream.queue.RangeEncoder()
        self._uniform = constriction.stream.model.Uniform()

    def tokens(self, stream: str, contexts: Ints, values: Ints | None) -> Ints:
        assert values is not None
        tokens, low, sizes = tokenize(values, STREAMS[stream].signed)
        for context, at in _groups(contexts):
            first, model = self._tables.tokens((stream, context))
            if model is not None:
                self._coder.encode((tokens[at] - first).astype(np.int32), model)
        self._low_bits(sizes, low)
        return values

    def _low_bits(self, sizes: Ints, low: Ints) -> None:
        high_sizes = sizes >> 16
        self.uniform("", np.minimum(sizes, 1 << 16), low & 0xFFFF)
        self.uniform("", np.maximum(high_sizes, 1), low >> 16)

    def uniform(self, stream: str, sizes: Ints, values: Ints | None) -> Ints:
        assert values is not None
        real = sizes > 1
        if real.any():
            self._coder.encode(values[real].astype(np.int32), self._uniform, sizes[real].astype(np.int32))
        return values

    def split(self, totals: Ints, values: Ints | None) -> Ints:
        assert values is not None
        for total, at in _groups(totals):
            self._coder.encode(values[at].astype(np.int32), self._tables.split(total))
        return values

    def finish(self) -> bytes:
        """All bytes; zeros at the end are left out, a decoder reads them from nothing."""
        words = self._coder.get_compressed()
        return bytes(words.astype(">u4").tobytes().rstrip(b"\0"))


class Decoder:
    """Reads symbols back from the bytes of one block."""

    def __init__(self, tables: Tables, payload: bytes) -> None:
        self._tables = tables
        words = np.frombuffer(payload + bytes(-len(payload) % 4), ">u4").astype(np.uint32)
        self._coder = constriction.stream.queue.RangeDecoder(words)
        self._uniform = constriction.stream.model.Uniform()

    def tokens(self, stream: str, contexts: Ints, values: Ints | None) -> Ints:
        signed = STREAMS[stream].signed
        tokens = np.empty(len(contexts), np.int64)
        for context, at in _groups(contexts):
            first, model = self._tables.tokens((stream, context))
            tokens[at] = first if model is None else first + self._coder.decode(model, len(at)).astype(np.int64)
        sizes = token_sizes(tokens, signed)
        if sizes.max(initial=1) == 1:
            return tokens - (MAGNITUDES - 1) if signed else tokens
        low = self.uniform("", np.minimum(sizes, 1 << 16), None)
        high = self.uniform("", np.maximum(sizes >> 16, 1), None)
        return untokenize(tokens, low + (high << 16), signed)

    def uniform(self, stream: str, sizes: Ints, values: Ints | None) -> Ints:
        found = np.zeros(len(sizes), np.int64)
        real = sizes > 1
        if real.any():
            found[real] = self._coder.decode(self._uniform, sizes[real].astype(np.int32))
        return found

    def split(self, totals: Ints, values: Ints | None) -> Ints:
        found = np.empty(len(totals), np.int64)
        for total, at in _groups(totals):
            found[at] = self._coder.decode(self._tables.split(total), len(at))
        return found
