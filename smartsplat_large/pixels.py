"""Between stored pixels (integers, channels last) and planes (float32, one per channel, 1 is the brightest value)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from smartsplat_large.array_types import Pixels, Planes, WholePlanes


def to_planes(pixels: Pixels) -> Planes:
    """``(h, w, c)`` of uint8 or uint16 as ``(c, h, w)`` float32 in [0, 1]."""
    planes = np.empty((pixels.shape[2], *pixels.shape[:2]), np.float32)
    _to_planes(pixels, np.float32(1 / np.iinfo(pixels.dtype).max), planes)
    return planes


def to_pixels(planes: Planes, dtype: np.dtype[Any]) -> Pixels:
    """``(c, h, w)`` float32, clamped to [0, 1] (SmartSplat eq. 4) and rounded to nearest, as ``(h, w, c)`` of ``dtype``."""
    pixels = np.empty((*planes.shape[1:], planes.shape[0]), dtype)
    _to_pixels(planes, np.float32(np.iinfo(dtype).max), pixels)
    return pixels


def to_whole_planes(pixels: Pixels) -> WholePlanes:
    """``(h, w, c)`` as ``(c, h, w)`` of the same whole numbers."""
    planes = np.empty((pixels.shape[2], *pixels.shape[:2]), pixels.dtype)
    _separate(pixels, planes)
    return planes


def scaled(planes: WholePlanes) -> Planes:
    """Whole numbers as float32 in [0, 1]."""
    return planes * np.float32(1 / np.iinfo(planes.dtype).max)


@njit(cache=True, nogil=True, error_model="numpy")
def _separate(pixels: Any, planes: Any) -> None:
    height, width, channels = pixels.shape
    for y in range(height):
        for c in range(channels):
            for x in range(width):
                planes[c, y, x] = pixels[y, x, c]


@njit(cache=True, nogil=True, error_model="numpy")
def _to_planes(pixels: Any, unit: Any, planes: Any) -> None:
    height, width, channels = pixels.shape
    for y in range(height):
        for c in range(channels):
            for x in range(width):
                planes[c, y, x] = np.float32(pixels[y, x, c]) * unit


@njit(cache=True, nogil=True, error_model="numpy")
def _to_pixels(planes: Any, peak: Any, pixels: Any) -> None:
    channels, height, width = planes.shape
    for y in range(height):
        for c in range(channels):
            for x in range(width):
                value = min(max(planes[c, y, x], np.float32(0)), np.float32(1))
                pixels[y, x, c] = int(value * peak + np.float32(0.5))
