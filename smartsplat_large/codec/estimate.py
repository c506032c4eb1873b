"""How large a file will be, from models of its symbols: no block is sorted, nothing is coded."""

from __future__ import annotations

import math

import numpy as np

from smartsplat_large.codec.entropy import Models, Tally
from smartsplat_large.codec.layout import Layout, plan_layout
from smartsplat_large.codec.models import fit_models, models_to_bytes, stream_bits
from smartsplat_large.codec.payload import Scope, code_marks
from smartsplat_large.codec.quantize import amplitude_step, quantize
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Size

SAMPLE = 1 << 15
"""Of more Gaussians, about so many stand for all."""
LAYERED = 0.991
"""What a layer says of the octaves in it saves so much."""
FRONT_BYTES = 60
"""Of the header, without models, nearly."""


class Estimate:
    """The bytes of a file of some Gaussians by its amplitude step, to 1 % or so."""

    def __init__(self, gaussians: Gaussians, size: Size) -> None:
        self._layout = plan_layout(size, len(gaussians))
        self._sample = gaussians.take(np.arange(0, len(gaussians), -(-len(gaussians) // SAMPLE)))
        self._each = len(gaussians) / len(self._sample)
        self._models: Models | None = None

    def __call__(self, step_index: int) -> float:
        """Without what a file carries beside the Gaussians."""
        symbols = quantize(self._sample, amplitude_step(step_index), self._layout.leaf)
        symbols = symbols.take(np.flatnonzero(symbols.color.any(axis=1)))
        if not len(symbols):
            return FRONT_BYTES
        tally = Tally()
        scope = Scope(self._layout.wide, self._layout.leaf, self._sample.channels)
        code_marks(tally, scope, symbols.cell, symbols)
        models = self._models = fit_models(tally, self._sample.channels, self._models)
        bits = sum(stream_bits(models, tally).values()) * self._each + _place_bits(
            self._layout, len(symbols) * self._each
        )
        return FRONT_BYTES + len(models_to_bytes(models, self._sample.channels)) + LAYERED * bits / 8


def _place_bits(layout: Layout, count: float) -> float:
    """Bits that say which leaf cells hold Gaussians: how many a cell has is taken for geometrically distributed."""
    cells = layout.size.pixels / 4.0**layout.leaf
    mean = count / cells
    return cells * ((1 + mean) * math.log2(1 + mean) - mean * math.log2(mean))
