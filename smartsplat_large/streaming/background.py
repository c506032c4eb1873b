"""The colour that Gaussians are added to: what a picture has most of need not be painted over and over."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numba import njit

from smartsplat_large import columns
from smartsplat_large.array_types import Pixels
from smartsplat_large.config import FitConfig
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Size, Window
from smartsplat_large.source.base import ImageSource

_WINDOW, _ACROSS = 256, 8
"""Windows of so many pixels, at most so many along each side of the picture, stand for it."""
_PAPER_SHARE = 0.2
"""A colour that so many pixels have, to a level, is that of a paper."""


def background_of(source: ImageSource, config: FitConfig) -> tuple[float, ...]:
    """The colour of the paper where the picture has one, else the mean; a whole number of levels, 1 is the brightest.

    Empty where the settings want black.
    """
    if config.background == "black":
        return ()
    meta = source.meta
    seen = [_seen(source, window) for window in _windows(meta.size)]
    counts = np.zeros((meta.channels, 1 << 8 * meta.dtype.itemsize), np.int64)
    for pixels in seen:
        _count(pixels, counts)
    number = sum(map(len, seen))
    median = np.round(_median(counts, number))
    share = sum(_near(pixels, median) for pixels in seen) / number
    levels = median if share >= _PAPER_SHARE else np.round(counts @ np.arange(counts.shape[1]) / number)
    return tuple(float(level) / ((1 << 8 * meta.dtype.itemsize) - 1) for level in levels)


def above(gaussians: Gaussians, background: tuple[float, ...]) -> Gaussians:
    """``gaussians`` whose colours are those of the picture, as they are when added to a background."""
    if not background:
        return gaussians
    color = columns.copied(gaussians.color)
    color -= np.array(background, np.float32)
    return Gaussians(gaussians.xy, gaussians.scale, gaussians.rotation, color)


def _seen(source: ImageSource, window: Window) -> Pixels:
    pixels = source.read(window, 0)
    return pixels.reshape(-1, pixels.shape[2])


@njit(cache=True, nogil=True, error_model="numpy")
def _count(pixels: Any, counts: Any) -> None:
    """Add how many pixels have each level of each channel."""
    for i in range(len(pixels)):
        for c in range(pixels.shape[1]):
            counts[c, pixels[i, c]] += 1


def _median(counts: Int64[np.ndarray, "c l"], number: int) -> Float64[np.ndarray, "c"]:
    """Of each channel; between the two in the middle where ``number`` is even."""
    middle = ((number - 1) // 2, number // 2)
    return np.array([np.searchsorted(ends, middle, side="right").mean() for ends in counts.cumsum(axis=1)])


@njit(cache=True, nogil=True, error_model="numpy")
def _near(pixels: Any, levels: Any) -> int:
    """How many pixels have ``levels`` to within one in every channel."""
    found = 0
    for i in range(len(pixels)):
        alike = True
        for c in range(pixels.shape[1]):
            alike &= abs(pixels[i, c] - levels[c]) <= 1
        found += alike
    return found


def _windows(size: Size) -> list[Window]:
    """All of a small picture, evenly spread parts of a large one."""
    return [
        Window(x, y, min(_WINDOW, size.width), min(_WINDOW, size.height))
        for y in _starts(size.height)
        for x in _starts(size.width)
    ]


def _starts(side: int) -> list[int]:
    count = min(_ACROSS, math.ceil(side / _WINDOW))
    last = max(side - _WINDOW, 0)
    return [last * i // max(count - 1, 1) for i in range(count)]
