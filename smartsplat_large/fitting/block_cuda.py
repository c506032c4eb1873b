"""One block of one sweep on a GPU: what :mod:`.block` and :mod:`.loss` do, without a way through the host's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from smartsplat_large.array_types import Moments, WholePlanes
from smartsplat_large.config import LossConfig
from smartsplat_large.fitting.loss import LossSums, pixels_a_point
from smartsplat_large.fitting.ssim import TAPS
from smartsplat_large.lattice import Block, Size
from smartsplat_large.render.base import Projection
from smartsplat_large.render.cuda import TURN, CudaRenderer

if TYPE_CHECKING:
    from torch import Tensor


def block_moments(
    renderer: CudaRenderer, projection: Projection, target: WholePlanes, block: Block, loss: LossConfig, image: Size
) -> tuple[LossSums, Moments]:
    """Loss of a block's core and the moments of its gradient for the Gaussians of ``projection``."""
    with TURN:
        gaussians, peaks = renderer.uploaded(projection)
        rendered = renderer.rendered(gaussians, peaks, block.outer, None)
        sums, d_rendered = block_loss(rendered, renderer.kept(target), block, loss, image)
        moments = renderer.moments(gaussians, peaks, block.outer, d_rendered)
        return _summed(sums, len(target) * block.core.pixels), renderer.received(moments)


def block_loss_only(
    renderer: CudaRenderer, projection: Projection, target: WholePlanes, block: Block, loss: LossConfig, image: Size
) -> LossSums:
    """Loss of a block's core."""
    with TURN:
        rendered = renderer.rendered(*renderer.uploaded(projection), block.outer, None)
        sums, _ = block_loss(rendered, renderer.kept(target), block, loss, image)
        return _summed(sums, len(target) * block.core.pixels)


def _summed(sums: Tensor, samples: int) -> LossSums:
    absolute, squared, dissimilarity = sums.tolist()
    return LossSums(absolute, squared, dissimilarity, samples)


def block_loss(
    rendered: Tensor, target: Tensor, block: Block, config: LossConfig, image: Size
) -> tuple[Tensor, Tensor]:
    """The three sums of :class:`LossSums` over a block's core, float64, and the gradient on all pixels of its outer window.

    ``rendered`` is clamped in place; ``target`` holds whole numbers.
    """
    import torch

    x = rendered.clamp_(0, 1)
    # White must be 1 to the bit, or overshoot there would have a sign.
    y = (target.float() * (1 / torch.iinfo(target.dtype).max)).clamp_(max=1)
    core = (slice(None), *block.core.slices(block.outer))
    residual, per_sample = x[core] - y[core], 1 / (image.pixels * len(x))
    gradient = torch.zeros_like(x)
    gradient[core] = residual.sign().mul_(config.l1 * per_sample).add_(residual, alpha=2 * config.l2 * per_sample)
    sums = [residual.abs().sum(dtype=torch.float64), residual.square().sum(dtype=torch.float64)]
    stands_for = pixels_a_point(image, config.ssim_stride)
    weight = -config.ssim * per_sample * stands_for
    sums.append(_add_ssim(x, y, block, config.ssim_stride, weight, gradient) * stands_for if weight else 0 * sums[0])
    return torch.stack(sums), gradient


def _add_ssim(x: Tensor, y: Tensor, block: Block, step: int, weight: float, gradient: Tensor) -> Tensor:
    """Sum of ``1 - SSIM`` over the core's lattice points; ``weight`` times the gradient of the sum of SSIM is added up."""
    import torch

    kernels = kernels_of_fitting()
    channels, height, width = x.shape
    first_row, rows = _lattice(block.core.y, block.core.y_end, block.outer.y, step)
    first_column, columns = _lattice(block.core.x, block.core.x_end, block.outer.x, step)
    if not rows or not columns:
        return x.new_zeros((), dtype=torch.float64)
    # One tap of zero more: every other one is taken, from the first or the second on.
    taps = torch.from_numpy(np.append(TAPS, 0).astype(np.float32)).to(x.device)
    grid = -(-columns // kernels.COLUMNS), -(-rows // kernels.ROWS), channels
    derivatives, sums = x.new_empty((channels, 3, rows, columns)), x.new_empty(grid)
    places = (width, height, first_row, first_column, rows, columns)
    kernels.similarity[grid](x, y, taps, derivatives, sums, *places, step=step)
    grid = -(-width // kernels.COLUMNS), -(-height // kernels.ROWS), channels
    kernels.spread[grid](x, y, taps, derivatives, gradient, weight, *places, step=step)
    return channels * rows * columns - sums.sum(dtype=torch.float64)


def _lattice(begin: int, end: int, origin: int, step: int) -> tuple[int, int]:
    """The first of the lattice lines in ``[begin, end)``, from ``origin`` on, and how many there are."""
    first = -(-begin // step) * step
    return first - origin, max(0, -(-(end - first) // step))


def kernels_of_fitting() -> Any:
    """Imported late, as it takes Triton, which is not there without a GPU."""
    from smartsplat_large.fitting import cuda_kernels

    return cuda_kernels
