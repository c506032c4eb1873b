"""A visit to one block: several steps of its own Gaussians, while all others stand still.

What the others show of themselves in the block's window is rendered once, as a base. A visit is a function of pixels,
parameters and moments, and changes none of its arguments: done twice, or again elsewhere, it comes to the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from smartsplat_large.array_types import Moments, Planes, WholePlanes
from smartsplat_large.config import LossConfig
from smartsplat_large.fitting.loss import HALO, LossSums, block_loss
from smartsplat_large.fitting.optimizer import AdamState
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Block, Size, Window
from smartsplat_large.pixels import scaled
from smartsplat_large.render.base import BlockRenderer, Gradients, Projection

_DIVERGED = 2.0
"""Steps that multiply the loss of a window by more than this were too long."""
_TRIES = 4
"""Each with half the rates of the one before."""


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


@dataclass(frozen=True, slots=True)
class Outcome:
    """The block's own Gaussians after a visit, and the loss of its window before and after."""

    state: AdamState
    before: LossSums
    after: LossSums


def outer_window(window: Window, loss: LossConfig, size: Size) -> Window:
    """The pixels that the loss of ``window`` depends on."""
    return window.expanded(HALO if loss.ssim else 0).clipped(size)


def take_steps(course: Course, visit: Visit, target: WholePlanes) -> Outcome:
    """One step for each of the course's rates, on the visit's own Gaussians.

    Where the loss got lost, they are taken again with smaller rates, without what moments remember; where that does not help
    either, the Gaussians stay as they were.

    Parameters
    ----------
    target
        The pixels of :func:`outer_window`.
    """
    scene = Scene(course, visit, target)
    before: LossSums | None = None
    state = visit.own.take(np.arange(len(visit.own)))
    for halvings in range(_TRIES):
        first = scene.descend(state, 0.5**halvings)
        before = before or first
        after = scene.judge(state.gaussians())
        if not _is_lost(before.value(course.loss), after.value(course.loss)):
            return Outcome(state, before, after)
        state = visit.own.forgetful()
    assert before is not None
    return Outcome(state, before, before)


def _is_lost(before: float, after: float) -> bool:
    # Not "after > ...": that would be false of what is not a number.
    return not after <= _DIVERGED * before


class Scene:
    """What a block's Gaussians are fitted to: pixels, and the base they are added to."""

    def __init__(self, course: Course, visit: Visit, target: WholePlanes) -> None:
        self.course, self._target = course, target
        outer = outer_window(visit.window, course.loss, course.size)
        self.block = Block(0, visit.window, outer)
        self._samples = course.size.pixels * len(target)
        neighbours = course.renderer.project(visit.neighbours, course.pitch)
        self._base = course.renderer.render(neighbours, outer) if len(visit.neighbours) else None

    @cached_property
    def _planes(self) -> Planes:
        return scaled(self._target)

    def descend(self, state: AdamState, factor: float) -> LossSums:
        """Take all steps, in place; returns the loss before the first."""
        renderer, pitch = self.course.renderer, self.course.pitch
        gradients = Gradients.empty(*state.gaussians().color.shape)
        first: LossSums | None = None
        for rate in self.course.rates:
            gaussians = state.gaussians()
            projection = renderer.project(gaussians, pitch)
            sums, moments = self._moments(projection)
            first = first or sums
            renderer.gradients(gaussians, projection, moments, pitch, slice(0, len(state)), gradients)
            state.step(gradients, factor * rate)
        assert first is not None
        return first

    def _moments(self, projection: Projection) -> tuple[LossSums, Moments]:
        renderer, loss = self.course.renderer, self.course.loss
        if loss.ssim:
            rendered = renderer.render(projection, self.block.outer, self._base)
            sums, d_rendered = block_loss(rendered, self._planes, self.block, loss, self._samples)
            return sums, renderer.correlate(projection, self.block.outer, d_rendered)
        weights = loss.l1 / self._samples, 2 * loss.l2 / self._samples
        absolute, squared, moments = renderer.descend(
            projection, self.block.core, self._target, *weights, self._base
        )  # fmt: skip
        return LossSums(absolute, squared, 0.0, self._target.size), moments

    def judge(self, gaussians: Gaussians) -> LossSums:
        """The loss of the window."""
        renderer = self.course.renderer
        rendered = renderer.render(renderer.project(gaussians, self.course.pitch), self.block.outer, self._base)
        return block_loss(rendered, self._planes, self.block, self.course.loss, 1)[0]
