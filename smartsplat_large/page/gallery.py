"""The crops of a comparison: where they are taken, and their pixels as text."""

from __future__ import annotations

import base64

import imagecodecs
import numpy as np

from smartsplat_large.array_types import Pixels
from smartsplat_large.lattice import Size, Window

SIDE = 256
"""Pixels of a crop, shown one to one on most screens."""
CROPS = 3


class Gallery:
    """The same few windows of the original and of whatever was restored; whole pictures are not kept."""

    def __init__(self, original: Pixels) -> None:
        self._whole = Size(original.shape[1], original.shape[0]).window
        self.windows = detailed_windows(original, SIDE, CROPS)
        self.original = self._cut(original)
        self.restored: dict[tuple[str, float], list[str]] = {}
        """Codec and ratio to a data URI a window."""

    def add(self, codec: str, ratio: float, restored: Pixels) -> None:
        """Keep the windows of one restored picture."""
        self.restored[codec, ratio] = self._cut(restored)

    def _cut(self, pixels: Pixels) -> list[str]:
        return [data_uri(pixels[window.slices(self._whole)]) for window in self.windows]


def detailed_windows(pixels: Pixels, side: int, count: int) -> list[Window]:
    """Up to ``count`` windows that do not overlap, those with the steepest grey values first; at least one.

    Windows lie on a grid of half their side, and are ``side`` pixels wide and high, or as large as the picture is.
    """
    grey = pixels.mean(axis=2, dtype=np.float32)
    size = Size(pixels.shape[1], pixels.shape[0])
    width, height = min(side, size.width), min(side, size.height)
    steep = np.zeros((size.height + 1, size.width + 1))
    across, down = np.abs(np.diff(grey, axis=1, prepend=grey[:, :1])), np.abs(np.diff(grey, axis=0, prepend=grey[:1]))
    steep[1:, 1:] = (across + down).cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    candidates = [Window(x, y, width, height) for y in _starts(size.height, height) for x in _starts(size.width, width)]
    ranked = sorted(candidates, key=lambda w: -_sum_in(steep, w))
    chosen: list[Window] = []
    for window in ranked:
        if len(chosen) < count and all(window.intersection(other).is_empty for other in chosen):
            chosen.append(window)
    return chosen


def _starts(side: int, part: int) -> list[int]:
    return sorted({*range(0, side - part + 1, max(1, part // 2)), side - part})


def _sum_in(integral: np.ndarray, window: Window) -> float:
    top, bottom = integral[window.y], integral[window.y_end]
    return float(bottom[window.x_end] - bottom[window.x] - top[window.x_end] + top[window.x])


def data_uri(pixels: Pixels) -> str:
    """``(h, w, 1 or 3)`` of uint8 as a lossless WebP in a URI: browsers show exactly these pixels."""
    # A copy in any case: of a side of one pixel, broadcasting makes a stride of 0, which the encoder takes amiss.
    color = np.array(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), order="C")
    encoded = imagecodecs.webp_encode(color, lossless=True, level=60)
    return "data:image/webp;base64," + base64.b64encode(bytes(encoded)).decode("ascii")
