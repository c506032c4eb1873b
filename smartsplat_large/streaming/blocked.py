"""A round of *blocked* mode: all Gaussians take several steps, block by block, in the four colours of a checkerboard.

Blocks of one colour see nothing in common, so their tasks are independent; what they come to is put in place in block order
once all of them are done. A task is given the rows it needs and reads its window once, for all of its steps.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass

from smartsplat_large.config import LossConfig
from smartsplat_large.fitting.guard import STRICT
from smartsplat_large.fitting.loss import LossSums
from smartsplat_large.fitting.optimizer import AdamState
from smartsplat_large.fitting.ssim import HALO
from smartsplat_large.fitting.visit import Course, Outcome, Visit, outer_window, take_steps
from smartsplat_large.lattice import BlockGrid, Size
from smartsplat_large.streaming.plan import cap
from smartsplat_large.streaming.schedule import Round
from smartsplat_large.streaming.targets import Targets
from smartsplat_large.streaming.territory import Group, Homes, Territory
from smartsplat_large.streaming.workers import Workers

GROUPS = 4


@dataclass(frozen=True, slots=True)
class VisitTask:
    """What the tasks of a round share: no Gaussians, no pixels."""

    course: Course
    targets: Targets


def visit_block(task: VisitTask, visit: Visit) -> Outcome:
    """The task of one block: read its window, and take all steps of the round there."""
    outer = outer_window(visit.window, task.course.loss, task.course.size)
    return take_steps(task.course, visit, task.targets.read(outer))


def lay_grid(size: Size, block: int, count: int, round_: Round) -> BlockGrid:
    """The grid of a round for ``count`` Gaussians; a single block has no borders to hide, and is not shifted."""
    grid = BlockGrid(size, block, cap(block, math.sqrt(size.pixels / count)))
    return dataclasses.replace(grid, shift=block // 2) if round_.shifted and len(grid) > 1 else grid


def survey(
    state: AdamState, course: Course, block: int, round_: Round, workers: Workers, homes: Homes | None = None
) -> Territory:
    """Part the Gaussians among blocks for a round; ``homes`` are those of a round that has begun."""
    return Territory.survey(state, lay_grid(course.size, block, len(state), round_), course.pitch, workers, homes)


def group_of(territory: Territory, number: int, course: Course) -> Group:
    """The visits of one colour."""
    return territory.group(number, HALO if course.loss.ssim else 0)


def visit_group(group: Group, task: VisitTask, workers: Workers) -> Iterator[Outcome]:
    """Every visit of one colour, in order of blocks; nothing of them is put in place."""
    done = workers.map(visit_block, task, group, pixels=group.territory.grid.block**2)
    for number, (outcome, window) in enumerate(zip(done, group.windows, strict=True), 1):
        if workers.record is not None:
            error = outcome.after.squared / outcome.after.samples
            workers.record.block_done(number, len(group), window, task.course.size, error)
        yield outcome


def changed(sums: LossSums, outcomes: list[Outcome]) -> LossSums:
    """The image's sums after a group's visits: windows do not overlap, and outside them nothing has changed."""
    absolute, squared, dissimilarity = sums.absolute, sums.squared, sums.dissimilarity
    for outcome in outcomes:
        absolute += outcome.after.absolute - outcome.before.absolute
        squared += outcome.after.squared - outcome.before.squared
        dissimilarity += outcome.after.dissimilarity - outcome.before.dissimilarity
    return LossSums(absolute, squared, dissimilarity, sums.samples)


def is_hasty(outcomes: list[Outcome], loss: LossConfig) -> bool:
    """Whether a step was too long for the blocks of a group together, as a step of exact mode may be for the image."""
    before = sum(outcome.before.value(loss) * outcome.before.samples for outcome in outcomes)
    return sum(outcome.peak for outcome in outcomes) > STRICT.tolerance * before
