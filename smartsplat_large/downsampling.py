"""Half-size pictures by 2 x 2 box means, and how many of them a pyramid has."""

from __future__ import annotations

import numpy as np

from smartsplat_large.array_types import Pixels
from smartsplat_large.lattice import Size

COARSEST = 256
"""A pyramid ends at the first level whose longer side is at most this many pixels."""


def level_count(size: Size) -> int:
    """How many levels a full pyramid has, the full size included."""
    count = 1
    while max(size.at_level(count - 1).width, size.at_level(count - 1).height) > COARSEST:
        count += 1
    return count


def downsample(pixels: Pixels) -> Pixels:
    """Each 2 x 2 box replaced by its mean, halves rounded up; at a ragged edge the mean of the pixels that exist.

    ``(h, w, c)`` becomes ``(ceil(h / 2), ceil(w / 2), c)`` of the same type.
    """
    height, width = pixels.shape[:2]
    if height % 2 or width % 2:
        # Doubling the last row or column leaves the mean over the pixels that exist as it is.
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    wide = np.uint16 if pixels.dtype == np.uint8 else np.uint32
    rows = np.add(pixels[0::2], pixels[1::2], dtype=wide)
    out = np.empty((rows.shape[0], rows.shape[1] // 2, rows.shape[2]), pixels.dtype)
    for channel in range(rows.shape[2]):  # One channel at a time: numpy is slow over an innermost axis of three.
        total = rows[:, 0::2, channel] + rows[:, 1::2, channel]
        total += 2
        total >>= 2
        out[:, :, channel] = total
    return out
