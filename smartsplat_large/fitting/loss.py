"""The training loss of one block and its gradient: ``l1 |r| + l2 r^2 + ssim (1 - SSIM)``, SmartSplat eq. 22.

SSIM uses an 11 x 11 Gaussian window of sigma 1.5, C1 = 0.01^2, C2 = 0.03^2, and zeros outside the image. A block's loss is
that of its core pixels; with a halo of :data:`HALO` pixels around the core (fewer only at the image's border), losses and
gradients of all blocks sum to those of the whole image.

The rendered value is clamped to [0, 1] and the gradient passes straight through the clamp, so overshoot where the target
is black or white costs nothing, and no pixel is ever stuck.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit, uintp

from smartsplat_large import simd
from smartsplat_large.array_types import Planes
from smartsplat_large.config import LossConfig
from smartsplat_large.lattice import Block

HALO = 5
_TAPS_N = 2 * HALO + 1
_gauss = np.exp(-((np.arange(_TAPS_N) - HALO) ** 2) / (2 * 1.5**2))
_TAPS = tuple(np.float32(t) for t in _gauss / _gauss.sum())
_C1, _C2 = np.float32(0.01**2), np.float32(0.03**2)
_PART = 128
_PAD = simd.LANES  # columns of zeros left of the pixels; at least as many right of them


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
    rendered: Planes, target: Planes, block: Block, config: LossConfig, image_samples: int
) -> tuple[LossSums, Planes]:
    """Loss of a block's core and its gradient on all pixels of its outer window.

    Parameters
    ----------
    rendered, target
        ``(channels, *block.outer.shape)`` float32, 1 is the brightest value.
    image_samples
        Pixels x channels of the whole image: the loss is a mean over the image, whatever the block.
    """
    rows, columns = block.core.slices(block.outer)
    core = (rows.start, rows.stop, columns.start, columns.stop)
    gradient = np.zeros_like(rendered)
    per_sample = 1 / image_samples
    absolute, squared = _pointwise(
        rendered, target, core, np.float32(config.l1 * per_sample), np.float32(2 * config.l2 * per_sample), gradient
    )
    samples = rendered.shape[0] * block.core.pixels
    dissimilarity = 0.0
    if config.ssim:
        similarity = _ssim_by_parts(rendered, target, core, np.float32(-config.ssim * per_sample), gradient)
        dissimilarity = samples - similarity
    return LossSums(absolute, squared, dissimilarity, samples), gradient


@njit(cache=True, nogil=True, error_model="numpy")
def _pointwise(rendered: Any, target: Any, core: Any, l1: Any, l2: Any, gradient: Any) -> Any:
    top, bottom, left, right = core
    absolute, squared = 0.0, 0.0
    for c in range(rendered.shape[0]):
        for y in range(top, bottom):
            row = _pointwise_row(
                rendered[c, y, left:right], target[c, y, left:right], l1, l2, gradient[c, y, left:right]
            )
            absolute += row[0]
            squared += row[1]
    return absolute, squared


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "nsz", "contract"})
def _pointwise_row(rendered: Any, target: Any, l1: Any, l2: Any, gradient: Any) -> Any:
    """Sums over one row; a function of its own so that its reductions alone may be reordered, and so vectorised."""
    absolute, squared = np.float32(0), np.float32(0)
    one, zero = np.float32(1), np.float32(0)
    for x in range(len(rendered)):
        value = rendered[x]
        value = zero if value < zero else value
        value = one if value > one else value
        r = value - target[x]
        absolute += abs(r)
        squared += r * r
        gradient[x] = l2 * r + (l1 if r > zero else (-l1 if r < zero else zero))
    return absolute, squared


@njit(inline="always", error_model="numpy")
def _blur_rows(source: Any, at: Any, pitch: Any) -> Any:
    """Eleven taps down a column of eight lanes, centred five rows below ``at``."""
    total = simd.mul(simd.splat(_TAPS[0]), simd.load(source, at))
    for t in range(1, _TAPS_N):
        total = simd.fma(simd.splat(_TAPS[t]), simd.load(source, at + uintp(t) * pitch), total)
    return total


@njit(inline="always", error_model="numpy")
def _blur_columns(source: Any, at: Any) -> Any:
    """Eleven taps along a row of eight lanes, centred on ``at``."""
    total = simd.mul(simd.splat(_TAPS[0]), simd.load(source, at - uintp(HALO)))
    for t in range(1, _TAPS_N):
        total = simd.fma(simd.splat(_TAPS[t]), simd.load(source, at + uintp(t) - uintp(HALO)), total)
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _ssim_by_parts(rendered: Any, target: Any, core: Any, weight: Any, gradient: Any) -> float:
    """:func:`_ssim` over parts of the core whose scratch stays in the second-level cache; they sum as blocks do."""
    _, height, width = rendered.shape
    top, bottom, left, right = core
    similarity = 0.0
    for y in range(top, bottom, _PART):
        for x in range(left, right, _PART):
            y_end, x_end = min(y + _PART, bottom), min(x + _PART, right)
            y0, y1, x0, x1 = max(y - HALO, 0), min(y_end + HALO, height), max(x - HALO, 0), min(x_end + HALO, width)
            part = (y0, y1, x0, x1)
            similarity += _ssim(rendered, target, part, (y - y0, y_end - y0, x - x0, x_end - x0), weight, gradient)
    return similarity


@njit(cache=True, nogil=True, error_model="numpy")
def _ssim(rendered: Any, target: Any, part: Any, core: Any, weight: Any, gradient: Any) -> float:
    """Sum of SSIM over the core of a part; ``weight`` times its gradient is added to ``gradient``.

    The part is given by its rows and columns, not as a view: only whole rows are known to be contiguous.
    """
    channels = len(rendered)
    y_first, y_end, x_first, x_end = part
    height, width = y_end - y_first, x_end - x_first
    top, bottom, left, right = core
    lanes = uintp(simd.LANES)
    pitch = uintp(_PAD + (width + simd.LANES - 1) // simd.LANES * simd.LANES + _PAD)
    x = np.zeros((height + 2 * HALO) * pitch, np.float32)
    y = np.zeros((height + 2 * HALO) * pitch, np.float32)
    moments = np.zeros(4 * pitch, np.float32)
    partials = np.zeros(3 * (height + 2 * HALO) * pitch, np.float32)
    plane = uintp(height + 2 * HALO) * pitch
    blurred = np.zeros(3 * pitch, np.float32)
    similarity = 0.0
    for c in range(channels):
        for row in range(height):
            base = uintp(row + HALO) * pitch + uintp(_PAD)
            _fill(x, base, rendered[c, y_first + row], uintp(x_first), uintp(width))
            _fill(y, base, target[c, y_first + row], uintp(x_first), uintp(width))
        for row in range(top, bottom):
            at = uintp(row) * pitch
            for j in range(uintp(0), pitch, lanes):
                _row_moments(x, y, at + j, pitch, moments, j)
            out = uintp(row + HALO) * pitch
            for j in range(uintp(_PAD + left), uintp(_PAD + right), lanes):
                similarity += _row_partials(moments, pitch, j, float(_PAD + right - j), partials, plane, out + j)
        for row in range(height):
            at = uintp(row) * pitch
            for p in range(3):
                for j in range(uintp(0), pitch, lanes):
                    value = _blur_rows(partials, uintp(p) * plane + at + j, pitch)
                    simd.store(blurred, uintp(p) * pitch + j, value)
            here = at + uintp(HALO) * pitch
            for column in range(uintp(0), uintp(width), lanes):
                j = uintp(_PAD) + column
                q = _blur_columns(blurred, pitch + j)
                q = simd.fma(simd.add(q, q), simd.load(x, here + j), _blur_columns(blurred, j))
                q = simd.fma(_blur_columns(blurred, pitch + pitch + j), simd.load(y, here + j), q)
                simd.store(moments, j, q)
            _add_row(gradient[c, y_first + row], uintp(x_first), uintp(width), weight, moments)
        # The next channel's horizontal taps must find zeros outside, as this one's did.
        moments[:] = 0
    return similarity


@njit(inline="always", error_model="numpy")
def _fill(padded: Any, base: Any, line: Any, first: Any, width: Any) -> None:
    """Copy ``width`` pixels of a row, clamped to [0, 1]."""
    for column in range(width):
        value = line[first + column]
        value = np.float32(0) if value < np.float32(0) else value
        padded[base + column] = np.float32(1) if value > np.float32(1) else value


@njit(inline="always", error_model="numpy")
def _add_row(line: Any, first: Any, width: Any, weight: Any, moments: Any) -> None:
    for column in range(width):
        line[first + column] += weight * moments[uintp(_PAD) + column]


@njit(inline="always", error_model="numpy")
def _row_moments(x: Any, y: Any, at: Any, pitch: Any, moments: Any, j: Any) -> None:
    """Vertical part of the four blurred moments x, y, xx + yy, xy at eight columns."""
    zero = simd.splat(np.float32(0))
    mx, my, squares, mxy = zero, zero, zero, zero
    for t in range(_TAPS_N):
        tap = simd.splat(_TAPS[t])
        vx, vy = simd.load(x, at + uintp(t) * pitch), simd.load(y, at + uintp(t) * pitch)
        wx, wy = simd.mul(tap, vx), simd.mul(tap, vy)
        mx, my = simd.add(mx, wx), simd.add(my, wy)
        squares, mxy = simd.fma(wy, vy, simd.fma(wx, vx, squares)), simd.fma(wx, vy, mxy)
    simd.store(moments, j, mx)
    simd.store(moments, j + pitch, my)
    simd.store(moments, j + uintp(2) * pitch, squares)
    simd.store(moments, j + uintp(3) * pitch, mxy)


@njit(inline="always", error_model="numpy")
def _row_partials(moments: Any, pitch: Any, j: Any, valid: float, partials: Any, plane: Any, out: Any) -> Any:
    """SSIM at eight pixels and its derivatives by the blurred x, xx and xy; lanes from ``valid`` on are zero."""
    mx, my = _blur_columns(moments, j), _blur_columns(moments, j + pitch)
    e_squares = _blur_columns(moments, j + uintp(2) * pitch)
    exy = _blur_columns(moments, j + uintp(3) * pitch)
    minus, two = simd.splat(np.float32(-1)), simd.splat(np.float32(2))
    one, c1, c2 = simd.splat(np.float32(1)), simd.splat(_C1), simd.splat(_C2)
    product, squares = simd.mul(mx, my), simd.fma(mx, mx, simd.mul(my, my))
    a1 = simd.fma(two, product, c1)
    a2 = simd.fma(two, simd.fma(minus, product, exy), c2)
    b1 = simd.add(squares, c1)
    b2 = simd.add(simd.fma(minus, squares, e_squares), c2)
    over = simd.div(one, simd.mul(b1, b2))
    s = simd.mul(simd.mul(a1, a2), over)
    nothing = simd.splat(np.float32(0))
    inside = simd.fma(minus, simd.ramp(), simd.splat(np.float32(valid)))
    d_xx = simd.mul(simd.mul(minus, s), simd.mul(over, b1))
    d_xy = simd.mul(simd.mul(two, a1), over)
    across = simd.mul(simd.mul(two, my), simd.mul(simd.fma(minus, a1, a2), over))
    d_x = simd.fma(simd.mul(simd.mul(two, mx), s), simd.mul(over, simd.fma(minus, b2, b1)), across)
    simd.store(partials, out, simd.where_above(inside, nothing, d_x))
    simd.store(partials, out + plane, simd.where_above(inside, nothing, d_xx))
    simd.store(partials, out + plane + plane, simd.where_above(inside, nothing, d_xy))
    return simd.horizontal_sum(simd.where_above(inside, nothing, s))
