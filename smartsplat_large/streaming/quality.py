"""From a wanted PSNR to a file that has it: how many Gaussians it takes, then how finely they are written.

PSNR is nearly linear in the logarithm of N. Short fits of a sample say roughly which N is wanted, whole fits correct
that, and the amplitude step of the file brings the measured PSNR into its window.
"""

from __future__ import annotations

import functools
import itertools
import math
import uuid
from collections.abc import Callable
from dataclasses import dataclass

from smartsplat_large.codec import Encoded, SplatFile, write_atomic
from smartsplat_large.config import FitConfig
from smartsplat_large.errors import MemoryLimitError
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.places import Place, joined
from smartsplat_large.progress import Progress
from smartsplat_large.remote_output import remove
from smartsplat_large.render.base import BlockRenderer
from smartsplat_large.sampling import sample
from smartsplat_large.source import ImageSource
from smartsplat_large.streaming.budget import encode_at, encode_within, gaussian_budget, usual_bytes
from smartsplat_large.streaming.evaluate import measure_psnr
from smartsplat_large.streaming.fit import fit_gaussians
from smartsplat_large.streaming.plan import FitPlan
from smartsplat_large.streaming.probe import first_count
from smartsplat_large.streaming.view import View
from smartsplat_large.streaming.workers import Workers

WINDOW = 0.1
"""dB above the target that a file may have."""
SLOPE = 4.0
"""dB that twice the Gaussians give, until two fits tell."""
SLOPES = (1.5, 8.0)
MOST_FITS = 4
MOST_TRIALS = 6
ABOVE, BELOW = 0.5, 0.12
"""dB that a fit may be above or below, at the usual bytes a Gaussian, to be corrected by its steps alone: finer steps
soon gain nothing, and coarser ones cost no more than too many Gaussians do."""
STEP_SLOPE = -0.03
"""dB by which one index of the amplitude step changes a file, until two trials tell."""
FINER, COARSER, FINEST = 96, 96, 640
"""How far the index may go either way; and towards finer steps, where no more Gaussians can be had."""
PERFECT = 150.0
"""dB that stand for no error at all."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A file, and what it restores."""

    encoded: Encoded
    psnr: float


@dataclass(frozen=True, slots=True)
class QualityTask:
    """One picture, fitted and written as often as it takes."""

    source: ImageSource
    renderer: BlockRenderer
    config: FitConfig
    planned: Callable[[int], FitPlan]
    """Refuses a number of Gaussians that memory does not hold."""
    most: int
    """Gaussians that may be tried."""
    kept_bytes: int
    folder: Place
    """For files on trial."""
    workers: Workers
    progress: Progress

    def fit(self, count: int) -> Gaussians:
        """As many Gaussians, fitted."""
        meta, config = self.source.meta, self.config
        plan = self.planned(count)
        initial = sample(
            self.source.read, meta.size, meta.channels, meta.dtype, count, config.sampling, config.seed,
            workers=self.workers.count, progress=self.progress,
        )  # fmt: skip
        return fit_gaussians(
            self.source, self.renderer, initial, plan, config, self.workers, self.progress, kept_bytes=self.kept_bytes
        ).gaussians

    def first_file(self, gaussians: Gaussians) -> Trial:
        """At the usual bytes a Gaussian: what a fit for a ratio writes."""
        limit = usual_bytes(len(gaussians), self.source.meta)
        return self._judged(
            encode_within(gaussians, self.source, self.renderer, self.config, limit, self.workers, self.progress)
        )

    def file_at(self, gaussians: Gaussians, step_index: int) -> Trial:
        """At one amplitude step, whatever the size."""
        return self._judged(
            encode_at(gaussians, step_index, self.source, self.renderer, self.config, self.workers, self.progress)
        )

    def _judged(self, encoded: Encoded) -> Trial:
        # Workers elsewhere keep files open, by their names.
        place = joined(self.folder, f"trial-{uuid.uuid4().hex[:12]}.ssplat")
        write_atomic(place, encoded.parts)
        with SplatFile(place) as file:
            psnr = measure_psnr(self.source, View(file, self.renderer), self.workers)
        remove(place)
        return Trial(encoded, min(psnr, PERFECT))


def encode_to_psnr(task: QualityTask, target: float) -> Encoded:
    """The smallest file found whose PSNR is in ``[target, target + 0.1]``; the nearest, and a note, where none is.

    At most :data:`MOST_FITS` fits, and :data:`MOST_TRIALS` files of each. The same arguments give the same bytes,
    whatever the number of workers.

    Raises
    ------
    MemoryLimitError
        The number of Gaussians that the target seems to take does not fit.
    """
    count = first_count(
        task.source, task.renderer, task.config, target, task.workers, task.progress, folder=task.folder,
        kept_bytes=task.kept_bytes,
    )  # fmt: skip
    task.planned(min(count, gaussian_budget(task.source.meta, task.config)[0]))
    best = search_counts(
        task.fit, task.first_file, task.file_at, min(count, task.most), task.most, target, task.progress.note
    )  # fmt: skip
    if not target <= best.psnr <= target + WINDOW:
        task.progress.note(
            f"no file from {target:g} to {target + WINDOW:g} dB was found: the nearest has {best.psnr:.2f} dB in "
            f"{best.encoded.size_bytes} bytes"
        )
    return best.encoded


