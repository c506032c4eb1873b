"""The grammar of one block: which symbols follow which. Written once, run by every coder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64
from numba import njit

from smartsplat_large.codec.contexts import (
    chroma1_context,
    chroma2_context,
    sector_turns,
    turn_contexts,
    turn_sectors,
    usual_mean,
)
from smartsplat_large.codec.entropy import Coder
from smartsplat_large.codec.quantize import MAX_AMPLITUDE, MAX_OCTAVE, Symbols, bit_length, place_levels, turn_levels
from smartsplat_large.codec.tokens import MAX_CONTEXT, STREAMS, octave_context
from smartsplat_large.ordering import z_cells, z_keys

Ints = Int64[np.ndarray, "n"]
COUNT_CELLS_LIMIT = 1 << 22
"""Coarse cells of a frame."""
CHROMAS = ("chroma1", "chroma2")
KEY_BITS = 62
"""Leaf cells of a frame are numbered with at most so many bits."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the centres of a block lie: ``columns x rows`` coarse cells of ``2**depth`` leaf cells a side."""

    x: int
    """Left border, in leaf cells from the image's corner."""
    y: int
    columns: int
    rows: int
    depth: int

    @property
    def is_codable(self) -> bool:
        """Whether its cells can be counted and numbered."""
        return 0 < self.cells <= COUNT_CELLS_LIMIT and self.cells.bit_length() + 2 * self.depth <= KEY_BITS

    @property
    def cells(self) -> int:
        """Number of its coarse cells."""
        return self.columns * self.rows


@dataclass(frozen=True, slots=True)
class Scope:
    """What a payload holds: Gaussians of one block, of one layer."""

    frame: Frame
    leaf: int
    channels: int
    layer: int = 0
    """Layers come strongest first; each has contexts of its own for how many Gaussians there are, and how strong."""
    least_octave: int = 1
    upper_octave: int = MAX_OCTAVE + 1
    """Its octaves are below this."""
    version: int = 3
    """Of the format."""


class CorruptPayloadError(Exception):
    """The symbols of a block contradict each other; only a forged file gets here past its checksum."""


def code_block(coder: Coder, scope: Scope, symbols: Symbols | None, limit: int) -> Symbols:
    """Run the grammar; ``symbols`` are those to encode, in the order of :func:`coded_order`, or None to decode.

    Raises
    ------
    CorruptPayloadError
        More than ``limit`` Gaussians are announced, or a symbol is out of its range.
    """
    return code_marks(coder, scope, _code_cells(coder, scope, symbols.cell if symbols else None, limit), symbols)


def code_marks(coder: Coder, scope: Scope, cell: Int64[np.ndarray, "n 2"], symbols: Symbols | None) -> Symbols:
    """What :func:`code_block` codes of Gaussians whose cells are known, in any order."""
    octave = _code_octave(coder, scope, len(cell), symbols.octave if symbols else None)
    context = np.minimum(octave, MAX_CONTEXT)
    usual = usual_mean(octave, scope.leaf) if scope.version > 2 else 0
    mean = usual + coder.tokens("mean", context, symbols.mean - usual if symbols else None)
    aspect = coder.tokens("aspect", context, symbols.aspect if symbols else None)
    turns = turn_levels(octave, aspect)
    turn = _code_turn(coder, scope, turns, symbols.turn if symbols else None)
    levels = place_levels(octave, mean, aspect, turn, turns, scope.leaf)
    place = coder.uniform("place", levels.ravel(), symbols.place.ravel() if symbols else None)
    color = _code_color(coder, scope, octave, symbols.color if symbols else None)
    return Symbols(cell, octave, mean, aspect, turn, place.reshape(-1, 2), color)


def coded_order(cell: Int64[np.ndarray, "n 2"], frame: Frame) -> Ints:
    """The order in which Gaussians are coded: by coarse cell, then along a Z-curve of leaf cells."""
    return np.asarray(np.argsort(_cell_key(cell, frame), kind="stable"))


def _cell_key(cell: Int64[np.ndarray, "n 2"], frame: Frame) -> Ints:
    return np.asarray(z_keys(cell, frame.x, frame.y, frame.columns, frame.depth))


def _key_cell(key: Ints, frame: Frame) -> Int64[np.ndarray, "n 2"]:
    return np.asarray(z_cells(key, frame.x, frame.y, frame.columns, frame.depth))


@njit(cache=True, nogil=True)
def _halves(node: Any, totals: Any, first: Any) -> Any:
    """The halves of some cells that are not empty, and how many each of them holds."""
    nodes, counts = np.empty(2 * len(node), np.int64), np.empty(2 * len(node), np.int64)
    kept = 0
    for i in range(len(node)):
        for half in range(2):
            count = totals[i] - first[i] if half else first[i]
            if count > 0:
                nodes[kept], counts[kept] = 2 * node[i] + half, count
                kept += 1
    return nodes[:kept], counts[:kept]


