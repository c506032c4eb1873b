"""What the numbers of a Gaussian will cost in a file, as a term of the loss.

A file's steps are such that every number of every Gaussian adds the same squared error (``codec/quantize.py``): with the
amplitude step ``d``, a channel of the colour adds ``pi d^2 / 12``, and a number takes about ``log(1 + e / d^2) / 2`` nats,
where the energy of a Gaussian is ``e = |c|^2 s_x s_y``. So N Gaussians of n numbers each add ``D = N n pi d^2 / 12``, and
halving ``d`` saves three quarters of that for N n bits: a nat is worth ``-dD / dR = pi d^2 / 6``. That price times what all
numbers take is added to the sum of squared errors, and with it the fit prefers few strong Gaussians that stand by themselves
to many that cancel, which are hard to round.

``d`` is chosen for a budget only when the fit is over. Meanwhile it is taken to be such that ``D`` is a share of the squared
error that the fit leaves: a setting, ``loss.rate``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from smartsplat_large.fitting.loss import LossSums
from smartsplat_large.lattice import Size

_SHAPE_NUMBERS = 5
"""Beside the colours: two of place, two scales, a rotation."""


@dataclass(frozen=True, slots=True)
class RatePrice:
    """The loss has the term ``strength log(1 + e / step_energy) / 2`` for every Gaussian of energy ``e``."""

    strength: float
    step_energy: float
    """``d^2``."""


FREE = RatePrice(0.0, 1.0)


def rate_price(sums: LossSums, size: Size, count: int, channels: int, share: float, l2: float) -> RatePrice:
    """The price of the numbers of ``count`` Gaussians of a picture of ``size``, whose sums, at any level, are ``sums``.

    ``share`` is that of rounding in the squared error; ``l2`` the weight of squared errors in the loss, a mean.
    """
    mean = sums.squared / sums.samples
    if not share or not math.isfinite(mean) or mean <= 0:
        return FREE
    numbers = channels + _SHAPE_NUMBERS
    step_energy = share * mean * size.pixels * channels / (count * numbers * math.pi / 12)
    # pi d^2 / 6 for each of a Gaussian's numbers, over the pixels and channels that the loss is a mean of.
    return RatePrice(l2 * 2 * share * mean / count, step_energy)
