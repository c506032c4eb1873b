"""The alphabets of a file: its streams of symbols, and how their integers become tokens.

A value becomes a *token* (itself if small, else its leading bits) drawn from a model, and uniform low bits; so
alphabets are short, and no value is out of range.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numba import njit

from smartsplat_large.codec.quantize import MAX_OCTAVE

Ints = Int64[np.ndarray, "n"]
ModelKey = tuple[str, int]
"""Stream and context."""

DIRECT = 16
"""Magnitudes below this are tokens of their own; above it a token holds the top three bits."""
MAX_BITS = 40
MAGNITUDES = DIRECT + 4 * (MAX_BITS - 4)
MAX_CONTEXT = 15
SECTORS = 16
"""Parts of the half circle that turns of many levels are told apart by."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A kind of symbol."""

    signed: bool
    growth: float = 0.0
    """Where a kernel is given in context k, centre and width are ``2**(growth (k // steps))`` times those of 0."""
    mirrored: bool = False
    """Whether the kernel is of the magnitude: two bells, on either side of zero."""
    contexts: int = MAX_CONTEXT + 1
    steps: int = 1
    """Contexts that an octave has."""


STREAMS = {
    "count": Stream(signed=False, contexts=4),
    "octave": Stream(signed=False, contexts=0),
    "luma": Stream(signed=True, growth=1.0, mirrored=True),
    "chroma1": Stream(signed=True, growth=0.5, contexts=4 * MAX_CONTEXT + 4, steps=4),
    "chroma2": Stream(signed=True, growth=0.5, contexts=4 * MAX_CONTEXT + 4, steps=4),
    "alpha": Stream(signed=True, growth=1.0),
    "mean": Stream(signed=True, growth=1.0),
    "aspect": Stream(signed=False, growth=1.0),
    "turn": Stream(signed=False, contexts=SECTORS // 2 + 2),
    "rise": Stream(signed=False, contexts=4),
}
"""In the order of the file. ``rise``, of version 2 alone, is the octave above the least of its layer."""


def _token_starts() -> Float64[np.ndarray, m]:
    """Smallest magnitude of every token, and one past the last."""
    tail = [float((4 + step) << (bits - 3)) for bits in range(5, MAX_BITS + 1) for step in range(4)]
    return np.array([*range(DIRECT), *tail, float(1 << MAX_BITS)])


_STARTS = _token_starts()
_WIDTHS = np.diff(_STARTS)
_MIDDLES = _STARTS[:-1] + (_WIDTHS - 1) / 2
_SIZES = _WIDTHS.astype(np.int64)
_FIRSTS = _STARTS[:-1].astype(np.int64)
_SIGNED = [np.concatenate([-_MIDDLES[:0:-1], _MIDDLES]), np.concatenate([_WIDTHS[:0:-1], _WIDTHS])]


def token_count(signed: bool) -> int:
    """Size of the alphabet."""
    return 2 * MAGNITUDES - 1 if signed else MAGNITUDES


def tokenize(values: Ints, signed: bool) -> tuple[Ints, Ints, Ints]:
    """``(token, low, size)``: the value is the ``low``-th of the ``size`` values that share its token."""
    token, low, size = (np.empty(len(values), np.int64) for _ in range(3))
    _tokenize(values, signed, token, low, size)
    return token, low, size


@njit(cache=True, nogil=True)
def _tokenize(values: Any, signed: bool, token: Any, low: Any, size: Any) -> None:
    for i in range(len(values)):
        magnitude = abs(values[i])
        found = magnitude if magnitude < DIRECT else np.searchsorted(_STARTS, magnitude, side="right") - 1
        low[i], size[i] = magnitude - _FIRSTS[found], _SIZES[found]
        token[i] = MAGNITUDES - 1 + (-found if values[i] < 0 else found) if signed else found


def token_sizes(tokens: Ints, signed: bool) -> Ints:
    """How many values share each token."""
    sizes: Ints = _SIZES[np.abs(tokens - (MAGNITUDES - 1)) if signed else tokens]
    return sizes


def untokenize(tokens: Ints, low: Ints, signed: bool) -> Ints:
    """Inverse of :func:`tokenize`."""
    index = tokens - (MAGNITUDES - 1) if signed else tokens
    magnitude: Ints = _FIRSTS[np.abs(index)] + low
    return np.where(index < 0, -magnitude, magnitude)


def token_axes(stream: Stream) -> tuple[Float64[np.ndarray, t], Float64[np.ndarray, t]]:
    """Of each token: the value in its middle, a magnitude where the stream is mirrored, and how many values share it."""
    middles, widths = _SIGNED if stream.signed else (_MIDDLES, _WIDTHS)
    return (np.abs(middles) if stream.mirrored else middles), widths


def octave_context(least: int, upper: int) -> int:
    """The context of octaves from ``least`` to before ``upper``."""
    return 32 * least + upper


EVERY_OCTAVE = octave_context(1, MAX_OCTAVE + 1)


def alphabet(key: ModelKey) -> tuple[int, int]:
    """First token that a context has, and the end: octaves are those of the layer, turns those that there are."""
    name, context = key
    if name == "octave":
        first, last = np.searchsorted(_STARTS, [context // 32 - 1, context % 32 - 2], side="right") - 1
        return int(first), int(last) + 1
    if name == "turn":
        return 0, min(2 * context, SECTORS)
    return 0, token_count(STREAMS[name].signed)
