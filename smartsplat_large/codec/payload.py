"""The grammar of one block: which symbols follow which. Written once, run by every coder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from smartsplat_large.codec.entropy import MAX_CONTEXT, Coder
from smartsplat_large.codec.quantize import MAX_AMPLITUDE, Strength, Symbols, octave, place_levels, turn_levels

Ints = Int64[np.ndarray, "n"]
COUNT_CELLS_LIMIT = 1 << 22
"""Coarse cells of a frame."""
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
        cells = self.columns * self.rows
        return 0 < cells <= COUNT_CELLS_LIMIT and cells.bit_length() + 2 * self.depth <= KEY_BITS


class CorruptPayloadError(Exception):
    """The symbols of a block contradict each other; only a forged file gets here past its checksum."""


def code_block(coder: Coder, frame: Frame, leaf: int, channels: int, symbols: Symbols | None, limit: int) -> Symbols:
    """Run the grammar; ``symbols`` are those to encode, in the order of :func:`sort_in_frame`, or None to decode.

    Raises
    ------
    CorruptPayloadError
        More than ``limit`` Gaussians are announced.
    """
    cell = _code_cells(coder, frame, symbols.cell if symbols else None, limit)
    color = _code_color(coder, len(cell), channels, symbols.color if symbols else None)
    strength = Strength.of(color)
    context = np.minimum(strength.octave, MAX_CONTEXT)
    mean = coder.tokens("mean", context, symbols.mean if symbols else None)
    aspect = coder.tokens("aspect", context, symbols.aspect if symbols else None)
    turns = turn_levels(strength, aspect)
    turn = coder.uniform("turn", turns, symbols.turn if symbols else None)
    levels = place_levels(strength, mean, aspect, turn, turns, leaf)
    place = coder.uniform("place", levels.ravel(), symbols.place.ravel() if symbols else None)
    return Symbols(cell, color, mean, aspect, turn, place.reshape(-1, 2))


def sort_in_frame(symbols: Symbols, frame: Frame) -> Symbols:
    """Symbols in the order in which they are coded: by coarse cell, then along a Z-curve of leaf cells."""
    return symbols.take(np.argsort(_cell_key(symbols.cell, frame), kind="stable"))


def _cell_key(cell: Int64[np.ndarray, "n 2"], frame: Frame) -> Ints:
    x, y = cell[:, 0] - frame.x, cell[:, 1] - frame.y
    key = (y >> frame.depth) * frame.columns + (x >> frame.depth)
    for bit in range(frame.depth - 1, -1, -1):
        key = key << 2 | (y >> bit & 1) << 1 | (x >> bit & 1)
    return key


def _key_cell(key: Ints, frame: Frame) -> Int64[np.ndarray, "n 2"]:
    x, y = np.zeros_like(key), np.zeros_like(key)
    for bit in range(frame.depth):
        x |= (key >> (2 * bit) & 1) << bit
        y |= (key >> (2 * bit + 1) & 1) << bit
    coarse_y, coarse_x = np.divmod(key >> (2 * frame.depth), frame.columns)
    x += (coarse_x << frame.depth) + frame.x
    y += (coarse_y << frame.depth) + frame.y
    return np.stack([x, y], axis=1)


def _code_cells(
    coder: Coder, frame: Frame, cell: Int64[np.ndarray, "n 2"] | None, limit: int
) -> Int64[np.ndarray, "n 2"]:
    """Counts per coarse cell, then how they part at each halving down to the leaf cells: no order is spent on."""
    key = None if cell is None else _cell_key(cell, frame)
    cells, levels = frame.columns * frame.rows, 2 * frame.depth
    known = None if key is None else np.bincount(key >> levels, minlength=cells)
    totals = coder.tokens("count", np.zeros(cells, np.int64), known)
    if int(totals.sum()) > limit:
        raise CorruptPayloadError(f"{int(totals.sum())} Gaussians announced, {limit} possible")
    node = np.flatnonzero(totals)
    totals = totals[node]
    for level in range(levels - 1, -1, -1):
        first = coder.split(totals, None if key is None else _first_counts(key >> level, node))
        both = np.stack([first, totals - first], axis=1).ravel()
        node = np.stack([2 * node, 2 * node + 1], axis=1).ravel()[both > 0]
        totals = both[both > 0]
    return cell if cell is not None else _key_cell(np.repeat(node, totals), frame)


def _first_counts(sorted_key: Ints, node: Ints) -> Ints:
    """How many keys equal ``2 * node``."""
    return np.searchsorted(sorted_key, 2 * node, "right") - np.searchsorted(sorted_key, 2 * node, "left")


def _code_color(
    coder: Coder, count: int, channels: int, color: Int64[np.ndarray, "n c"] | None
) -> Int64[np.ndarray, "n c"]:
    """Luma, then the other components in the context of its magnitude."""
    found = np.empty((count, channels), np.int64)
    context = np.zeros(count, np.int64)
    for index, stream in enumerate(component_streams(channels)):
        found[:, index] = coder.tokens(stream, context, None if color is None else color[:, index])
        if np.abs(found[:, index]).max(initial=0) > MAX_AMPLITUDE:
            raise CorruptPayloadError("a colour out of range")
        if index == 0:
            context = np.minimum(octave(np.abs(found[:, 0])), MAX_CONTEXT)
    return found


def component_streams(channels: int) -> tuple[str, ...]:
    """The stream of each colour component."""
    return {
        1: ("luma",),
        2: ("luma", "alpha"),
        3: ("luma", "chroma1", "chroma2"),
        4: ("luma", "chroma1", "chroma2", "alpha"),
    }[channels]
