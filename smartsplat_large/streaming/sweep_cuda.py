"""One sweep, and the step after it, on a GPU: Gaussians, gradients and pixels that are kept stay in its memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from smartsplat_large.array_types import WholePlanes
from smartsplat_large.config import LossConfig
from smartsplat_large.fitting.adam_cuda import gaussians_on, take_step
from smartsplat_large.fitting.block_cuda import block_loss
from smartsplat_large.fitting.loss import LossSums
from smartsplat_large.fitting.optimizer import AdamState
from smartsplat_large.fitting.rate import RatePrice
from smartsplat_large.fitting.ssim import HALO
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import BlockGrid, Window
from smartsplat_large.render.cuda import TURN, CudaRenderer
from smartsplat_large.streaming.targets import Targets
from smartsplat_large.streaming.workers import Workers

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class CudaSweep:
    """Where a sweep has come to."""

    gaussians: Gaussians
    sums: LossSums
    renderer: CudaRenderer
    pitch: float
    records: Tensor
    moments: Tensor

    def step(self, state: AdamState, rate: float, price: RatePrice) -> None:
        """Step on from the state that was swept."""
        with TURN:
            take_step(self.renderer, state, self.records, self.moments, self.pitch, rate, price)


def sweep_on_gpu(
    targets: Targets, renderer: CudaRenderer, state: AdamState, block: int, loss: LossConfig, workers: Workers
) -> CudaSweep:
    """Loss and moments of the whole image; blocks are summed in their order."""
    import torch

    pitch, size = 2.0**targets.level, targets.source.meta.size.at_level(targets.level)
    grid = BlockGrid(size, block, HALO if loss.ssim else 0)
    windows = [part.outer for part in grid]
    with TURN:
        columns = gaussians_on(renderer, state)
        records, peaks = renderer.projected(*columns, pitch)
        total, moments, samples = torch.zeros(3, dtype=torch.float64, device=peaks.device), None, 0
        for part, target in zip(grid, workers.map(_read, targets, windows, pixels=block**2), strict=True):
            rendered = renderer.rendered(records, peaks, part.outer, None)
            sums, d_rendered = block_loss(rendered, renderer.kept(target), part, loss, size)
            ours = renderer.moments(records, peaks, part.outer, d_rendered)
            moments = ours if moments is None else moments.add_(ours)
            total += sums
            samples += len(target) * part.core.pixels
            if workers.record is not None:
                error = float(sums[1]) / (len(target) * part.core.pixels)
                workers.record.block_done(part.index + 1, len(grid), part.core, size, error)
        assert moments is not None
        absolute, squared, dissimilarity = total.tolist()
        gaussians = Gaussians(*(renderer.received(column) for column in columns))
    return CudaSweep(gaussians, LossSums(absolute, squared, dissimilarity, samples), renderer, pitch, records, moments)


def _read(targets: Targets, window: Window) -> WholePlanes:
    return targets.read(window)
