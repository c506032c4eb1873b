"""Models that every decoder knows: for each stream a base and directions away from it, learnt from pictures.

A file says by three small integers a stream how far its symbols lie in each direction. docs/format.md has the formula,
pipelines/standard_models.py makes the table.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from jaxtyping import Int64

from smartsplat_large.codec.entropy import Weights, power_of_root8
from smartsplat_large.codec.tokens import STREAMS, Ints, token_count

STANDARD_STREAMS = ("count", "octave", "luma", "chroma1", "chroma2", "mean", "aspect", "turn")
"""In the order of the table."""
DIRECTIONS = 3
FARTHEST = 7
"""Largest coordinate."""
LEAST_LEVEL = -128
_HIGHEST_LEVEL = 8 * 512
_POWERS = np.array([power_of_root8(level) for level in range(LEAST_LEVEL, _HIGHEST_LEVEL)])

Coordinates = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """What is known of a stream, for its tokens from ``first`` on."""

    first: int
    base: Int64[np.ndarray, "contexts tokens"]
    """Quarters of an octave below the most probable."""
    directions: Int64[np.ndarray, "directions contexts tokens"]
    """Eighths of an octave per unit of a coordinate."""

    def levels(self, coordinates: Coordinates, rows: Ints) -> Int64[np.ndarray, "rows tokens"]:
        """Logarithm of the weights in some contexts, in eighths of an octave."""
        total = np.tensordot(np.array(coordinates), self.directions[:, rows], 1) - 2 * self.base[rows]
        return np.asarray(np.maximum(total, LEAST_LEVEL))

    def row(self, name: str, context: int) -> int:
        """Where a context stands; those of octaves beyond the table have what its last octave has.

        ``octave`` has one for the whole file: its contexts only say which octaves a layer has.
        """
        if name == "octave":
            return 0
        beyond = context - len(self.base)
        return context if beyond < 0 else context - (beyond // STREAMS[name].steps + 1) * STREAMS[name].steps

    def to_bytes(self) -> bytes:
        head = bytes([self.base.shape[0], *divmod(self.first, 256), self.base.shape[1]])
        return head + self.base.astype(np.uint8).tobytes() + self.directions.astype(np.int8).tobytes()


@dataclass(frozen=True, slots=True)
class Standard:
    """A member of the family of a stream's standard models."""

    coordinates: Coordinates

    def weights(self, name: str, context: int) -> Weights:
        """Weight of each token, unnormalised."""
        table = standard_tables()[name]
        row = table.row(name, context)
        levels = np.full(token_count(STREAMS[name].signed), LEAST_LEVEL)
        levels[table.first : table.first + table.base.shape[1]] = table.levels(self.coordinates, np.array([row]))[0]
        return powers(levels)


def powers(levels: Int64[np.ndarray, "..."]) -> Weights:
    """``2**(level / 8)`` from literals."""
    return np.asarray(_POWERS[levels - LEAST_LEVEL])


@cache
def standard_tables() -> Mapping[str, Table]:
    """The tables of the package, by stream."""
    return tables_from_bytes((files("smartsplat_large.codec") / "standard.bin").read_bytes())


def tables_to_bytes(tables: Mapping[str, Table]) -> bytes:
    """See docs/format.md, Standard models."""
    return zlib.compress(b"".join(tables[name].to_bytes() for name in STANDARD_STREAMS), 9)


def tables_from_bytes(raw: bytes) -> dict[str, Table]:
    """Inverse of :func:`tables_to_bytes`."""
    plain, found, at = zlib.decompress(raw), {}, 0
    for name in STANDARD_STREAMS:
        contexts, high, low, tokens = plain[at : at + 4]
        size, at = contexts * tokens, at + 4
        base = np.frombuffer(plain, np.uint8, size, at).astype(np.int64)
        directions = np.frombuffer(plain, np.int8, DIRECTIONS * size, at + size).astype(np.int64)
        shape = (contexts, tokens)
        found[name] = Table(256 * high + low, base.reshape(shape), directions.reshape(DIRECTIONS, *shape))
        at += (1 + DIRECTIONS) * size
    return found
