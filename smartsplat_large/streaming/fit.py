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
from smartsplat_large.streaming.checkpoint import Checkpoint
from smartsplat_large.streaming.plan import FitPlan
from smartsplat_large.streaming.relocate import relocations
from smartsplat_large.streaming.signals import uninterrupted
from smartsplat_large.streaming.solve import solve_colors
from smartsplat_large.streaming.state import Best, Place, descent_snapshot, fitted_snapshot, start_snapshot
from smartsplat_large.streaming.sweep import Sweep, prepare_sweep, sweep_gradients, sweep_loss
from smartsplat_large.streaming.targets import Targets
from smartsplat_large.streaming.workers import Workers

_MOVING_COSTS = 3.0
"""A move of budget may raise the loss by this factor, until newcomers have settled, and be no divergence."""
_PIXELS_BETWEEN = 8
"""Pixels between Gaussians with which a missing one is well seen; relocation does not look closer than that."""
_TAPER = (1.75, 0.25)
"""The first and the last relocation, as multiples of the average one."""


def fit_gaussians(
    source: ImageSource,
    renderer: BlockRenderer,
    initial: Gaussians,
    plan: FitPlan,
    config: FitConfig,
    workers: Workers,
    progress: Progress,
    kept_bytes: int = 0,
    checkpoint: Checkpoint | None = None,
) -> Best:
    """Take ``config.steps`` Adam steps from ``initial`` and return the best state met at full size.

    Pixels are read again at every step, except those that ``kept_bytes`` of memory can hold.

    ``source`` must hold all levels of ``plan``. The same arguments give the same result for any number of workers, and
    whether it is done at once or by going on from what ``checkpoint`` resumes; its stage must then fit ``initial``.
    """
    checkpoint = checkpoint or Checkpoint.none(progress)
    resumed = checkpoint.take_resumed()
    stage = None if resumed is None else resumed.stage
    if resumed is not None and stage == "fitted":
        return _finished(resumed.best, checkpoint)
    if stage in (None, "sampled"):
        initial = _solved(source, renderer, initial, plan, config, workers, progress, checkpoint)
    if resumed is not None and stage == "descent":
        state, best, place = resumed.adam_state(config.optimizer), resumed.best, resumed.place
        progress.note(f"going on after {place.taken} of {config.steps} steps")
    else:
        checkpoint.hold(lambda: start_snapshot("solved", initial))
        checkpoint.commit_if_due()
        state, place = AdamState.start(initial, plan.size, config.optimizer), Place()
        best = Best(state.gaussians())
    progress.start("fit", config.steps - place.taken, "steps")
    descent = _Descent(
        source, renderer, plan, config, workers, progress, checkpoint, kept_bytes, state, best, place
    )  # fmt: skip
    # The descent replaces them: it must be the only one to keep them alive.
    del resumed, state, best
    descent.run()
    return _finished(descent.best, checkpoint)


def _solved(
    source: ImageSource, renderer: BlockRenderer, initial: Gaussians, plan: FitPlan, config: FitConfig, workers: Workers,
    progress: Progress, checkpoint: Checkpoint,
) -> Gaussians:  # fmt: skip
    """``initial`` with the colours that suit the coarsest level best, where the settings want them solved for."""
    checkpoint.hold(lambda: start_snapshot("sampled", initial))
    checkpoint.commit_if_due()
    iterations = config.solve_iterations
    if not iterations:
        return initial
    progress.start("solving colours", iterations, "iterations")
    return solve_colors(source, renderer, initial, plan.block, plan.coarsest, iterations, workers, progress)


def _finished(best: Best, checkpoint: Checkpoint) -> Best:
    """``best``, which from now on is what an interrupt commits: its file is still to be made."""
    checkpoint.hold(lambda: fitted_snapshot(best))
    checkpoint.commit_if_due(landmark=True)
    return best


