"""A block of a sweep on a GPU comes to what it comes to on the CPU."""

import dataclasses

import numpy as np
import pytest
from cuda_here import CUDA

from smartsplat_large.config import LossConfig
from smartsplat_large.fitting.block import block_loss_only, block_moments
from smartsplat_large.fitting.ssim import HALO
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import BlockGrid, Size
from smartsplat_large.render.cpu import CpuRenderer

pytestmark = pytest.mark.skipif(CUDA is None, reason="needs Triton")

SIZE = Size(37, 29)


def scene(channels: int) -> Gaussians:
    rng = np.random.default_rng(0)
    return Gaussians(
        rng.uniform(-3, 40, (40, 2)), rng.uniform(1, 9, (40, 2)).astype(np.float32),
        rng.uniform(0, 6, 40).astype(np.float32), rng.normal(0.2, 0.4, (40, channels)).astype(np.float32),
    )  # fmt: skip


@pytest.mark.parametrize("side", [64, 15])
@pytest.mark.parametrize(
    ("loss", "channels", "dtype"),
    [
        (LossConfig(l1=0.9, l2=0.3, ssim=0.1), 3, np.uint8),
        (LossConfig(l1=0.0, l2=1.0, ssim=0.5, ssim_stride=2), 1, np.uint16),
        (LossConfig(l1=0.0, l2=1.0, ssim=0.0), 3, np.uint8),
    ],
)
def test_loss_and_moments_are_those_of_the_cpu(side: int, loss: LossConfig, channels: int, dtype: type) -> None:
    assert CUDA is not None
    background = (0.25, 0.5, 0.75)[:channels]
    cpu, cuda = CpuRenderer(background), CUDA(background)
    projection = cpu.project(scene(channels), 1.0)
    peak = np.iinfo(dtype).max
    image = np.random.default_rng(1).integers(0, peak + 1, (channels, *SIZE.window.shape), dtype)
    grid = BlockGrid(SIZE, side, HALO if loss.ssim else 0)
    for block in list(grid)[::3]:
        target = np.ascontiguousarray(image[(slice(None), *block.outer.slices(SIZE.window))])
        expected, moments = block_moments(cpu, projection, target, block, loss, SIZE)
        found, ours = block_moments(cuda, projection, target, block, loss, SIZE)
        assert dataclasses.astuple(found) == pytest.approx(dataclasses.astuple(expected), rel=1e-4)
        assert np.linalg.norm(ours - moments) < 1e-3 * np.linalg.norm(moments)
        assert block_loss_only(cuda, projection, target, block, loss, SIZE) == found
