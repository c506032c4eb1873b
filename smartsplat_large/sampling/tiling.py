"""Adaptive tiling, SmartSplat eqs. 23-29: overlapping tiles of one size that together cover the image."""

from __future__ import annotations

from smartsplat_large.lattice import Size, Window


def tile_spans(length: int, tile: int) -> list[tuple[int, int]]:
    """``(start, width)`` of the tiles along one axis; equal widths ``min(tile, length)``, starts rising from 0.

    SmartSplat eqs. 23-29, with one deviation. The paper starts tile ``i`` at ``i * floor((length - tile) / (n - 1))``,
    which leaves up to ``n - 2`` pixels at the far edge in no tile; here it starts at
    ``floor(i * (length - tile) / (n - 1))``, the same numbers wherever that division has no remainder.
    """
    count = -(-length // tile)
    if count == 1:
        # Eq. 24 centres a single tile, but it is as long as the axis, so its offset is always 0.
        return [(0, length)]
    slack = length - tile
    return [(i * slack // (count - 1), tile) for i in range(count)]


def feature_tiles(size: Size, tile: int) -> list[Window]:
    """The tiles of an image, row by row: the index in this list is the tile's number ``k`` in eq. 34."""
    columns = tile_spans(size.width, tile)
    return [Window(x, y, width, height) for y, height in tile_spans(size.height, tile) for x, width in columns]
