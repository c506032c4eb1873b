"""A visit to one block: several steps of its own Gaussians, while all others stand still.

What the others show of themselves in the block's window is rendered once, as a base. A visit is a function of pixels,
parameters and moments, and changes none of its arguments: done twice, or again elsewhere, it comes to the same bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from smartsplat_large.array_types import Moments, WholePlanes
from smartsplat_large.config import LossConfig
from smartsplat_large.fitting.block import pointwise_loss
from smartsplat_large.fitting.guard import STRICT
from smartsplat_large.fitting.loss import LossSums, block_loss
from smartsplat_large.fitting.optimizer import AdamState
from smartsplat_large.fitting.rate import FREE, RatePrice
from smartsplat_large.fitting.ssim import HALO
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Block, Size, Window
from smartsplat_large.render.base import BlockRenderer, Gradients, Projection


@dataclass(frozen=True, slots=True)
class Visit:
    """What one task must know beside what all of them share; all in it is the task's own."""

    window: Window
    """The pixels whose loss is lowered: all that the block's own Gaussians reach."""
    own: AdamState
    neighbours: Gaussians
    """All others that show in the window, or so near that its SSIM sees them."""


@dataclass(frozen=True, slots=True)
class Course:
    """What all visits of a round share."""

    renderer: BlockRenderer
    loss: LossConfig
    pitch: float
    rates: tuple[float, ...]
    """A factor on the learning rates for each step."""
    size: Size
    """Of the image at ``pitch``."""
    price: RatePrice = FREE


@dataclass(frozen=True, slots=True)
class Outcome:
    """The block's own Gaussians after a visit, and the loss of its window before and after."""

    state: AdamState
    before: LossSums
    after: LossSums
    peak: float
    """The largest loss met on the way; infinite where one was not a number."""


def outer_window(window: Window, loss: LossConfig, size: Size) -> Window:
    """The pixels that the loss of ``window`` depends on."""
    return window.expanded(HALO if loss.ssim else 0).clipped(size)


def take_steps(course: Course, visit: Visit, target: WholePlanes) -> Outcome:
    """One step for each of the course's rates, on the visit's own Gaussians.

    Where the loss gets lost, they return to the best state met, and go on with half the rates.

    Parameters
    ----------
    target
        The pixels of :func:`outer_window`.
    """
    scene = Scene(course, visit, target)
    walk = Walk(course.loss, visit.own.copy())
    gradients = Gradients.empty(*visit.own.gaussians().color.shape)
    for rate in course.rates:
        gaussians = walk.state.gaussians()
        projection = course.renderer.project(gaussians, course.pitch)
        sums, moments = scene.moments(projection)
        if walk.goes_on(gaussians, sums):
            everyone = slice(0, len(gaussians))
            course.renderer.gradients(gaussians, projection, moments, course.pitch, everyone, gradients)
            walk.state.step(lambda rows: [(rows, gradients)], walk.factor * rate, price=course.price)
    last = walk.state.gaussians()
    walk.goes_on(last, scene.judge(last))
    return walk.outcome(visit.own.steps + len(course.rates))


class Walk:
    """The steps of a visit, and the guard over them."""

    def __init__(self, loss: LossConfig, state: AdamState) -> None:
        self.state, self.factor = state, 1.0
        self._loss, self._peak = loss, 0.0
        self._before: LossSums | None = None
        self._best: tuple[AdamState, LossSums] | None = None
        self._last: LossSums | None = None

    def goes_on(self, gaussians: Gaussians, sums: LossSums) -> bool:
        """Take note of the loss of ``state``, whose Gaussians are given.

        If it is lost, return to the best one, with half the rates, and say no.
        """
        value = sums.value(self._loss)
        self._before = self._before or sums
        self._peak = max(self._peak, value * sums.samples) if math.isfinite(value) else math.inf
        least = math.inf if self._best is None else self._best[1].value(self._loss)
        if self._best is not None and STRICT.is_lost(gaussians, value, least):
            self.state, self._last = self._best[0].copy(), self._best[1]
            self.factor /= 2
            return False
        self._last = sums
        if self._best is None or value < least:
            self._best = (self.state.copy(), sums)
        return True

    def outcome(self, steps: int) -> Outcome:
        """What has come of it; steps that were taken back count as well, so that all Gaussians have taken as many."""
        assert self._before is not None
        assert self._last is not None
        self.state.steps = steps
        return Outcome(self.state, self._before, self._last, self._peak)


class Scene:
    """What a block's Gaussians are fitted to: pixels, and the base they are added to."""

    def __init__(self, course: Course, visit: Visit, target: WholePlanes) -> None:
        self.course, self._target = course, target
        outer = outer_window(visit.window, course.loss, course.size)
        self.block = Block(0, visit.window, outer)
        neighbours = course.renderer.project(visit.neighbours, course.pitch)
        self._base = course.renderer.render(neighbours, outer) if len(visit.neighbours) else None

    def moments(self, projection: Projection) -> tuple[LossSums, Moments]:
        """The loss of the window, and what its gradient means for the block's own Gaussians."""
        renderer, loss = self.course.renderer, self.course.loss
        if loss.ssim:
            rendered = renderer.render(projection, self.block.outer, self._base)
            sums, d_rendered = block_loss(rendered, self._target, self.block, loss, self.course.size)
            return sums, renderer.correlate(projection, self.block.outer, d_rendered)
        pointwise = pointwise_loss(self._target, loss, self.course.size)
        absolute, squared, moments = renderer.descend(projection, self.block.core, pointwise, self._base)
        return LossSums(absolute, squared, 0.0, self._target.size), moments

    def judge(self, gaussians: Gaussians) -> LossSums:
        """The loss of the window."""
        renderer = self.course.renderer
        rendered = renderer.render(renderer.project(gaussians, self.course.pitch), self.block.outer, self._base)
        return block_loss(rendered, self._target, self.block, self.course.loss, self.course.size)[0]
