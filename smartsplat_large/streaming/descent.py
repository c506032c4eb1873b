"""All Adam steps of a fit, sweep by sweep, coarse levels first: exact ones here or elsewhere, or rounds of blocks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from smartsplat_large.config import FitConfig, LossConfig
from smartsplat_large.fitting.guard import MOVING, STRICT, Patience
from smartsplat_large.fitting.loss import LossSums
from smartsplat_large.fitting.optimizer import AdamState
from smartsplat_large.fitting.rate import FREE, RatePrice, rate_price
from smartsplat_large.fitting.visit import Course
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.ordering import by_place
from smartsplat_large.progress import Progress
from smartsplat_large.render.base import BlockRenderer
from smartsplat_large.render.cuda import CudaRenderer
from smartsplat_large.source.base import ImageSource
from smartsplat_large.streaming.blocked import GROUPS, VisitTask, changed, group_of, is_hasty, survey, visit_group
from smartsplat_large.streaming.checkpoint import Checkpoint
from smartsplat_large.streaming.plan import FitPlan, Phase
from smartsplat_large.streaming.population import LEAST, MOST, affordable_count, is_adaptive
from smartsplat_large.streaming.relocate import relocations
from smartsplat_large.streaming.schedule import Round, rate_at, relocated_share, rounds
from smartsplat_large.streaming.signals import uninterrupted
from smartsplat_large.streaming.state import (
    Account,
    Best,
    Place,
    Snapshot,
    Verdict,
    descent_snapshot,
)
from smartsplat_large.streaming.stretch import HoldingLost, NoRoom, Stretch, held_bytes
from smartsplat_large.streaming.sweep import Sweep, prepare_sweep, sweep_gradients, sweep_loss, sweep_task
from smartsplat_large.streaming.sweep_cuda import sweep_on_gpu
from smartsplat_large.streaming.targets import Targets
from smartsplat_large.streaming.workers import Workers

_MOVING_COSTS = 3.0
"""A move of budget may raise the loss by this factor, until newcomers have settled, and be no divergence."""
_STEPS_A_SAVE = 4
"""Steps taken elsewhere between two moves of budget, at the least, where a save ends them: their rows travel in and out."""
_PIXELS_BETWEEN = 8
"""Pixels between Gaussians with which a missing one is well seen; relocation does not look closer than that."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """Where to go on from."""

    state: AdamState
    best: Best
    sums: LossSums
    """Of that state."""
    lost: str | None = None
    """Why it is not the one that was judged."""


@dataclass(slots=True)
class Descent:
    """A fit under way. Wherever a signal may interrupt it, ``state``, ``best`` and the place are those of one moment."""

    source: ImageSource
    renderer: BlockRenderer
    plan: FitPlan
    config: FitConfig
    workers: Workers
    progress: Progress
    checkpoint: Checkpoint
    kept_bytes: int
    budget_bytes: int | None
    state: AdamState
    best: Best
    place: Place
    account: Account
    targets: Targets | None = None
    told: int = 0
    """Steps of all phases that progress knows of."""

    @property
    def loss(self) -> LossConfig:
        """That of the phase under way."""
        return self.config.loss if self.plan.phases[self.place.phase].ssim else self.config.loss.without_ssim()

    def snapshot(self) -> Snapshot:
        """Where it has come to."""
        return descent_snapshot(self.state, self.best, self.place, self.account)

    def run(self) -> None:
        """All steps that are left."""
        self.checkpoint.commit_if_due()
        while self.place.phase < len(self.plan.phases):
            self._run_phase()
            self.checkpoint.commit_if_due(landmark=True)

    def _run_phase(self) -> None:
        """The steps that are left of a phase."""
        phases, number = self.plan.phases, self.place.phase
        phase, level = phases[number], phases[number].level
        # Windows of visits differ from round to round: there is nothing to keep.
        kept = (0, 0) if phase.blocked else (self.kept_bytes, self._kept_elsewhere())
        self.targets = Targets(self.source, level, *kept)
        self._relocate(level)
        end = sum(phase.steps for phase in phases[: number + 1])
        if phase.blocked:
            self._run_rounds(end - phase.steps, end, level)
        else:
            self._run_exact(end, level)
        self._end_phase(phase)

    def _end_phase(self, phase: Phase) -> None:
        """Judge the state after the last step; from blocks, it is known only about."""
        sweep = self._whole(phase.level)
        sums = sweep_loss(sweep, self.workers)
        best = replace(self.best)
        if phase.blocked and best.sums == self.account.sums:
            best.loss = math.inf
        judged = self._judged(best, sweep.gaussians, sums)
        best, state = judged.best, judged.state
        if best.is_exact:
            state = state.returned_to(best.gaussians, self.plan.size)
        if self.place.phase + 1 < len(self.plan.phases):
            # Losses of different levels or terms do not compare, so each phase has a best state of its own.
            best = Best(state.all_gaussians(), rate=best.rate, lost=best.lost)
        with uninterrupted():
            self.state, self.best, self.account = state, best, Account()
            self.place.phase += 1
        self._tell(judged.lost)

    def _run_exact(self, end: int, level: int) -> None:
        """What is left of the steps of an exact phase."""
        while self.place.taken < end:
            if not self._stretch(end, level):
                self._descend(level)
            self._relocate(level)
            self.checkpoint.commit_if_due()

    def _stretch(self, end: int, level: int) -> bool:
        """Steps of workers elsewhere, up to the next move of budget or as many where there is none; whether any were taken.

        Until they are all taken, nothing changes here, and a lost worker costs all of them.
        """
        task = sweep_task(self._targets(level), self.renderer, self.plan.block, self.loss, self.plan.channels)
        crew = self.workers.crew(self._held_bytes)
        if crew is None or not max(2, len(crew)) <= len(task.grid) or isinstance(self.renderer, CudaRenderer):
            return False
        begun, best, taken = self.place.taken, replace(self.best), self.place.taken
        end = min(end, begun + max(self.config.relocate_every, _STEPS_A_SAVE))
        try:
            stretch = Stretch(task, self.state, best, self.plan.size, crew, self.workers)
            while taken < end and (swept := stretch.sweep()) is not None:
                gaussians, sums = swept
                verdict = best.judge(gaussians, sums, sums.value(self.loss), self._patience)
                if verdict is Verdict.LOST:
                    stretch.go_back()
                    self.progress.note(_too_long(taken, best.loss, sums.value(self.loss)))
                else:
                    rate = best.rate * rate_at(taken, self.place.relocated, self.config)
                    stretch.step(rate, self._price(sums), is_best=verdict is Verdict.BEST)
                taken += 1
                self._advance(taken, sums, level)
                is_worth_saving = taken - begun >= _STEPS_A_SAVE and self.checkpoint.is_due
                if relocated_share(taken, self.config) or is_worth_saving:
                    break
            state, best.gaussians = stretch.end()
        except (HoldingLost, NoRoom):
            return False
        with uninterrupted():
            self.state, self.best, self.place.taken = state, best, taken
        return taken > begun

    def _run_rounds(self, begin: int, end: int, level: int) -> None:
        """What is left of the rounds of a blocked phase."""
        for round_ in rounds(begin, end, self.config):
            if round_.begin >= self.place.taken:
                self._take_stock(level)
                self._run_round(round_, level)
                self._relocate(level)
                self.checkpoint.commit_if_due()

    def _take_stock(self, level: int) -> None:
        """See the whole image, where what visits change has nothing to be added to."""
        if self.account.sums is not None:
            return
        sweep = self._whole(level)
        sums = sweep_loss(sweep, self.workers)
        judged = self._judged(replace(self.best), sweep.gaussians, sums)
        with uninterrupted():
            self._take_over(judged)
            self.account.sums = judged.sums
        self._tell(judged.lost)

    def _run_round(self, round_: Round, level: int) -> None:
        assert self.targets is not None
        course = self._course(round_, level)
        territory = survey(self.state, course, self.plan.block, round_, self.workers, self.account.homes)
        self.account.homes = territory.homes
        for number in range(self.place.group, GROUPS):
            course, outcomes = self._course(round_, level), []
            group = group_of(territory, number, course)
            part = round_.steps / GROUPS / (len(group) + 1)
            for outcome in visit_group(group, VisitTask(course, self.targets), self.workers):
                outcomes.append(outcome)
                self.progress.advance(part)
            with uninterrupted():
                group.put([outcome.state for outcome in outcomes])
                assert self.account.sums is not None
                sums = self.account.sums = changed(self.account.sums, outcomes)
                self.place.group += 1
                if is_hasty(outcomes, self.loss):
                    self.best.slow_down()
            self.progress.advance(part, psnr=sums.psnr, level=level)
            self.checkpoint.commit_if_due()
        self._end_round(round_)

    def _course(self, round_: Round, level: int) -> Course:
        taken = range(round_.begin, round_.begin + round_.steps)
        rates = tuple(self.best.rate * rate_at(t, self.place.relocated, self.config) for t in taken)
        assert self.account.sums is not None
        price = self._price(self.account.sums)
        return Course(self.renderer, self.loss, 2.0**level, rates, self.plan.size.at_level(level), price)

    def _end_round(self, round_: Round) -> None:
        assert self.account.sums is not None
        judged = self._judged(replace(self.best), self.state.all_gaussians(), self.account.sums)
        with uninterrupted():
            self._take_over(judged)
            self.account.sums, self.account.homes = judged.sums, None
            self.state.steps += round_.steps
            self.place.taken += round_.steps
            self.place.group = 0
        self._tell(judged.lost)

    def _descend(self, level: int) -> None:
        gaussians, sums, step = self._swept(level)
        judged = self._judged(replace(self.best), gaussians, sums)
        with uninterrupted():
            self._take_over(judged)
            if judged.lost is None:
                step(self.best.rate * rate_at(self.place.taken, self.place.relocated, self.config))
            self.place.taken += 1
        self._tell(judged.lost)
        self._advance(self.place.taken, sums, level)

    def _advance(self, taken: int, sums: LossSums, level: int) -> None:
        """Tell of a step, unless it was lost after it had been told of, and is taken again."""
        if taken > self.told:
            self.told = taken
            self.progress.advance(psnr=sums.psnr, level=level)

    def _held_bytes(self, slots: int) -> int:
        return held_bytes(len(self.state), self.plan.channels, slots)

    def _kept_elsewhere(self) -> int:
        """Bytes of pixels that a worker elsewhere may keep beside what it holds."""
        crew, spare = self.workers.crew(self._held_bytes), self.workers.kept_elsewhere
        return spare if crew is None else spare - crew.most_each * self._held_bytes(len(crew))

    def _swept(self, level: int) -> tuple[Gaussians, LossSums, Callable[[float], None]]:
        """The state as Gaussians, its loss, and what takes a step from there at a rate."""
        if isinstance(self.renderer, CudaRenderer):
            assert self.targets is not None
            block = max(self.plan.block, self.renderer.side)
            found = sweep_on_gpu(self.targets, self.renderer, self.state, block, self.loss, self.workers)
            return found.gaussians, found.sums, lambda rate: found.step(self.state, rate, self._price(found.sums))
        sweep = self._sweep(level, self.plan.block)
        sums, gradients = sweep_gradients(sweep, self.workers)
        return (
            sweep.gaussians,
            sums,
            lambda rate: self.state.step(gradients, rate, self.workers.spread, self._price(sums)),
        )

    def _price(self, sums: LossSums) -> RatePrice:
        loss = self.config.loss
        return rate_price(sums, self.plan.size, len(self.state), self.plan.channels, loss.rate, loss.l2)

    def _relocate(self, level: int) -> None:
        """Move budget if it is time to, and it has not been done yet."""
        taken = self.place.taken
        share = relocated_share(taken, self.config) if self.place.relocated < taken else 0.0
        if not share:
            return
        sweep = self._sweep(max(level, self._relocation_level()), self.plan.block)
        index, newcomers = relocations(sweep, share, self._growth(level, share), self.workers)
        del sweep
        state = self.state.replaced(index, newcomers, self.plan.size)
        order, best = by_place(state.xy), replace(self.best)
        state = state.chosen(order)
        if len(newcomers) == len(index):
            best.gaussians = best.gaussians.chosen(order)
        else:
            # Another number of Gaussians has another loss: no state of before is to be returned to.
            best = Best(state.all_gaussians(), recent=best.recent, rate=best.rate, lost=best.lost)
        best.recent *= _MOVING_COSTS
        with uninterrupted():
            self.state, self.best, self.place.relocated = state, best, taken
            self.account.sums = None

    def _growth(self, level: int, share: float) -> int:
        """How many Gaussians more the file pays for, at most ``share``; known at full size, once its error is."""
        if not is_adaptive(self.config) or self.budget_bytes is None or level or self.best.sums is None:
            return 0
        price = self._price(self.best.sums)
        if price == FREE:  # nothing is left to better
            return 0
        now, start = len(self.state), self.plan.gaussians
        wanted = affordable_count(self.state.all_gaussians(), price.step_energy, self.budget_bytes)
        most = math.floor(share * now)
        return min(max(min(max(wanted, math.ceil(LEAST * start)), math.floor(MOST * start)) - now, -most), most)

    def _relocation_level(self) -> int:
        spacing = math.sqrt(self.plan.size.pixels / len(self.state))
        return min(self.plan.coarsest, max(0, math.floor(math.log2(spacing / _PIXELS_BETWEEN))))

    def _whole(self, level: int) -> Sweep:
        """A sweep whose tasks are the renderer's alone: of blocks that keep it busy."""
        return self._sweep(level, max(self.plan.block, self.renderer.side))

    def _sweep(self, level: int, block: int) -> Sweep:
        gaussians, targets = self.state.all_gaussians(), self._targets(level)
        return prepare_sweep(targets, self.renderer, gaussians, block, level, self.loss, self.workers.spread)

    def _targets(self, level: int) -> Targets:
        return self.targets if self.targets and self.targets.level == level else Targets(self.source, level)

    @property
    def _patience(self) -> Patience:
        return MOVING if self.config.relocate_share else STRICT

    def _judged(self, best: Best, gaussians: Gaussians, sums: LossSums) -> _Judged:
        """Remember a state in ``best`` if it is that; go back to the best, with half the rates, if this one is lost.

        Nothing changes here: what follows may fail, of a full disk for one, and what is saved then is to be of one moment.
        """
        loss = sums.value(self.loss)
        verdict = best.judge(gaussians, sums, loss, self._patience)
        if verdict is Verdict.BEST:
            best.gaussians = gaussians
        if verdict is not Verdict.LOST:
            return _Judged(self.state, best, sums)
        state = self.state.returned_to(best.gaussians, self.plan.size)
        return _Judged(state, best, best.sums or sums, _too_long(self.place.taken, best.loss, loss))

    def _take_over(self, judged: _Judged) -> None:
        self.state, self.best = judged.state, judged.best

    def _tell(self, lost: str | None) -> None:
        if lost is not None:
            self.progress.note(lost)


def _too_long(taken: int, best: float, loss: float) -> str:
    return f"step {taken} was too long (loss {best:.4g} to {loss:.4g}): taken back, and half the rates for a while"