def most_that_fit(count: int, planned: Callable[[int], object]) -> int:
    """``count``, or the largest number below it that ``planned`` does not refuse, to some percent.

    Raises
    ------
    MemoryLimitError
        Not one fits.
    """
    while True:
        try:
            planned(count)
        except MemoryLimitError:
            if count == 1:
                raise
            count = max(1, count * 15 // 16)
        else:
            return count


def search_counts(
    fit: Callable[[int], Gaussians],
    first_file: Callable[[Gaussians], Trial],
    file_at: Callable[[Gaussians, int], Trial],
    count: int,
    most: int,
    target: float,
    note: Callable[[str], None],
) -> Trial:
    """Fits of more or fewer Gaussians, beginning with ``count``, until one of them can be written at ``target``."""
    best: Trial | None = None
    known: list[tuple[int, float]] = []
    for attempt in range(MOST_FITS):
        name = f"trial {attempt + 1}"
        note(f"{name}: {count} Gaussians")
        gaussians = fit(count)
        first = first_file(gaussians)
        note(f"{name}: {first.psnr:.2f} dB, wanted {target:g} to {target + WINDOW:g}")
        best, known = nearer(best, first, target), [*known, (count, first.psnr)]
        following = next_count(known, most, target)
        last = attempt == MOST_FITS - 1 or following == count
        if last or -BELOW <= first.psnr - (target + WINDOW / 2) <= ABOVE:
            written = _told(functools.partial(file_at, gaussians), name, note)
            best = nearer(best, search_steps(written, first, target, last), target)
            if best.psnr < target:
                # Its finest steps did not do: more Gaussians must, whatever its first file promised.
                known[-1] = (count, min(first.psnr, target - 2 * BELOW))
        if met(best, target) or last:
            break
        count = next_count(known, most, target)
    assert best is not None
    return best


def _told(file_at: Callable[[int], Trial], name: str, note: Callable[[str], None]) -> Callable[[int], Trial]:
    """``file_at``, with a note of what came of every file but the first, which was made before."""
    numbers = itertools.count(2)

    def told(step_index: int) -> Trial:
        trial = file_at(step_index)
        note(f"{name}, file {next(numbers)}: {trial.psnr:.2f} dB")
        return trial

    return told


def next_count(known: list[tuple[int, float]], most: int, target: float) -> int:
    """Where the line through the two latest fits, or one of the usual slope, has the PSNR that suits ``target``."""
    count, psnr = known[-1]
    slope = SLOPE
    if len(known) > 1 and known[-2][0] != count:
        measured = (psnr - known[-2][1]) / math.log2(count / known[-2][0])
        slope = min(max(measured, SLOPES[0]), SLOPES[1])
    octaves = (target + WINDOW / 2 - psnr) / slope
    return min(max(round(count * math.exp2(min(max(octaves, -6), 4))), 1), most)


def search_steps(file_at: Callable[[int], Trial], first: Trial, target: float, last: bool) -> Trial:
    """The nearest to ``target`` of a few files of one fit, whose amplitude steps are chosen by secants.

    ``first`` only says where to begin: its bits had another price, and do not lie on the same line.
    """
    if met(first, target):
        return first
    aim, best, start = target + WINDOW / 2, first, first.encoded.step_index
    low, high = start - (FINEST if last else FINER) - 1, start + COARSER + 1
    slope, tried = STEP_SLOPE, dict[int, float]()
    index, psnr = start, first.psnr
    for _ in range(MOST_TRIALS):
        following = min(max(index + round((aim - psnr) / slope), low + 1), high - 1)
        if following in tried or low + 1 >= high:
            break
        trial = file_at(following)
        best = nearer(best, trial, target)
        if met(trial, target):
            break
        if tried and trial.psnr != psnr:
            slope = min((trial.psnr - psnr) / (following - index), STEP_SLOPE / 8)
        index, psnr = following, trial.psnr
        tried[index] = psnr
        low, high = (index, high) if psnr > aim else (low, index)
    return best


def met(trial: Trial, target: float) -> bool:
    """Whether a file is in the window."""
    return target <= trial.psnr <= target + WINDOW


def nearer(one: Trial | None, other: Trial, target: float) -> Trial:
    """The better answer to ``target``: the lowest PSNR that is not below it, else the highest."""
    if one is None:
        return other
    short = (one.psnr < target, other.psnr < target)
    if short[0] != short[1]:
        return other if short[0] else one
    return max(one, other, key=lambda t: t.psnr) if short[0] else min(one, other, key=lambda t: t.psnr)
