"""The variables of a fit on a GPU: what :mod:`.optimizer` does to them on the CPU."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from smartsplat_large.fitting.block_cuda import kernels_of_fitting
from smartsplat_large.fitting.optimizer import COLUMNS, MIN_SCALE, AdamState, learning_rates
from smartsplat_large.fitting.rate import RatePrice
from smartsplat_large.render.base import box_variance
from smartsplat_large.render.cuda import CudaRenderer

if TYPE_CHECKING:
    from torch import Tensor


def gaussians_on(renderer: CudaRenderer, state: AdamState) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The columns of ``state.gaussians()``, on the device."""
    xy, raw = renderer.kept(state.xy), renderer.kept(state.raw)
    scale, rotation, color = raw[:, :2], raw[:, 2], raw[:, 3:].contiguous()
    if state.config.parametrisation == "paper":
        return xy, scale.abs().clamp_(min=MIN_SCALE), rotation.sigmoid().mul_(2 * math.pi).sub_(math.pi), color
    return xy, scale.exp(), rotation.clone(), color


def take_step(
    renderer: CudaRenderer, state: AdamState, records: Tensor, moments: Tensor, pitch: float, rate: float, price: RatePrice
) -> None:  # fmt: skip
    """One Adam step of ``state`` from the moments of its Gaussians; its columns are new ones then, which the device keeps."""
    import torch

    state.steps += 1
    c, kernels = state.config, kernels_of_fitting()
    paper, channels = c.parametrisation == "paper", state.raw.shape[1] - 3
    bias_1, bias_2 = 1 - c.beta1**state.steps, 1 - c.beta2**state.steps
    x, y, scale, _, rotation, color = (learning_rates(c, state.rate_xy, 1) * (rate / bias_1)).tolist()
    low, high = (-state.max_scale, state.max_scale) if paper else (math.log(MIN_SCALE), math.log(state.max_scale))
    settings = (
        x, y, scale, rotation, color, c.beta1, c.beta2, c.epsilon, bias_2, low, high, price.strength, price.step_energy,
        pitch, box_variance(pitch),
    )  # fmt: skip
    old = [renderer.kept(getattr(state, name)) for name in COLUMNS]
    new = [torch.empty_like(column) for column in old]
    kernels.step[(-(-len(state) // kernels.LANES),)](
        *old, *new, records, moments, torch.tensor(settings, dtype=torch.float64).to(records.device), len(state),
        channels=channels, wide=moments.shape[1], paper=paper, own=c.parametrisation == "own",
    )  # fmt: skip
    for name, column in zip(COLUMNS, new, strict=True):
        setattr(state, name, renderer.shared(column))
