"""The training loss of one block and its gradient: ``l1 |r| + l2 r^2 + ssim (1 - SSIM)``, SmartSplat eq. 22.

A block's loss is that of its core pixels; with a halo of ``ssim.HALO`` pixels around the core (fewer only at the image's
border), losses and gradients of all blocks sum to those of the whole image.

The rendered value is clamped to [0, 1] and the gradient passes straight through the clamp, so overshoot where the target
is black or white costs nothing, and no pixel is ever stuck.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit, uintp

from smartsplat_large.array_types import Planes, WholePlanes
from smartsplat_large.config import LossConfig
from smartsplat_large.fitting.ssim import HALO, PART_HEIGHT, PART_WIDTH, scratch, similarity
from smartsplat_large.lattice import Block, Size

NEGLIGIBLE = 1e-7
"""A loss that is rounding: what is as small is as good, and may even be below zero."""


@dataclass(frozen=True, slots=True)
class LossSums:
    """Sums over the core pixels and channels of some blocks; add them up to have those of the image."""

    absolute: float
    squared: float
    dissimilarity: float
    """Sum of ``1 - SSIM``."""
    samples: int

    def __add__(self, other: LossSums) -> LossSums:
        return LossSums(
            self.absolute + other.absolute,
            self.squared + other.squared,
            self.dissimilarity + other.dissimilarity,
            self.samples + other.samples,
        )

    def value(self, config: LossConfig) -> float:
        """Eq. 22 with the weights of ``config``."""
        weighted = config.l1 * self.absolute + config.l2 * self.squared + config.ssim * self.dissimilarity
        return weighted / self.samples

    @property
    def psnr(self) -> float:
        """Of the clamped rendering, in dB; infinite where it is exact."""
        return float(-10 * np.log10(self.squared / self.samples)) if self.squared > 0 else float("inf")


def block_loss(
    rendered: Planes, target: Planes | WholePlanes, block: Block, config: LossConfig, image: Size
) -> tuple[LossSums, Planes]:
    """Loss of a block's core and its gradient on all pixels of its outer window.

    Parameters
    ----------
    rendered, target
        ``(channels, *block.outer.shape)``; 1 is the brightest value, or for whole numbers their largest.
    image
        Of the whole image, seen as the block is: the loss is a mean over the image, whatever the block.
    """
    rows, columns = block.core.slices(block.outer)
    peak = 1.0 if target.dtype.kind == "f" else float(np.iinfo(target.dtype).max)
    gradient = np.zeros(rendered.shape, np.float32)
    per_sample = 1 / (image.pixels * rendered.shape[0])
    stands_for = pixels_a_point(image, config.ssim_stride)
    absolute, squared, similar, points = _by_parts(
        rendered.reshape(-1), np.ascontiguousarray(target).reshape(-1), rendered.shape, np.float32(1 / peak),
        (rows.start, rows.stop, columns.start, columns.stop), (block.outer.y, block.outer.x), (0,) * config.ssim_stride,
        np.float32(config.l1 * per_sample), np.float32(2 * config.l2 * per_sample),
        np.float32(-config.ssim * per_sample * stands_for), gradient.reshape(-1),
    )  # fmt: skip
    samples = rendered.shape[0] * block.core.pixels
    return LossSums(absolute, squared, (points - similar) * stands_for, samples), gradient


def pixels_a_point(image: Size, stride: int) -> float:
    """Pixels that a point of SSIM's lattice stands for: ``stride**2``, or less where the last points are cut short."""
    points = -(-image.width // stride) * -(-image.height // stride)
    return image.pixels / points


@njit(cache=True, nogil=True, error_model="numpy")
def _by_parts(
    rendered: Any, target: Any, shape: Any, scale: Any, core: Any, origin: Any, phases: Any, l1: Any, l2: Any, ssim: Any,
    gradient: Any,
) -> Any:  # fmt: skip
    """All terms of one part after the other, while its pixels are in the cache; parts sum as blocks do."""
    channels, height, width = shape
    top, bottom, left, right = core
    room = scratch(phases)
    absolute, squared, similar, points = 0.0, 0.0, 0.0, 0
    for y in range(top, bottom, PART_HEIGHT):
        y_end = min(y + PART_HEIGHT, bottom)
        for x in range(left, right, PART_WIDTH):
            x_end = min(x + PART_WIDTH, right)
            outer = (max(y - HALO, 0), min(y_end + HALO, height), max(x - HALO, 0), min(x_end + HALO, width))
            for c in range(channels):
                plane = c * height * width
                for row in range(y, y_end):
                    first = uintp(plane + row * width + x)
                    sums = _pointwise(rendered, target, first, uintp(x_end - x), scale, l1, l2, gradient)
                    absolute += sums[0]
                    squared += sums[1]
                if ssim:
                    part = similarity(
                        rendered, target, scale, (plane, width), outer, (y, y_end, x, x_end), origin, phases, ssim,
                        gradient, room,
                    )  # fmt: skip
                    similar += part[0]
                    points += part[1]
    return absolute, squared, similar, points


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})
def _pointwise(rendered: Any, target: Any, first: Any, count: Any, scale: Any, l1: Any, l2: Any, gradient: Any) -> Any:
    """Sums over one row; a function of its own so that its reductions alone may be reordered, and so vectorised."""
    absolute, squared = np.float32(0), np.float32(0)
    one, zero = np.float32(1), np.float32(0)
    for x in range(first, first + count):
        value = rendered[x]
        value = zero if value < zero else value
        value = one if value > one else value
        # White must be 1 to the bit, or overshoot there would have a sign: the minimum keeps the product from being fused.
        wanted = np.float32(target[x]) * scale
        r = value - (one if wanted > one else wanted)
        absolute += abs(r)
        squared += r * r
        gradient[x] += l2 * r + (l1 if r > zero else (-l1 if r < zero else zero))
    return absolute, squared