def _code_cells(
    coder: Coder, scope: Scope, cell: Int64[np.ndarray, "n 2"] | None, limit: int
) -> Int64[np.ndarray, "n 2"]:
    """Counts per coarse cell, then how they part at each halving down to the leaf cells: no order is spent on."""
    frame = scope.frame
    key = None if cell is None else _cell_key(cell, frame)
    cells, levels = frame.cells, 2 * frame.depth
    known = None if key is None else np.bincount(key >> levels, minlength=cells)
    totals = coder.tokens("count", np.full(cells, scope.layer, np.int64), known)
    if int(totals.sum()) > limit:
        raise CorruptPayloadError(f"{int(totals.sum())} Gaussians announced, {limit} possible")
    node = np.flatnonzero(totals)
    totals = totals[node]
    for level in range(levels - 1, -1, -1):
        first = coder.split(totals, None if key is None else _first_counts(key, level, node))
        node, totals = _halves(node, totals, first)
    return cell if cell is not None else _key_cell(np.repeat(node, totals), frame)


@njit(cache=True, nogil=True)
def _first_counts(sorted_key: Any, level: int, node: Any) -> Any:
    """How many keys have each ``2 * node``, of ascending nodes, before their last ``level`` bits."""
    found, at = np.zeros(len(node), np.int64), 0
    for i in range(len(node)):
        while at < len(sorted_key) and sorted_key[at] >> level < 2 * node[i]:
            at += 1
        while at < len(sorted_key) and sorted_key[at] >> level == 2 * node[i]:
            at += 1
            found[i] += 1
    return found


def _code_octave(coder: Coder, scope: Scope, count: int, octave: Ints | None) -> Ints:
    """Among those that the layer has; in version 2 from its least upwards."""
    if scope.version > 2:
        context, first, stream = octave_context(scope.least_octave, scope.upper_octave), 1, "octave"
    else:
        context, first, stream = scope.layer, scope.least_octave, "rise"
    contexts = np.full(count, context, np.int64)
    found = first + coder.tokens(stream, contexts, None if octave is None else octave - first)
    if found.max(initial=0) > MAX_OCTAVE:
        raise CorruptPayloadError("an octave out of range")
    return found


def _code_turn(coder: Coder, scope: Scope, turns: Ints, turn: Ints | None) -> Ints:
    """The sector, then the turn within it; any turn alike in version 2."""
    if scope.version == 2:
        return coder.uniform("turn", turns, turn)
    found = np.zeros(len(turns), np.int64)
    some = np.flatnonzero(turns > 1)
    turns, turn = turns[some], None if turn is None else turn[some]
    sector = coder.tokens("turn", turn_contexts(turns), None if turn is None else turn_sectors(turns, turn))
    first, size = sector_turns(turns, sector)
    found[some] = (first + coder.uniform("turn", size, None if turn is None else (turn - first) % turns)) % turns
    return found


def _code_color(
    coder: Coder, scope: Scope, octave: Ints, color: Int64[np.ndarray, "n c"] | None
) -> Int64[np.ndarray, "n c"]:
    """Component by component; chromas change their sign with luma."""
    found = np.empty((len(octave), scope.channels), np.int64)
    for index, stream in enumerate(component_streams(scope.channels)):
        context = _color_context(scope, stream, octave, found)
        sign = np.where(found[:, 0] < 0, -1, 1) if stream in CHROMAS and scope.version > 2 else 1
        found[:, index] = sign * coder.tokens(stream, context, None if color is None else sign * color[:, index])
        if np.abs(found[:, index]).max(initial=0) > MAX_AMPLITUDE:
            raise CorruptPayloadError("a colour out of range")
    return found


def _color_context(scope: Scope, stream: str, octave: Ints, known: Int64[np.ndarray, "n c"]) -> Ints:
    if scope.version > 2 and stream == "chroma1":
        return np.asarray(chroma1_context(octave, known[:, 0]))
    if scope.version > 2 and stream == "chroma2":
        return np.asarray(chroma2_context(octave, known[:, 1]))
    context = bit_length(np.abs(known[:, 1])) if stream == "chroma2" else octave
    return np.asarray(STREAMS[stream].steps * np.minimum(context, MAX_CONTEXT))


def component_streams(channels: int) -> tuple[str, ...]:
    """The stream of each colour component."""
    return {
        1: ("luma",),
        2: ("luma", "alpha"),
        3: ("luma", "chroma1", "chroma2"),
        4: ("luma", "chroma1", "chroma2", "alpha"),
    }[channels]
