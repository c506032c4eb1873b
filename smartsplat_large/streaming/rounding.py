"""One pass over the integers of a file: each Gaussian takes the symbols that serve the image best, block by block."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32

from smartsplat_large import columns
from smartsplat_large.array_types import Index, Xy
from smartsplat_large.codec.contexts import COLOR_CONTEXTS, sector_turns, turn_contexts, turn_sectors, usual_mean
from smartsplat_large.codec.entropy import Models
from smartsplat_large.codec.layout import Layout, inside
from smartsplat_large.codec.payload import component_streams
from smartsplat_large.codec.quantize import (
    ASPECT_STEP,
    MAX_OCTAVE,
    MEAN_STEP,
    ROWS,
    FloatColumn,
    IntColumn,
    Symbols,
    SymbolTable,
    color_transform,
    dequantize,
    log_aspect_ratio,
    log_mean_scale,
    place_levels,
    placed,
    turn_levels,
)
from smartsplat_large.codec.tokens import EVERY_OCTAVE, MAX_CONTEXT, STREAMS, tokenize
from smartsplat_large.fitting.block import Members, members
from smartsplat_large.fitting.rounding import round_gaussians
from smartsplat_large.gaussians import Gaussians, half_extent
from smartsplat_large.lattice import BlockGrid
from smartsplat_large.pixels import scaled
from smartsplat_large.render.base import BlockRenderer, Projection
from smartsplat_large.simd import LANES
from smartsplat_large.source.base import ImageSource, read_planes
from smartsplat_large.streaming.seen import Seen
from smartsplat_large.streaming.workers import Workers

_BLOCK_SPACINGS = 32
"""Side of a block in mean spacings of the Gaussians."""
_SIDES = (128, 512)
_GROWTH = 1.5
_LARGEST_TABLED = 127

Homes = Int32[np.ndarray, "n"]


@dataclass(frozen=True, slots=True)
class Rounding:
    """What the tasks of a pass share: no Gaussians, no pixels."""

    source: ImageSource
    renderer: BlockRenderer
    layout: Layout
    grid: BlockGrid
    step: float
    models: Models
    bits: FloatColumn
    price: float
    shapes: bool
    """Whether the geometry is up for change, too."""


@dataclass(frozen=True, slots=True)
class Part:
    """What the task of one block must know beside what all of them share."""

    symbols: Symbols
    """Of the Gaussians whose home the block is."""
    seen: Seen
    """All that show there, as they would be decoded now."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Blocks that may be done at the same time; what each must know is put together when it is asked for."""

    blocks: list[int]
    renderer: BlockRenderer
    symbols: SymbolTable
    shape: Gaussians
    projection: Projection
    members: Members
    home: Homes
    """Block of each Gaussian; -1 for those that reach further than a halo, whose symbols stay."""

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, number: int) -> Part:
        block = self.blocks[number]
        seen = Seen(block, self.renderer, 1.0, self.members.of(block), self.shape, self.projection)
        return Part(self.symbols.take(self.own(number)), seen)

    def own(self, number: int) -> Index:
        """Rows of those whose home a block is."""
        block = self.blocks[number]
        ids = self.members.of(block)
        own: Index = ids[self.home[ids] == block]
        return own


def round_block(rounding: Rounding, part: Part) -> Symbols:
    """The task of one block: new symbols of the Gaussians whose home it is."""
    block, leaf, symbols = rounding.grid[part.seen.block], rounding.layout.leaf, part.symbols
    count = len(symbols)
    if not count:
        return symbols
    target = scaled(read_planes(rounding.source, block.outer, 0))
    # Straight through the clamp, as the fit's loss does: overshoot where the image is saturated is no error.
    target -= rounding.renderer.render(part.seen.projection, block.outer).clip(0, 1)
    channels = len(target)
    # Wider than the block: the kernel works on eight pixels at a time.
    residual = np.zeros((channels, *target.shape[1:-1], target.shape[-1] + LANES), np.float32)
    residual[..., :-LANES] = np.tensordot(color_transform(channels).astype(np.float32), target, 1)
    tried = variants(symbols, rounding.layout) if rounding.shapes else [symbols]
    every = Symbols.concatenate(tried)
    shape = dequantize(every, rounding.step, leaf)
    split = (len(tried), count)
    gain = rounding.step * np.exp(-log_mean_scale(every.octave, every.mean))
    color, chosen = symbols.color.copy(), np.zeros(count, np.int64)
    round_gaussians(
        shape.xy.reshape(*split, 2), shape.scale.reshape(*split, 2), shape.rotation.reshape(split), gain.reshape(split),
        np.minimum(every.octave, MAX_CONTEXT).reshape(split),
        geometry_bits(every, rounding.layout, rounding.models).reshape(split), color, chosen, residual,
        np.array([block.outer.x, block.outer.y], np.float64), rounding.bits, rounding.price,
    )  # fmt: skip
    return dataclasses.replace(every.take(chosen * count + np.arange(count)), color=color)


