"""From fitted Gaussians to a file of a wanted size: the integers themselves are fitted to the image.

A fit knows nothing of rounding. Here the symbols that the file will hold are improved against the image, pass by pass
(see :mod:`~smartsplat_large.streaming.rounding`), at a price for every bit; the amplitude step and the price are what
the size is steered by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from smartsplat_large.codec.budget import ACCEPTED, AIM, LEAST
from smartsplat_large.codec.layout import Layout
from smartsplat_large.codec.quantize import STEPS_PER_OCTAVE, Symbols, amplitude_step
from smartsplat_large.codec.writer import Encoded, Extras, pack, quantized
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.progress import Progress
from smartsplat_large.render.base import BlockRenderer
from smartsplat_large.source.base import ImageSource
from smartsplat_large.streaming.rounding import round_jointly
from smartsplat_large.streaming.workers import Workers

PRICE = 0.07
"""Squared error a bit is worth, in energies of an amplitude step; 0.03 to 0.12 are equally good at equal bytes."""
PRICES = (0.02, 0.2)
MORE_PASSES = 3
"""Passes beyond those wanted, where the size is not yet in its range."""
ATTEMPTS = 3
"""Amplitude steps tried, by their first passes."""
SHRINKAGE = 0.985
"""What the passes after the second make of the size, at the same price."""
NEAR = 0.03
"""A size this close to the aim after two passes is reached by the price."""
STEERING = 10.0
"""The price grows by this power of the size's excess."""


@dataclass(slots=True)
class Finish:
    """Symbols of one amplitude step while they are improved."""

    source: ImageSource
    renderer: BlockRenderer
    workers: Workers
    progress: Progress
    bits: int
    extras: Extras
    symbols: Symbols
    layout: Layout
    encoded: Encoded
    expected: int
    """Passes that progress counts with; there may be more."""
    taken: int = 0

    @classmethod
    def begin(
        cls, gaussians: Gaussians, step_index: int, bits: int, extras: Extras, source: ImageSource, renderer: BlockRenderer,
        workers: Workers, progress: Progress, expected: int,
    ) -> Finish:  # fmt: skip
        """The nearest symbols for an amplitude step, of which ``expected`` passes are about to be made."""
        symbols, layout = quantized(gaussians, source.meta.size, step_index)
        encoded = pack(symbols, layout, bits, step_index, extras)
        progress.start("finish", expected, "passes")
        return cls(source, renderer, workers, progress, bits, extras, symbols, layout, encoded, expected)

    def improve(self, price: float) -> None:
        """One pass; the first leaves the geometry as it is, until the colours suit it."""
        models, index = self.encoded.models, self.encoded.step_index
        assert models is not None
        self.symbols = round_jointly(
            self.source, self.renderer, self.symbols, self.layout, amplitude_step(index), models, price, self.workers,
            shapes=self.taken > 0,
        )  # fmt: skip
        self.taken += 1
        self.encoded = pack(self.symbols, self.layout, self.bits, index, self.extras, start=models)
        if self.taken <= self.expected:
            self.progress.advance(bytes=self.encoded.size_bytes)


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
    """A better file than ``plain``, of at most ``budget_bytes`` and at least 97 % of them; ``plain`` where none is found.

    ``plain`` is the file of ``gaussians`` rounded each by itself. The same arguments give the same bytes, whatever the
    number of workers.
    """
    gaussians = gaussians.take(plain.kept)
    around = (bits, extras, source, renderer, workers, progress, passes + 1)
    index, aim = plain.step_index, AIM * budget_bytes
    slope = len(gaussians) * (gaussians.channels + 5) / 8 / STEPS_PER_OCTAVE
    finish = Finish.begin(gaussians, index, *around)
    for _ in range(ATTEMPTS):
        finish.improve(PRICE)
        finish.improve(PRICE)
        excess = SHRINKAGE * finish.encoded.size_bytes - aim
        if abs(excess) <= NEAR * aim or plain.under_budget:
            break
        index += math.ceil(excess / slope)
        finish = Finish.begin(gaussians, index, *around)
    best = _steered(finish, budget_bytes, passes)
    if best is None:
        return plain
    return replace(best, kept=plain.kept[best.kept], dropped_extras=plain.dropped_extras)


def _steered(finish: Finish, budget_bytes: int, passes: int) -> Encoded | None:
    """The last file within the budget; passes go on until there is one, and for a good size, not for ever."""
    price, best = PRICE, None
    while finish.taken < passes + MORE_PASSES:
        share = finish.encoded.size_bytes / (AIM * budget_bytes)
        price = float(np.clip(price * math.exp(STEERING * (share - 1)), *PRICES))
        finish.improve(price)
        size = finish.encoded.size_bytes
        if LEAST * budget_bytes <= size <= budget_bytes:
            best = finish.encoded
        if finish.taken >= passes and ACCEPTED * budget_bytes <= size <= budget_bytes:
            break
    return best
