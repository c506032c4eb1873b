"""The loss against the same formula in torch float64, whole and in blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from smartsplat_large.config import LossConfig
from smartsplat_large.fitting.loss import LossSums, block_loss, pixels_a_point
from smartsplat_large.fitting.ssim import HALO
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Block, BlockGrid, Size
from smartsplat_large.render.base import PointwiseLoss
from smartsplat_large.render.cpu import CpuRenderer


def by_torch(rendered: np.ndarray, target: np.ndarray, config: LossConfig) -> tuple[float, np.ndarray]:
    """Eq. 22 with zeros outside the image, gradient by autograd."""
    taps = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    taps = taps / taps.sum()
    window = (taps[:, None] * taps[None])[None, None]

    def blur(planes: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(planes[:, None], window, padding=5)[:, 0]

    x = torch.tensor(rendered, dtype=torch.float64, requires_grad=True)
    y = torch.tensor(target, dtype=torch.float64)
    mx, my = blur(x), blur(y)
    vx, vy, vxy = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    step = config.ssim_stride
    ssim = (2 * mx * my + 1e-4) * (2 * vxy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    dissimilarity = (1 - ssim[:, ::step, ::step]).mean()
    loss = config.l1 * (x - y).abs().mean() + config.l2 * ((x - y) ** 2).mean() + config.ssim * dissimilarity
    loss.backward()
    return loss.item(), x.grad.numpy()


def in_blocks(rendered, target, config: LossConfig, side: int) -> tuple[float, np.ndarray]:
    size = Size(rendered.shape[2], rendered.shape[1])
    sums, gradient = LossSums(0, 0, 0, 0), np.zeros(rendered.shape)
    for block in BlockGrid(size, side, HALO):
        at = (slice(None), *block.outer.slices(size.window))
        part, d = block_loss(rendered[at].copy(), target[at].copy(), block, config, size)
        sums += part
        gradient[at] += d
    assert sums.samples == rendered.size
    return sums.value(config), gradient


def alone(block: Block) -> Size:
    """Of an image that is one block."""
    return Size(block.core.width, block.core.height)


@pytest.mark.parametrize("shape", [(3, 61, 83), (1, 40, 17), (4, 9, 30), (2, 1, 1), (1, 90, 300)])
@pytest.mark.parametrize("side", [16, 33, 128, 512])
@pytest.mark.parametrize(
    "config",
    [
        LossConfig(),
        LossConfig(ssim_stride=2),
        LossConfig(l1=0.2, l2=1, ssim=0.5),
        LossConfig(l1=0.2, l2=1, ssim=0.5, ssim_stride=2),
        LossConfig(l1=0, l2=1, ssim=0),
    ],
)
def test_blocks_sum_to_the_whole_image(shape, side: int, config: LossConfig) -> None:
    rng = np.random.default_rng(0)
    target = rng.integers(0, 255, shape, np.uint8, endpoint=True)
    rendered = np.clip(target / 255 + rng.normal(0, 0.1, shape), 0.01, 0.99).astype(np.float32)
    loss, gradient = by_torch(rendered, target / 255, config)
    got_loss, got_gradient = in_blocks(rendered, target, config, side)
    assert got_loss == pytest.approx(loss, rel=1e-6, abs=5e-7)
    np.testing.assert_allclose(got_gradient, gradient, rtol=0, atol=3e-6 * np.abs(gradient).max())


def test_overshoot_costs_nothing_where_the_target_is_white() -> None:
    block = BlockGrid(Size(20, 20), 20, HALO)[0]
    white, beyond = np.full((3, 20, 20), 255, np.uint8), np.full((3, 20, 20), 1.5, np.float32)
    sums, gradient = block_loss(beyond, white, block, LossConfig(l1=1, l2=1, ssim=0), alone(block))
    assert sums.absolute == 0
    assert not gradient.any()
    sums, gradient = block_loss(beyond, white // 2, block, LossConfig(l1=0, l2=1, ssim=0), alone(block))
    assert (gradient > 0).all(), "a pixel beyond the range must still be pulled back"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("width", [20, 13])
def test_overshoot_at_white_has_no_sign(dtype: type, width: int) -> None:
    """Nor in whole numbers, where a fused product is not 1: a bright pixel would be driven brighter for ever."""
    block = BlockGrid(Size(width, 20), 20, HALO)[0]
    beyond = np.full((3, 20, width), 1.5, np.float32)
    white = np.full(beyond.shape, np.iinfo(dtype).max, dtype)
    sums, gradient = block_loss(beyond, white, block, LossConfig(l1=1, l2=1, ssim=0, ssim_stride=2), alone(block))
    assert (sums.absolute, sums.squared) == (0, 0)
    assert not gradient.any()
    renderer = CpuRenderer((1.5,) * 3)
    nothing = renderer.project(Gaussians.empty(3), 1.0)
    assert renderer.descend(nothing, block.core, PointwiseLoss(white, 1.0, 1.0))[:2] == (0, 0)


def test_identical_pictures_have_no_loss() -> None:
    block = BlockGrid(Size(30, 25), 64, HALO)[0]
    whole = np.random.default_rng(0).integers(0, 255, (3, 25, 30), np.uint8, endpoint=True)
    sums, gradient = block_loss(whole * np.float32(1 / 255), whole, block, LossConfig(), alone(block))
    assert sums.value(LossConfig()) == pytest.approx(0, abs=1e-6)
    assert sums.psnr == float("inf")
    assert np.abs(gradient).max() < 1e-6


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_largest_number_is_white(dtype: type) -> None:
    block, config = BlockGrid(Size(40, 31), 64, HALO)[0], LossConfig(ssim_stride=2)
    rng = np.random.default_rng(0)
    whole = rng.integers(0, np.iinfo(dtype).max, (3, 31, 40), dtype=dtype, endpoint=True)
    rendered = rng.uniform(0, 1, whole.shape).astype(np.float32)
    loss, gradient = by_torch(rendered, whole / np.iinfo(dtype).max, config)
    got, got_gradient = block_loss(rendered, whole, block, config, alone(block))
    assert got.value(config) == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(got_gradient, gradient, rtol=0, atol=3e-6 * np.abs(gradient).max())


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (1, 1), (41, 33), (40, 32)])
def test_every_other_pixel_weighs_as_much_whatever_the_shape(shape: tuple[int, int]) -> None:
    """Pictures of one colour each, far from borders or not, are as unlike on the lattice as on all pixels."""
    assert pixels_a_point(Size(*shape), 1) == 1
    points = len(range(0, shape[0], 2)) * len(range(0, shape[1], 2))
    assert pixels_a_point(Size(*shape), 2) * points == pytest.approx(shape[0] * shape[1])
    block = BlockGrid(Size(*shape), 64, HALO)[0]
    dark, bright = np.zeros((1, shape[1], shape[0]), np.float32), np.full((1, shape[1], shape[0]), 255, np.uint8)
    every, other = (
        block_loss(dark, bright, block, LossConfig(l1=0, ssim=1, ssim_stride=stride), alone(block))[0]
        for stride in (1, 2)
    )
    assert other.dissimilarity == pytest.approx(every.dissimilarity, rel=0.01)


def test_every_other_pixel_has_the_same_similarity() -> None:
    """The lattice's mean is that of all pixels, and so is its gradient, to what a blur of sigma 1.5 leaves between them."""
    block = BlockGrid(Size(240, 200), 256, HALO)[0]
    y, x = np.mgrid[:200, :240]
    waves = np.stack([np.sin(x / 5) * np.cos(y / 9), np.sin((x + y) / 7), np.cos(x * y / 900)]) / 2 + 0.5
    target = (255 * waves).astype(np.uint8)
    rendered = np.clip(waves + np.random.default_rng(0).normal(0, 0.05, target.shape), 0, 1).astype(np.float32)
    every, d_every = block_loss(rendered, target, block, LossConfig(l1=0, ssim=1), alone(block))
    other, d_other = block_loss(rendered, target, block, LossConfig(l1=0, ssim=1, ssim_stride=2), alone(block))
    assert other.dissimilarity == pytest.approx(every.dissimilarity, rel=0.01)
    inner = (slice(None), slice(8, -8), slice(8, -8))
    assert np.corrcoef(d_every[inner].ravel(), d_other[inner].ravel())[0, 1] > 0.99
