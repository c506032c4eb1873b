"""A fit on a GPU is a fit on the CPU, up to rounding."""

import numpy as np
import pytest
from cuda_here import CUDA
from small_fits import fit_from_start, waves

from smartsplat_large.config import preset
from smartsplat_large.render.cpu import CpuRenderer

pytestmark = pytest.mark.skipif(CUDA is None, reason="needs Triton")

SOURCE = waves(36, 28, (20, 12), 40)


@pytest.mark.parametrize(("mode", "block"), [("exact", 16), ("blocked", 24)])
def test_it_follows_that_of_the_cpu(mode: str, block: int) -> None:
    assert CUDA is not None
    config = preset("balanced").replace(gaussians=12, steps=4, solve_iterations=1, relocate_every=2, mode=mode)
    expected = fit_from_start(SOURCE, config, block=block, renderer=CpuRenderer((0.5,) * 3))
    found = fit_from_start(SOURCE, config, block=block, renderer=CUDA((0.5,) * 3))
    assert found.sums is not None
    assert expected.sums is not None
    assert found.sums.psnr == pytest.approx(expected.sums.psnr, abs=0.01)
    np.testing.assert_allclose(found.gaussians.xy, expected.gaussians.xy, atol=0.05)
