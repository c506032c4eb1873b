"""Which points lie in which block."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int32

from smartsplat_large import columns
from smartsplat_large.array_types import Index, Xy
from smartsplat_large.lattice import BlockGrid


def rows_by_block(xy: Xy, blocks: BlockGrid) -> tuple[Index, Int32[np.ndarray, " n"]]:
    """``start, rows``: the points in the core of block ``b`` are ``rows[start[b] : start[b + 1]]``, ascending."""
    start = np.zeros(len(blocks) + 1, np.int64)
    for chunk in columns.chunks(len(xy)):
        start[1:] += np.bincount(_block_of(xy[chunk], blocks), minlength=len(blocks))
    np.cumsum(start, out=start)
    rows, position = columns.empty(len(xy), np.int32), start[:-1].copy()
    for chunk in columns.chunks(len(xy)):
        block_of = _block_of(xy[chunk], blocks)
        order = np.argsort(block_of, kind="stable")
        counts = np.bincount(block_of, minlength=len(blocks))
        # Each block's points go on from where those of the chunks before ended.
        shift = position - (np.cumsum(counts) - counts)
        rows[np.arange(len(order)) + shift[block_of[order]]] = chunk.start + order
        position += counts
    return start, rows


def _block_of(xy: Xy, blocks: BlockGrid) -> Index:
    column, row = (xy // blocks.block).astype(np.int64).T
    block: Index = row * blocks.columns + column
    return block
