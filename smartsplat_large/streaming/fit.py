"""Fit all Gaussians of an image, sweep by sweep, coarse levels first."""

from __future__ import annotations

import math
from dataclasses import dataclass

from smartsplat_large.config import FitConfig, LossConfig, OptimizerConfig
from smartsplat_large.fitting.loss import LossSums
from smartsplat_large.fitting.optimizer import AdamState
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.progress import Progress
from smartsplat_large.render.base import BlockRenderer
from smartsplat_large.source.base import ImageSource
from smartsplat_large.streaming.plan import FitPlan, Phase
from smartsplat_large.streaming.relocate import relocate
from smartsplat_large.streaming.solve import solve_colors
from smartsplat_large.streaming.sweep import Sweep, prepare_sweep, sweep_gradients, sweep_loss
from smartsplat_large.streaming.targets import Targets
from smartsplat_large.streaming.workers import Workers

_MOVING_COSTS = 3.0
"""A move of budget may raise the loss by this factor, until newcomers have settled, and be no divergence."""
_PIXELS_BETWEEN = 8
"""Pixels between Gaussians with which a missing one is well seen; relocation does not look closer than that."""
_TAPER = (1.75, 0.25)
"""The first and the last relocation, as multiples of the average one."""
_DIVERGED = 2.0
"""A loss this many times the best one means that the steps were too long."""


@dataclass(slots=True)
class Best:
    """The state with the smallest full-size loss so far, and the guard that returns to it."""

    gaussians: Gaussians
    sums: LossSums | None = None
    loss: float = math.inf
    recent: float = math.inf
    """Smallest loss of late; budget that is moved may cost at first, and is no divergence."""
    rate: float = 1.0
    """Factor on all learning rates; halved at every divergence."""

    def consider(self, gaussians: Gaussians, sums: LossSums, loss: float) -> None:
        self.recent = min(self.recent, loss)
        if loss < self.loss:
            self.gaussians, self.sums, self.loss = gaussians, sums, loss

    def is_lost(self, loss: float) -> bool:
        return not math.isfinite(loss) or loss > _DIVERGED * self.recent


def fit_gaussians(
    source: ImageSource,
    renderer: BlockRenderer,
    initial: Gaussians,
    plan: FitPlan,
    config: FitConfig,
    workers: Workers,
    progress: Progress,
    kept_bytes: int = 0,
) -> Best:
    """Take ``config.steps`` Adam steps from ``initial`` and return the best state met at full size.

    Pixels are read again at every step, except those that ``kept_bytes`` of memory can hold.

    ``source`` must hold all levels of ``plan``. The same arguments give the same result for any number of workers.
    """
    if config.solve_iterations:
        progress.start("solving colours", config.solve_iterations, "iterations")
        initial = solve_colors(
            source, renderer, initial, plan.block, plan.coarsest, config.solve_iterations, workers, progress
        )
    progress.start("fit", config.steps, "steps")
    state = AdamState.start(initial, plan.size, config.optimizer)
    descent = _Descent(source, renderer, plan, config, workers, progress, state, Best(initial), config.loss, kept_bytes)
    for phase in plan.phases:
        descent.run(phase)
    return descent.best


@dataclass(slots=True)
class _Descent:
    """A fit under way."""

    source: ImageSource
    renderer: BlockRenderer
    plan: FitPlan
    config: FitConfig
    workers: Workers
    progress: Progress
    state: AdamState
    best: Best
    loss: LossConfig
    """That of the phase under way."""
    kept_bytes: int
    targets: Targets | None = None
    taken: int = 0

    def run(self, phase: Phase) -> None:
        """All steps of a phase. Losses of different levels or terms do not compare, so each has a best state of its own."""
        self.loss = self.config.loss if phase.ssim else self.config.loss.without_ssim()
        self.best = Best(self.state.gaussians(), rate=self.best.rate)
        self.targets = Targets(self.source, phase.level, self.kept_bytes)
        for _ in range(phase.steps):
            self._step(phase.level)
        # The state after the last step has not been judged yet.
        sweep = self._sweep(phase.level)
        self._keep_or_return(sweep, sweep_loss(sweep, self.workers))

    def _step(self, level: int) -> None:
        sweep = self._sweep(level)
        sums, gradients = sweep_gradients(sweep, self.workers)
        if self._keep_or_return(sweep, sums):
            rate = self.best.rate * rate_at(self.taken / self.config.steps, self.config.optimizer)
            self.state.step(gradients, rate, self.workers.spread)
        del sweep, gradients
        self.taken += 1
        share = relocated_share(self.taken, self.config)
        if share:
            relocate(self._sweep(max(level, self._relocation_level())), self.state, share, self.workers)
            self.best.recent *= _MOVING_COSTS
        self.progress.advance(psnr=sums.psnr, level=level)

    def _relocation_level(self) -> int:
        spacing = math.sqrt(self.plan.size.pixels / len(self.state))
        return min(self.plan.coarsest, max(0, math.floor(math.log2(spacing / _PIXELS_BETWEEN))))

    def _sweep(self, level: int) -> Sweep:
        gaussians = self.state.gaussians()
        targets = self.targets if self.targets and self.targets.level == level else Targets(self.source, level)
        return prepare_sweep(targets, self.renderer, gaussians, self.plan.block, level, self.loss)

    def _keep_or_return(self, sweep: Sweep, sums: LossSums) -> bool:
        """Remember a state if it is the best; go back to the best, with half the rates, if this one is lost."""
        loss = sums.value(self.loss)
        if not self.best.is_lost(loss):
            self.best.consider(sweep.gaussians, sums, loss)
            return True
        self.progress.note(
            f"after {self.taken} steps the loss went from {self.best.loss:.4g} to {loss:.4g}: back, with half the rates"
        )
        self.state = AdamState.start(self.best.gaussians, self.plan.size, self.config.optimizer)
        self.best.recent = self.best.loss
        self.best.rate /= 2
        return False


def relocated_share(taken: int, config: FitConfig) -> float:
    """Share of the Gaussians to move after step ``taken``: none most of the time, falling linearly from move to move."""
    last = math.floor(config.relocate_until * config.steps)
    if not config.relocate_share or taken % config.relocate_every or taken > last:
        return 0.0
    first, least = _TAPER
    return config.relocate_share * (first + (least - first) * taken / last)


def rate_at(progressed: float, config: OptimizerConfig) -> float:
    """Factor on the learning rates after a share ``progressed`` of the steps: constant, then down to the floor."""
    if config.decay_share == 0 or progressed <= 1 - config.decay_share:
        return 1.0
    left = (1 - progressed) / config.decay_share
    if config.decay == "cosine":
        left = (1 - math.cos(math.pi * left)) / 2
    return config.decay_floor + (1 - config.decay_floor) * left
