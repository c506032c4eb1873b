"""Reads what constriction's range encoder wrote: 32-bit words, 64-bit state, 24-bit probabilities.

A block draws from some ninety models. Here one call decodes the symbols of many of them, outside Python's lock; a call of
constriction each took most of the time of reading a file, and let one thread in at a time.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numba import njit

Ints = Int64[np.ndarray, "n"]
Weights = Float64[np.ndarray, "t"]
PRECISION = 24
WHOLE = 1 << PRECISION
"""The probabilities of a model, in units, add up to this."""

_COUNTED_KEYS = 4096
"""Keys below this are sorted by counting."""


@dataclass(frozen=True, slots=True)
class TokenTable:
    """The models of a stream, a row each context: where each token begins in [0, WHOLE), and WHOLE."""

    first: Ints
    lengths: Ints
    """Tokens of each model; 0 where it has not been asked for."""
    edges: Int64[np.ndarray, "c t"]

    @staticmethod
    def empty(contexts: int, tokens: int) -> TokenTable:
        """Room for so many contexts of at most so many tokens."""
        counts = np.zeros(contexts, np.int64), np.zeros(contexts, np.int64)
        return TokenTable(*counts, np.zeros((contexts, tokens + 1), np.int64))

    def put(self, context: int, first: int, weights: Weights) -> None:
        """Fill a row. Threads may fill the same one at a time: its length is set when the rest of it is there."""
        self.first[context] = first
        self.edges[context, : len(weights) + 1] = edges(weights)
        self.lengths[context] = len(weights)


def edges(weights: Weights) -> Ints:
    """Where each symbol begins in [0, WHOLE), and WHOLE: constriction's ``Categorical(weights, perfect=False)``.

    Raises
    ------
    ValueError
        The weights have no sum to divide by, or are too many.
    """
    found = np.empty(len(weights) + 1, np.int64)
    if not _edges(weights, found):
        raise ValueError("a model without probabilities")
    return found


def beta_binomial(total: int, alpha: float) -> Weights:
    """Weights of 0 to ``total`` successes, by their recurrence from the middle outwards."""
    weights = np.empty(total + 1)
    _beta_binomial(total, alpha, weights)
    return weights


def ascending(keys: Ints) -> Ints:
    """Positions in ascending order of their keys (not negative), equal ones as they come."""
    return np.asarray(_ascending(keys))


class RangeDecoder:
    """The symbols of one payload, in the order in which they were encoded.

    Every method raises ``ValueError`` where the bits cannot be of the models.
    """

    def __init__(self, payload: bytes) -> None:
        # What an encoder leaves out at the end are zeros.
        self._words = np.frombuffer(payload + bytes(-len(payload) % 4 + 8), ">u4").astype(np.uint64)
        self._state = np.array([self._words[0] << np.uint64(32) | self._words[1], (1 << 64) - 1, 2], np.uint64)

    def tokens(self, contexts: Ints, table: TokenTable, starts: Ints, zero: int) -> Ints | int:
        """One value per context, or the context whose model the table lacks; then nothing was drawn.

        Tokens are drawn context by context, then the low bits of all. Token ``zero + t`` has the magnitudes from ``starts[t]``
        to before ``starts[t + 1]``, token ``zero - t`` their negatives.
        """
        missing, order = _by_context(contexts, table.lengths)
        if missing >= 0:
            return int(missing)
        found = np.empty(len(contexts), np.int64)
        models = table.first, table.lengths, table.edges
        self._checked(_tokens(self._words, self._state, contexts, order, models, starts, zero, found))
        return found

    def uniform(self, sizes: Ints) -> Ints:
        """``0 <= value < size`` for each size, at most WHOLE; a size of 1 takes no bits."""
        found = np.empty(len(sizes), np.int64)
        self._checked(_uniform(self._words, self._state, sizes, found))
        return found

    def splits(self, totals: Ints, alpha: float) -> Ints:
        """Of each total the successes, beta-binomial ``(total, alpha, alpha)``; equal totals together, ascending."""
        found = np.empty(len(totals), np.int64)
        self._checked(_splits(self._words, self._state, totals, ascending(totals), alpha, found))
        return found

    @staticmethod
    def _checked(done: bool) -> None:
        if not done:
            raise ValueError("bits that mean no symbol")


_SMALLEST_SUM, _LARGEST_SUM = sys.float_info.min, sys.float_info.max


@njit(cache=True, nogil=True, error_model="numpy")
def _edges(weights: Any, found: Any) -> bool:
    count, total = len(weights), 0.0
    for i in range(count):
        total += weights[i]
    if not _SMALLEST_SUM <= total <= _LARGEST_SUM or count > WHOLE - 2:
        return False
    scale, below = (WHOLE - count) / total, 0.0
    for i in range(count):
        found[i] = np.int64(below * scale) + i
        below += weights[i]
    found[count] = WHOLE
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _beta_binomial(total: int, alpha: float, weights: Any) -> None:
    weight = 1.0
    for k in range(total // 2, -1, -1):
        weights[k], weights[total - k] = weight, weight
        if k:
            n, m = np.float64(total), np.float64(k)
            weight *= m * (n - m + alpha) / ((n - m + 1.0) * (m - 1.0 + alpha))


@njit(inline="always", error_model="numpy")
def _advanced(words: Any, state: Any, scale: Any, begin: int, end: int) -> Any:
    """The state after the symbol of [begin, end): how far into its range the stream points, the range, the next word."""
    point, span, at = state
    point -= scale * np.uint64(begin)
    span = scale * np.uint64(end - begin)
    if span < np.uint64(1 << 32):
        point, span = point << np.uint64(32), span << np.uint64(32)
        if at < np.uint64(len(words)):
            point |= words[at]
        at += np.uint64(1)
    return point, span, at


@njit(inline="always", error_model="numpy")
def _quantile(state: Any) -> Any:
    """What a unit of probability is worth, and how many of them the stream points to; WHOLE or more is forged."""
    scale = state[1] >> np.uint64(PRECISION)
    return scale, np.int64(min(state[0] // scale, np.uint64(WHOLE)))


@njit(inline="always", error_model="numpy")
def _interval(edges: Any, count: int, quantile: int) -> int:
    """The last of ``count`` symbols that begins at or before ``quantile``."""
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) >> 1
        if edges[middle] <= quantile:
            low = middle
        else:
            high = middle
    return low


@njit(cache=True, nogil=True, error_model="numpy")
def _ascending(keys: Any) -> Any:
    highest = np.int64(0)
    for key in keys:
        highest = max(highest, key)
    if highest >= _COUNTED_KEYS:
        return np.argsort(keys, kind="mergesort")
    ends = np.zeros(highest + 2, np.int64)
    for key in keys:
        ends[key + 1] += 1
    for key in range(highest + 1):
        ends[key + 1] += ends[key]
    order = np.empty(len(keys), np.int64)
    for i in range(len(keys)):
        order[ends[keys[i]]] = i
        ends[keys[i]] += 1
    return order


@njit(cache=True, nogil=True, error_model="numpy")
def _by_context(contexts: Any, lengths: Any) -> Any:
    """A context without a model, or -1, and the order."""
    for context in contexts:
        if not lengths[context]:
            return context, np.empty(0, np.int64)
    return np.int64(-1), _ascending(contexts)


@njit(cache=True, nogil=True, error_model="numpy")
def _tokens(words: Any, kept: Any, contexts: Any, order: Any, models: Any, starts: Any, zero: int, found: Any) -> bool:
    first, lengths, edges = models
    state = kept[0], kept[1], kept[2]
    for i in order:
        context = contexts[i]
        found[i] = first[context] - zero
        if lengths[context] > 1:
            scale, quantile = _quantile(state)
            if quantile == WHOLE:
                return False
            row = edges[context]
            symbol = _interval(row, lengths[context], quantile)
            state = _advanced(words, state, scale, row[symbol], row[symbol + 1])
            found[i] += symbol
    kept[0], kept[1], kept[2] = state
    sizes, low = np.empty((2, len(found)), np.int64), np.empty((2, len(found)), np.int64)
    for i in range(len(found)):
        size = starts[abs(found[i]) + 1] - starts[abs(found[i])]
        sizes[0, i], sizes[1, i] = min(size, 1 << 16), max(size >> 16, 1)
    if not (_uniform(words, kept, sizes[0], low[0]) and _uniform(words, kept, sizes[1], low[1])):
        return False
    for i in range(len(found)):
        magnitude = starts[abs(found[i])] + low[0, i] + (low[1, i] << 16)
        found[i] = -magnitude if found[i] < 0 else magnitude
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _uniform(words: Any, kept: Any, sizes: Any, found: Any) -> bool:
    state = kept[0], kept[1], kept[2]
    for i in range(len(sizes)):
        found[i] = 0
        if sizes[i] > 1:
            scale, quantile = _quantile(state)
            if quantile == WHOLE:
                return False
            last, each = sizes[i] - 1, WHOLE // sizes[i]
            symbol = min(quantile // each, last)
            state = _advanced(words, state, scale, symbol * each, (symbol + 1) * each if symbol < last else WHOLE)
            found[i] = symbol
    kept[0], kept[1], kept[2] = state
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _splits(words: Any, kept: Any, totals: Any, order: Any, alpha: float, found: Any) -> bool:
    state = kept[0], kept[1], kept[2]
    total, weights, edges = np.int64(-1), np.empty(0), np.empty(0, np.int64)
    for i in order:
        if totals[i] != total:
            total = totals[i]
            if len(edges) < total + 2:
                weights, edges = np.empty(2 * total + 1), np.empty(2 * total + 2, np.int64)
            _beta_binomial(total, alpha, weights)
            if not _edges(weights[: total + 1], edges):
                return False
        scale, quantile = _quantile(state)
        if quantile == WHOLE:
            return False
        symbol = _interval(edges, total + 1, quantile)
        state = _advanced(words, state, scale, edges[symbol], edges[symbol + 1])
        found[i] = symbol
    kept[0], kept[1], kept[2] = state
    return True