@dataclass(slots=True)
class _Descent:
    """A fit under way. Wherever a signal may interrupt it, ``state``, ``best`` and the place are those of one moment."""

    source: ImageSource
    renderer: BlockRenderer
    plan: FitPlan
    config: FitConfig
    workers: Workers
    progress: Progress
    checkpoint: Checkpoint
    kept_bytes: int
    state: AdamState
    best: Best
    place: Place
    targets: Targets | None = None

    @property
    def loss(self) -> LossConfig:
        """That of the phase under way."""
        return self.config.loss if self.plan.phases[self.place.phase].ssim else self.config.loss.without_ssim()

    def run(self) -> None:
        """All steps that are left."""
        self.checkpoint.hold(lambda: descent_snapshot(self.state, self.best, self.place))
        self.checkpoint.commit_if_due()
        while self.place.phase < len(self.plan.phases):
            self._run_phase()
            self.checkpoint.commit_if_due(landmark=True)

    def _run_phase(self) -> None:
        """The steps that are left of a phase."""
        phases, number = self.plan.phases, self.place.phase
        level = phases[number].level
        self.targets = Targets(self.source, level, self.kept_bytes)
        self._relocate(level)
        for _ in range(sum(phase.steps for phase in phases[: number + 1]) - self.place.taken):
            self._descend(level)
            self._relocate(level)
            self.checkpoint.commit_if_due()
        # The state after the last step has not been judged yet.
        sweep = self._sweep(level)
        sums = sweep_loss(sweep, self.workers)
        with uninterrupted():
            lost = self._keep_or_return(sweep, sums)
            self.place.phase += 1
            if self.place.phase < len(phases):
                # Losses of different levels or terms do not compare, so each phase has a best state of its own.
                self.best = Best(self.state.gaussians(), rate=self.best.rate)
        self._tell(lost)

    def _descend(self, level: int) -> None:
        sweep = self._sweep(level)
        sums, gradients = sweep_gradients(sweep, self.workers)
        with uninterrupted():
            lost = self._keep_or_return(sweep, sums)
            if lost is None:
                rate = self.best.rate * rate_at(self.place.taken / self.config.steps, self.config.optimizer)
                self.state.step(gradients, rate, self.workers.spread)
            self.place.taken += 1
        self._tell(lost)
        self.progress.advance(psnr=sums.psnr, level=level)

    def _relocate(self, level: int) -> None:
        """Move budget if it is time to, and it has not been done yet."""
        taken = self.place.taken
        share = relocated_share(taken, self.config) if self.place.relocated < taken else 0.0
        if not share:
            return
        index, newcomers = relocations(self._sweep(max(level, self._relocation_level())), share, self.workers)
        with uninterrupted():
            self.state.replace(index, newcomers, self.plan.size)
            self.best.recent *= _MOVING_COSTS
            self.place.relocated = taken

    def _relocation_level(self) -> int:
        spacing = math.sqrt(self.plan.size.pixels / len(self.state))
        return min(self.plan.coarsest, max(0, math.floor(math.log2(spacing / _PIXELS_BETWEEN))))

    def _sweep(self, level: int) -> Sweep:
        gaussians = self.state.gaussians()
        targets = self.targets if self.targets and self.targets.level == level else Targets(self.source, level)
        return prepare_sweep(targets, self.renderer, gaussians, self.plan.block, level, self.loss, self.workers.spread)

    def _keep_or_return(self, sweep: Sweep, sums: LossSums) -> str | None:
        """Remember a state if it is the best; go back to the best, with half the rates, if this one is lost, and say so."""
        loss = sums.value(self.loss)
        if not self.best.is_lost(loss):
            self.best.consider(sweep.gaussians, sums, loss)
            return None
        self.state = AdamState.start(self.best.gaussians, self.plan.size, self.config.optimizer)
        self.best.recent = self.best.loss
        self.best.rate /= 2
        taken, best = self.place.taken, self.best.loss
        return f"after {taken} steps the loss went from {best:.4g} to {loss:.4g}: back, with half the rates"

    def _tell(self, lost: str | None) -> None:
        if lost is not None:
            self.progress.note(lost)


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
