"""From fitted Gaussians to a file of a wanted size: the integers themselves are fitted to the image.

A fit knows nothing of rounding. Here the symbols that the file will hold are improved against the image, pass by pass
(see :mod:`~smartsplat_large.streaming.rounding`), at a price for every bit; the amplitude step and the price are what
the size is steered by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from smartsplat_large import columns
from smartsplat_large.codec.budget import AIM, FULL, LEAST, trimmed
from smartsplat_large.codec.layout import Layout
from smartsplat_large.codec.quantize import STEPS_PER_OCTAVE, SymbolTable, amplitude_step
from smartsplat_large.codec.writer import Encoded, Extras, only, pack, quantized
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.progress import Progress
from smartsplat_large.render.base import BlockRenderer
from smartsplat_large.source.base import ImageSource
from smartsplat_large.streaming.rounding import round_jointly
from smartsplat_large.streaming.workers import Workers

PRICE = 0.07
"""Squared error a bit is worth, in energies of an amplitude step; 0.03 to 0.12 are equally good at equal bytes."""
PRICES = (0.03, 0.15)
MORE_PASSES = 3
"""Passes beyond those wanted, where the size is not yet in its range."""
ATTEMPTS = 3
"""Amplitude steps tried, by their first passes."""
SHRINKAGE = 0.985
"""What the passes after the second make of the size, at the same price."""
NEAR = (-0.02, 0.03)
"""Of the aim: a size no further below and above it after two passes is reached by the price."""
OVER, TRIMMABLE = 1.006, 1.025
"""Shares of the budget: aimed at by the price, and the most that is not worth another pass."""
STEERING = 12.0
"""The price grows by this power of the size's excess; sizes fall by about the seventh root of the price."""


@dataclass(slots=True)
class Finish:
    """Symbols of one amplitude step while they are improved."""

    source: ImageSource
    renderer: BlockRenderer
    workers: Workers
    progress: Progress
    bits: int
    extras: Extras
    symbols: SymbolTable
    layout: Layout
    encoded: Encoded
    expected: int
    """Passes that progress counts with; there may be more."""
    taken: int = 0

    @classmethod
    def begin(
        cls, gaussians: Gaussians, step_index: int, bits: int, extras: Extras, source: ImageSource, renderer: BlockRenderer,
        workers: Workers, progress: Progress, expected: int, attempt: int = 1,
    ) -> Finish:  # fmt: skip
        """The nearest symbols for an amplitude step, of which ``expected`` passes are about to be made.

        Progress tells the attempts at one file apart.
        """
        symbols, layout = quantized(gaussians, source.meta.size, step_index)
        encoded = pack(symbols, layout, bits, step_index, extras)
        progress.start("finish" if attempt == 1 else f"finish, attempt {attempt}", expected, "passes")
        return cls(source, renderer, workers, progress, bits, extras, symbols, layout, encoded, expected)

    def improve(self, price: float) -> None:
        """One pass; the first leaves the geometry as it is, until the colours suit it."""
        models, index = self.encoded.models, self.encoded.step_index
        assert models is not None
        round_jointly(
            self.source, self.renderer, self.symbols, self.layout, amplitude_step(index), models, price, self.workers,
            shapes=self.taken > 0,
        )  # fmt: skip
        self.taken += 1
        self.encoded = pack(self.symbols, self.layout, self.bits, index, self.extras, start=models)
        if self.taken <= self.expected:
            self.progress.advance(bytes=self.encoded.size_bytes)

    def trimmed(self, budget_bytes: int) -> Encoded | None:
        """The file of all but the faintest, which ``budget_bytes`` do not hold."""
        index = self.encoded.step_index
        return trimmed(self.symbols, self.layout, self.bits, index, self.extras, self.encoded, budget_bytes)


def finish_at(
    gaussians: Gaussians, step_index: int, bits: int, extras: Extras, source: ImageSource, renderer: BlockRenderer,
    workers: Workers, progress: Progress, passes: int,
) -> Encoded:  # fmt: skip
    """The file of an amplitude step, after some passes at the usual price, whatever its size.

    A finer step gives a larger file of fewer errors. The same arguments give the same bytes.
    """
    finish = Finish.begin(gaussians, step_index, bits, extras, source, renderer, workers, progress, passes)
    for _ in range(passes):
        finish.improve(PRICE)
    return finish.encoded


def finish_within(
    plain: Encoded, gaussians: Gaussians, budget_bytes: int, bits: int, extras: Extras, source: ImageSource,
    renderer: BlockRenderer, workers: Workers, progress: Progress, passes: int,
) -> Encoded:  # fmt: skip
    """A better file than ``plain``, of at most ``budget_bytes`` and nearly as many; ``plain`` where none is found.

    ``plain`` is the file of ``gaussians`` rounded each by itself. The same arguments give the same bytes, whatever the
    number of workers.
    """
    gaussians = only(gaussians, plain.kept)
    around = (bits, extras, source, renderer, workers, progress, passes + 1)
    index, aim = plain.step_index, AIM * budget_bytes
    slope = len(gaussians) * (gaussians.channels + 5) / 8 / STEPS_PER_OCTAVE
    known: list[tuple[int, float]] = []
    for attempt in range(1, ATTEMPTS + 1):
        finish = Finish.begin(gaussians, index, *around, attempt)
        finish.improve(PRICE)
        finish.improve(PRICE)
        excess = SHRINKAGE * finish.encoded.size_bytes - aim
        if NEAR[0] * aim <= excess <= NEAR[1] * aim or plain.under_budget or attempt == ATTEMPTS:
            break
        known.append((index, excess))
        if len(known) > 1:
            # What coarser steps leave out altogether is not in the usual slope.
            (before, then), (after, now) = known[-2:]
            slope = max((then - now) / (after - before), slope / 2)
        index += math.ceil(excess / slope)
        del finish
    best = _steered(finish, budget_bytes, passes)
    if best is None:
        return plain
    return replace(best, kept=columns.taken(plain.kept, best.kept), dropped_extras=plain.dropped_extras)


def _steered(finish: Finish, budget_bytes: int, passes: int) -> Encoded | None:
    """The file after the passes wanted, or after some more for a good size; the faintest Gaussians pay for what is over."""
    price, best = PRICE, None
    while finish.taken < passes + MORE_PASSES:
        share = finish.encoded.size_bytes / (OVER * budget_bytes)
        price = float(np.clip(price * math.exp(STEERING * (share - 1)), *PRICES))
        finish.improve(price)
        size = finish.encoded.size_bytes
        if LEAST * budget_bytes <= size <= budget_bytes:
            best = finish.encoded
        if finish.taken >= passes and FULL * budget_bytes <= size <= TRIMMABLE * budget_bytes:
            break
    return best if finish.encoded.size_bytes <= budget_bytes else finish.trimmed(budget_bytes) or best
