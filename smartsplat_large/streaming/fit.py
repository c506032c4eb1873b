"""Fit all Gaussians of an image, sweep by sweep, coarse levels first."""

from __future__ import annotations

import math
from dataclasses import dataclass

from smartsplat_large.config import FitConfig, OptimizerConfig
from smartsplat_large.fitting.loss import LossSums
from smartsplat_large.fitting.optimizer import AdamState
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.progress import Progress
from smartsplat_large.render.base import Renderer
from smartsplat_large.source.base import ImageSource
from smartsplat_large.streaming.plan import FitPlan
from smartsplat_large.streaming.relocate import relocate
from smartsplat_large.streaming.solve import solve_colors
from smartsplat_large.streaming.sweep import prepare_sweep, sweep_gradients, sweep_loss
from smartsplat_large.streaming.workers import Workers

RELOCATIONS = 12

_DIVERGED = 2.0
"""A loss this many times the best one means that the steps were too long."""


@dataclass(slots=True)
class Best:
    """The state with the smallest full-size loss so far, and the guard that returns to it."""

    gaussians: Gaussians
    sums: LossSums | None = None
    loss: float = math.inf
    rate: float = 1.0
    """Factor on all learning rates; halved at every divergence."""

    def consider(self, gaussians: Gaussians, sums: LossSums, loss: float) -> None:
        if loss < self.loss:
            self.gaussians, self.sums, self.loss = gaussians, sums, loss

    def is_lost(self, loss: float) -> bool:
        return not math.isfinite(loss) or loss > _DIVERGED * self.loss


def fit_gaussians(
    source: ImageSource,
    renderer: Renderer,
    initial: Gaussians,
    plan: FitPlan,
    config: FitConfig,
    workers: Workers,
    progress: Progress,
) -> Best:
    """Take ``config.steps`` Adam steps from ``initial`` and return the best state met at full size.

    ``source`` must hold all levels of ``plan``. The same arguments give the same result for any number of workers.
    """
    if config.solve_iterations:
        progress.start("solving colours", config.solve_iterations, "iterations")
        initial = solve_colors(
            source, renderer, initial, plan.block, plan.coarsest, config.solve_iterations, workers, progress
        )
    progress.start("fit", config.steps, "steps")
    state = AdamState.start(initial, plan.size, config.optimizer)
    best = Best(initial)
    taken = 0
    for phase in plan.phases:
        best = Best(state.gaussians(), rate=best.rate)
        for _ in range(phase.steps):
            gaussians = state.gaussians()
            sweep = prepare_sweep(source, renderer, gaussians, plan.block, phase.level, config.loss)
            sums, gradients = sweep_gradients(sweep, workers)
            loss = sums.value(config.loss)
            if best.is_lost(loss):
                progress.note(f"step {taken}: the loss went to {loss:.4g}; back to {best.loss:.4g} with half the rates")
                state = AdamState.start(best.gaussians, plan.size, config.optimizer)
                best.rate /= 2
            else:
                best.consider(gaussians, sums, loss)
                state.step(gradients, best.rate * rate_at(taken / config.steps, config.optimizer))
            taken += 1
            if config.relocate_share and relocates_after(taken, config):
                # The coarsest level still shows four pixels between Gaussians: enough to see where one is missing.
                judged = prepare_sweep(source, renderer, state.gaussians(), plan.block, plan.coarsest, config.loss)
                relocate(judged, state, config.relocate_share, workers)
            progress.advance(psnr=sums.psnr, level=phase.level)
    gaussians = state.gaussians()
    sums = sweep_loss(prepare_sweep(source, renderer, gaussians, plan.block, 0, config.loss), workers)
    best.consider(gaussians, sums, sums.value(config.loss))
    return best


def relocates_after(taken: int, config: FitConfig) -> bool:
    """Whether budget is moved after step ``taken``: a fixed number of times between a tenth and two thirds of the steps."""
    first, last = round(0.1 * config.steps), round(0.66 * config.steps)
    interval = max((last - first) // RELOCATIONS, 5)
    return first <= taken <= last and (taken - first) % interval == 0


def rate_at(progressed: float, config: OptimizerConfig) -> float:
    """Factor on the learning rates after a share ``progressed`` of the steps: constant, then linear down to the floor."""
    if config.decay_share == 0 or progressed <= 1 - config.decay_share:
        return 1.0
    return config.decay_floor + (1 - config.decay_floor) * (1 - progressed) / config.decay_share
