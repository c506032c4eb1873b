"""The loss against the same formula in torch float64, whole and in blocks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from smartsplat_large.config import LossConfig
from smartsplat_large.fitting.loss import HALO, LossSums, block_loss
from smartsplat_large.lattice import BlockGrid, Size


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
    ssim = (2 * mx * my + 1e-4) * (2 * vxy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
    loss = config.l1 * (x - y).abs().mean() + config.l2 * ((x - y) ** 2).mean() + config.ssim * (1 - ssim.mean())
    loss.backward()
    return loss.item(), x.grad.numpy()


def in_blocks(rendered, target, config: LossConfig, side: int) -> tuple[float, np.ndarray]:
    size = Size(rendered.shape[2], rendered.shape[1])
    sums, gradient = LossSums(0, 0, 0, 0), np.zeros(rendered.shape)
    for block in BlockGrid(size, side, HALO):
        at = (slice(None), *block.outer.slices(size.window))
        part, d = block_loss(rendered[at].copy(), target[at].copy(), block, config, rendered.size)
        sums += part
        gradient[at] += d
    assert sums.samples == rendered.size
    return sums.value(config), gradient


@pytest.mark.parametrize("shape", [(3, 61, 83), (1, 40, 17), (4, 9, 30), (2, 1, 1)])
@pytest.mark.parametrize("side", [16, 33, 128])
@pytest.mark.parametrize("config", [LossConfig(), LossConfig(l1=0.2, l2=1, ssim=0.5), LossConfig(l1=0, l2=1, ssim=0)])
def test_blocks_sum_to_the_whole_image(shape, side: int, config: LossConfig) -> None:
    rng = np.random.default_rng(0)
    target = rng.uniform(0, 1, shape).astype(np.float32)
    rendered = np.clip(target + rng.normal(0, 0.1, shape), 0.01, 0.99).astype(np.float32)
    loss, gradient = by_torch(rendered, target, config)
    got_loss, got_gradient = in_blocks(rendered, target, config, side)
    assert got_loss == pytest.approx(loss, rel=1e-6, abs=1e-7)
    np.testing.assert_allclose(got_gradient, gradient, rtol=0, atol=3e-6 * np.abs(gradient).max())


def test_overshoot_costs_nothing_where_the_target_is_white() -> None:
    block = BlockGrid(Size(20, 20), 20, HALO)[0]
    white, beyond = np.ones((3, 20, 20), np.float32), np.full((3, 20, 20), 1.5, np.float32)
    sums, gradient = block_loss(beyond, white, block, LossConfig(l1=1, l2=1, ssim=0), white.size)
    assert sums.absolute == 0
    assert not gradient.any()
    sums, gradient = block_loss(beyond, white * 0.5, block, LossConfig(l1=0, l2=1, ssim=0), white.size)
    assert (gradient > 0).all(), "a pixel beyond the range must still be pulled back"


def test_identical_pictures_have_no_loss() -> None:
    block = BlockGrid(Size(30, 25), 64, HALO)[0]
    picture = np.random.default_rng(0).uniform(0, 1, (3, 25, 30)).astype(np.float32)
    sums, gradient = block_loss(picture, picture, block, LossConfig(), picture.size)
    assert sums.value(LossConfig()) == pytest.approx(0, abs=1e-6)
    assert sums.psnr == float("inf")
    assert np.abs(gradient).max() < 1e-6