def round_jointly(
    source: ImageSource, renderer: BlockRenderer, symbols: SymbolTable, layout: Layout, step: float, models: Models,
    price: float, workers: Workers, *, shapes: bool,
) -> None:  # fmt: skip
    """Let ``symbols`` fit the image better, or as well in fewer bits: one pass over all blocks.

    ``price`` is the squared error that a bit is worth, in units of the energy of one amplitude step. Blocks are visited
    in four rounds, none beside another of its round: the Gaussians of a round do not overlap across blocks, so the order
    of blocks, and the number of workers, do not matter.
    """
    shape = _decoded(symbols, step, layout.leaf)
    grid = _grid(layout, len(symbols))
    home = _home(shape, grid)
    bits = color_bits(models, shape.channels)
    price *= math.pi * step * step
    shared = Rounding(source, renderer, layout, grid, step, models, bits, price, shapes)
    for group in range(4):
        _round_group(shared, group, symbols, shape, home, workers)


def _round_group(
    shared: Rounding, group: int, symbols: SymbolTable, shape: Gaussians, home: Homes, workers: Workers
) -> None:
    """Let ``symbols`` and ``shape`` be what the blocks of one group make of them."""
    projection = shared.renderer.project(shape, 1.0, workers.spread, columns.empty)
    turn = Turn(
        shared.grid.group(group), shared.renderer, symbols, shape, projection, members(projection, shared.grid), home
    )
    # What a block has done is put in place at once: no other block of its group sees those whose home it is.
    for number, part in enumerate(workers.map(round_block, shared, turn, pixels=shared.grid.block**2)):
        own = turn.own(number)
        symbols.put(own, part)
        shape.put(own, dequantize(part, shared.step, shared.layout.leaf))


def _decoded(symbols: SymbolTable, step: float, leaf: int) -> Gaussians:
    """All Gaussians as they would be decoded now."""
    found = Gaussians.room(len(symbols), symbols.channels)
    for rows in columns.chunks(len(symbols), ROWS):
        found.put(rows, dequantize(symbols.take(rows), step, leaf))
    return found


def variants(symbols: Symbols, layout: Layout) -> list[Symbols]:
    """``symbols``, then with each number of their geometry one lower, and one higher, the rest of it kept in place."""
    octave, mean, aspect, leaf = symbols.octave, symbols.mean, symbols.aspect, layout.leaf
    turns = turn_levels(octave, aspect)
    levels = place_levels(octave, mean, aspect, symbols.turn, turns, leaf)
    turned = np.where(turns > 1, symbols.turn / turns, 0.5)
    xy = np.ldexp(symbols.cell + (symbols.place + 0.5) / levels, leaf)
    size = (layout.size.width - 1e-6, layout.size.height - 1e-6)

    def at(octave: IntColumn, mean: IntColumn, aspect: IntColumn, turned: FloatColumn, xy: Xy) -> Symbols:
        return placed(octave, mean, aspect, turned, xy, leaf, symbols.color)

    found = [symbols]
    for sign in (-1, 1):
        found.append(at(octave, mean + sign, aspect, turned, xy))
        found.append(at(octave, mean, np.maximum(aspect + sign, 0), turned, xy))
        found.append(at(octave, mean, aspect, turned + sign / np.maximum(turns, 2), xy))
        for axis in (0, 1):
            moved = xy.copy()
            moved[:, axis] += sign * np.ldexp(1.0, leaf) / levels[:, axis]
            # A centre that lay in the image stays there: outside, it would cost the wide block its plain frame.
            moved = np.where(inside(xy, layout.size)[:, None], np.clip(moved, 0, size), moved)
            found.append(at(octave, mean, aspect, turned, moved))
        other = np.clip(octave + sign, 1, MAX_OCTAVE)
        log_mean, log_aspect = log_mean_scale(octave, mean), log_aspect_ratio(octave, aspect)
        found.append(at(
            other, np.rint(np.ldexp(log_mean / MEAN_STEP, other)).astype(np.int64),
            np.rint(np.ldexp(log_aspect / ASPECT_STEP, other)).astype(np.int64), turned, xy,
        ))  # fmt: skip
    return found


