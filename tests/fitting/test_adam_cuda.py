"""A step on a GPU moves Gaussians as one on the CPU does."""

import dataclasses
from typing import Literal

import numpy as np
import pytest
from cuda_here import CUDA

from smartsplat_large.config import OptimizerConfig, preset
from smartsplat_large.fitting.adam_cuda import gaussians_on, take_step
from smartsplat_large.fitting.optimizer import AdamState
from smartsplat_large.fitting.rate import RatePrice
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Size
from smartsplat_large.render.base import Gradients
from smartsplat_large.render.cpu import CpuRenderer
from smartsplat_large.render.cuda import CudaRenderer
from smartsplat_large.render.records import REACH_X, REACH_Y, A, D, K

pytestmark = pytest.mark.skipif(CUDA is None, reason="needs Triton")

COUNT, SIZE, PITCH, PRICE = 150, Size(90, 70), 2.0, RatePrice(1e-4, 1e-3)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("parametrisation", ["paper", "relative", "own"])
def test_steps_are_those_of_the_cpu(parametrisation: Literal["paper", "relative", "own"], channels: int) -> None:
    assert CUDA is not None
    cuda, cpu, rng = CUDA(), CpuRenderer(), np.random.default_rng(0)
    assert isinstance(cuda, CudaRenderer)
    config: OptimizerConfig = dataclasses.replace(preset("balanced").optimizer, parametrisation=parametrisation)
    scale, color = rng.uniform(0.4, 9, (COUNT, 2)), rng.normal(0.3, 0.5, (COUNT, channels))
    initial = Gaussians(
        rng.uniform(0, 90, (COUNT, 2)), scale.astype(np.float32), rng.uniform(-3, 3, COUNT).astype(np.float32),
        color.astype(np.float32),
    )  # fmt: skip
    ours, expected = AdamState.start(initial, SIZE, config), AdamState.start(initial, SIZE, config)
    for _ in range(2):
        moments = rng.normal(size=(COUNT, 8)).astype(np.float32)
        gaussians = expected.gaussians()
        projection = cpu.project(gaussians, PITCH)
        gradients = Gradients.empty(COUNT, channels)
        cpu.gradients(gaussians, projection, moments, PITCH, slice(0, COUNT), gradients)
        expected.step(lambda rows, d=gradients: [(rows, d)], 0.7, price=PRICE)

        columns = gaussians_on(cuda, ours)
        for found, column in zip(columns, ("xy", "scale", "rotation", "color"), strict=True):
            np.testing.assert_allclose(cuda.received(found), getattr(gaussians, column), rtol=1e-4, atol=1e-4)
        records, peaks = cuda.projected(*columns, PITCH)
        known = [A, K, D, REACH_X, REACH_Y]
        np.testing.assert_allclose(cuda.received(records)[:, known], projection.records[:, known], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(cuda.received(peaks), projection.peaks, rtol=1e-3, atol=1e-4)
        take_step(cuda, ours, records, cuda.kept(moments), PITCH, 0.7, PRICE)

        for name in ("xy", "raw", "mean", "square"):
            a, b = getattr(ours, name), getattr(expected, name)
            np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-3 * np.abs(b).mean(), err_msg=name)
    assert ours.steps == expected.steps == 2


def test_what_the_device_keeps_is_not_written_to() -> None:
    assert CUDA is not None
    cuda = CUDA()
    assert isinstance(cuda, CudaRenderer)
    initial = Gaussians(
        np.ones((4, 2)), np.ones((4, 2), np.float32), np.zeros(4, np.float32), np.ones((4, 3), np.float32)
    )
    state = AdamState.start(initial, SIZE, preset("balanced").optimizer)
    records, _ = cuda.projected(*gaussians_on(cuda, state), 1.0)
    take_step(cuda, state, records, cuda.kept(np.ones((4, 8), np.float32)), 1.0, 1.0, PRICE)
    held, before = state.xy, cuda.kept(state.xy)
    state.put(np.array([2]), AdamState.start(initial, SIZE, preset("balanced").optimizer).take(np.array([0])))
    assert (state.xy[2] == 1).all()
    assert (held[2] != 1).all()
    assert cuda.kept(held) is before
    assert cuda.kept(state.xy) is not before
