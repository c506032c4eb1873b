"""How many Gaussians the bytes of a file pay for.

More Gaussians fit better, but share the same bytes: each is rounded more coarsely. At the best number, rounding adds
about as much squared error as the fit reckons with when it prices its bits (``loss.rate``, see ``fitting/rate.py``), a share of
what it leaves. So the amplitude step of that price says how many bits a Gaussian will take, and they how many there can be.
"""

from __future__ import annotations

import math

import numpy as np

from smartsplat_large import columns
from smartsplat_large.config import FitConfig
from smartsplat_large.gaussians import Gaussians

MOST, LEAST = 1.2, 0.6
"""What the number of Gaussians may become, as multiples of that at the start; memory is planned for the most."""
_FIXED_BYTES, _FIXED_SHARE = 350, 1 / 8
"""Header, models and provenance, as long as they are no larger share: the smallest files leave provenance out."""
_LEAST_BITS = 1.44
"""Bits of a number that is hardly larger than its step: signs, and the place among others."""


def most_gaussians(count: int, config: FitConfig) -> int:
    """What ``count`` may grow to under these settings."""
    return math.floor(MOST * count) if is_adaptive(config) else count


def is_adaptive(config: FitConfig) -> bool:
    """Whether there is a wanted size, a price of its bits, and moves of budget to change the number by."""
    has_size = config.ratio is not None or config.bytes is not None
    return config.adaptive_count and has_size and config.relocate_share > 0 and config.loss.rate > 0


def affordable_count(gaussians: Gaussians, step_energy: float, budget_bytes: int) -> int:
    """How many Gaussians like these a file of ``budget_bytes`` holds at the square ``step_energy`` of its amplitude step."""
    doublings = columns.empty(len(gaussians))
    for rows in columns.chunks(len(gaussians)):
        part = gaussians.part(rows)
        energy = np.square(part.color, dtype=np.float64).sum(1) * part.scale.prod(1, dtype=np.float64)
        doublings[rows] = np.log2(1 + energy / step_energy)
    bits = (gaussians.channels + 5) * (_LEAST_BITS + float(doublings.mean()) / 2)
    return max(1, math.floor(8 * (budget_bytes - min(_FIXED_BYTES, _FIXED_SHARE * budget_bytes)) / bits))
