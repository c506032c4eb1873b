"""How large a file will be, from the entropy of its symbols: no block is sorted, nothing is coded."""

from __future__ import annotations

import math

import numpy as np

from smartsplat_large.codec.entropy import Tally, Weights
from smartsplat_large.codec.layout import Layout, plan_layout
from smartsplat_large.codec.payload import Scope, code_marks
from smartsplat_large.codec.quantize import amplitude_step, quantize
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Size

SAMPLE = 1 << 15
"""Of more Gaussians, about so many stand for all."""
LAYERED = 0.991
"""What a layer says of the octaves in it saves so much."""
FRONT_BYTES = 450
"""Of models and header, nearly."""


class Estimate:
    """The bytes of a file of some Gaussians by its amplitude step, to 1 % or so."""

    def __init__(self, gaussians: Gaussians, size: Size) -> None:
        self._layout = plan_layout(size, len(gaussians))
        self._sample = gaussians.take(np.arange(0, len(gaussians), -(-len(gaussians) // SAMPLE)))
        self._each = len(gaussians) / len(self._sample)

    def __call__(self, step_index: int) -> float:
        """Without what a file carries beside the Gaussians."""
        symbols = quantize(self._sample, amplitude_step(step_index), self._layout.leaf)
        symbols = symbols.take(np.flatnonzero(symbols.color.any(axis=1)))
        if not len(symbols):
            return FRONT_BYTES
        tally = Tally()
        scope = Scope(self._layout.wide, self._layout.leaf, self._sample.channels)
        code_marks(tally, scope, symbols.cell, symbols)
        bits = sum(tally.uniform_bits.values()) + sum(map(_entropy_bits, tally.histograms.values()))
        bits = bits * self._each + _place_bits(self._layout, len(symbols) * self._each)
        return FRONT_BYTES + LAYERED * bits / 8


def _entropy_bits(counts: Weights) -> float:
    """Bits of all that was counted, each symbol at its share."""
    present = counts[counts > 0]
    return float((present * np.log2(present.sum() / present)).sum())


def _place_bits(layout: Layout, count: float) -> float:
    """Bits that say which leaf cells hold Gaussians: how many a cell has is taken for geometrically distributed."""
    cells = layout.size.pixels / 4.0**layout.leaf
    mean = count / cells
    return cells * ((1 + mean) * math.log2(1 + mean) - mean * math.log2(mean))