def _grid(layout: Layout, count: int) -> BlockGrid:
    spacing = math.sqrt(layout.size.pixels / count)
    side = min(max(1 << round(math.log2(_BLOCK_SPACINGS * spacing)), _SIDES[0]), _SIDES[1])
    return BlockGrid(layout.size, side, side // 2)


def _home(shape: Gaussians, grid: BlockGrid) -> Homes:
    """The block in whose outer window each Gaussian lies with some room to spare, or -1."""
    found = columns.empty(len(shape), np.int32)
    limit = np.array([grid.size.width - 1, grid.size.height - 1])
    for rows in columns.chunks(len(shape)):
        part = shape.part(rows)
        # A pass may let a Gaussian grow by a step or two.
        reach = _GROWTH * half_extent(part.scale, part.rotation).max(axis=1)
        nearest = np.clip(np.floor(part.xy), 0, limit)
        outside = np.abs(part.xy - nearest).max(axis=1) - 1
        column, row = (nearest // grid.block).astype(np.int64).T
        found[rows] = np.where(reach + np.maximum(outside, 0) < grid.halo - 1, row * grid.columns + column, -1)
    return found


def geometry_bits(symbols: Symbols, layout: Layout, models: Models) -> FloatColumn:
    """About what each Gaussian costs beside its colour."""
    context = np.minimum(symbols.octave, MAX_CONTEXT)
    bits = np.full(len(symbols), 2.5)  # which cell it is in: the order of a set is free
    turns = turn_levels(symbols.octave, symbols.aspect)
    sector = turn_sectors(turns, symbols.turn)
    for stream, values, contexts in (
        ("octave", symbols.octave - 1, np.full_like(context, EVERY_OCTAVE)),
        ("mean", symbols.mean - usual_mean(symbols.octave, layout.leaf), context),
        ("aspect", symbols.aspect, context),
        ("turn", sector, turn_contexts(turns)),
    ):
        bits += value_bits(models, stream, contexts, values)
    levels = place_levels(symbols.octave, symbols.mean, symbols.aspect, symbols.turn, turns, layout.leaf)
    return np.asarray(bits + np.log2(sector_turns(turns, sector)[1]) + np.log2(levels).sum(axis=1))


def value_bits(models: Models, stream: str, contexts: IntColumn, values: IntColumn) -> FloatColumn:
    """What the model of a stream charges for each value in its context."""
    tokens, _, sizes = tokenize(values, STREAMS[stream].signed)
    bits: FloatColumn = np.log2(sizes)
    for context in np.unique(contexts).tolist():
        at = contexts == context
        first, weights = models.table((stream, context))
        if len(weights) < 2:
            continue
        table = -np.log2(np.maximum(weights / weights.sum(), 2.0**-16))
        bits[at] += table[np.clip(tokens[at] - first, 0, len(table) - 1)]
    return bits


def color_bits(models: Models, channels: int) -> FloatColumn:
    """Cost of every small value, by component and context; see :func:`~smartsplat_large.fitting.rounding.round_gaussians`."""
    values = np.arange(-_LARGEST_TABLED, _LARGEST_TABLED + 1)
    table: FloatColumn = np.array([
        [
            value_bits(models, stream, np.full(len(values), min(context, STREAMS[stream].contexts - 1)), values)
            for context in range(COLOR_CONTEXTS)
        ]
        for stream in component_streams(channels)
    ])  # fmt: skip
    return table
