"""Points drawn where there is detail, SmartSplat eqs. 11-14 and 32-39."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32, Float64
from numba import njit

from smartsplat_large.array_types import Index, PixelReader
from smartsplat_large.lattice import Size, Window
from smartsplat_large.sampling.features import HALO, feature_weights
from smartsplat_large.sampling.halo import read_with_halo
from smartsplat_large.sampling.streams import Stream, generator


def tile_quotas(count: int, tiles: int) -> list[int]:
    """How many of ``count`` points each of ``tiles`` tiles draws; SmartSplat eq. 34, so the sum is ``count``."""
    share, rest = divmod(count, tiles)
    return [share + (k < rest) for k in range(tiles)]


def base_scale(size: Size, count: int) -> float:
    """A third of the radius at which ``count`` equal circles have the area of the image; SmartSplat eqs. 13, 37."""
    return math.sqrt(size.pixels / (math.pi * count)) / 3


def feature_scale(weight: Float32[np.ndarray, " n"], base: float) -> Float64[np.ndarray, " n"]:
    """``base * exp(-w / 2)``, for both axes: the more detail, the smaller. SmartSplat eqs. 14, 38, 39."""
    return base * np.exp(weight.astype(np.float64) / -2)


def draw_pixels(weights: Float32[np.ndarray, "h w"], count: int, key: int) -> Index:
    """Flat indices, rising, of ``min(count, pixels)`` pixels drawn without replacement, P ~ weight.

    SmartSplat eqs. 11, 12, 33, 35: as drawing one pixel after the other and taking its weight away. Each pixel gets
    an exponentially distributed key of rate ``weight`` and the smallest ``count`` keys win (Efraimidis and Spirakis
    2006), in one pass. Pixels of weight 0 are drawn, uniformly, only when there are no others left.

    Parameters
    ----------
    weights
        Not negative; they need not sum to 1.
    key
        64 bits that fix the draw.
    """
    pixels = weights.size
    if count >= pixels:
        return np.arange(pixels)
    if count <= 0:
        return np.zeros(0, np.int64)
    keys = np.empty(pixels)
    _exponential_keys(np.ascontiguousarray(weights).ravel(), np.uint64(key), keys)
    return np.sort(np.argpartition(keys, count - 1)[:count])


def draw_tile(
    read: PixelReader, size: Size, tile: Window, index: int, count: int, gradient_weight: float, seed: int
) -> tuple[Float64[np.ndarray, "n 2"], Float32[np.ndarray, " n"]]:
    """Draw the points of tile number ``index``: their centres (pixel centres, level 0) and their weights ``w``.

    ``count`` points, or one on each pixel where the tile has fewer pixels. Reads the tile and its halo, once.
    """
    weights = feature_weights(read_with_halo(read, tile, HALO, size), gradient_weight)
    key = int(generator(seed, Stream.TILE, index).bit_generator.random_raw())
    chosen = draw_pixels(weights, count, key)
    rows, columns = np.divmod(chosen, tile.width)
    xy = np.stack([columns + (tile.x + 0.5), rows + (tile.y + 0.5)], axis=1)
    return xy, weights.ravel()[chosen]


@njit(cache=True, nogil=True, error_model="numpy")
def _exponential_keys(weights, key, keys):  # type: ignore[no-untyped-def]  # numba
    """``keys[i] = -log(u_i) / weights[i]`` with ``u`` from the SplitMix64 sequence that starts at ``key``."""
    # A counter hash instead of a generator: 2 ns a pixel, and pixel i's number needs no other pixel's.
    last = np.float64(2.0**-53)
    for i in range(weights.shape[0]):
        z = key + np.uint64(i + 1) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        waiting = -np.log((np.float64(z >> np.uint64(11)) + 0.5) * last)
        # The largest key of the smallest float32 weight is below 1e47: those of weight 0 come after all others.
        keys[i] = waiting / np.float64(weights[i]) if weights[i] > 0 else (1 + waiting) * 1e60
