"""One number for two rate-distortion curves: how many more bytes one takes than the other for the same quality."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from scipy.interpolate import PchipInterpolator

Curve = Iterable[tuple[float, float]]
"""Points of (rate, quality), in any order; rates above 0 in one unit for both curves."""


def bd_rate(anchor: Curve, other: Curve) -> float | None:
    """Bjontegaard's delta rate in percent: -50 where ``other`` takes half the bytes of ``anchor`` for the same quality.

    The logarithm of the rate is interpolated over quality by monotone cubics, and averaged over the qualities that both
    curves span. Points that cost more than another of at least their quality are left out.

    Returns
    -------
    float | None
        None where the curves share no range of quality, or one of them has fewer than two points.
    """
    curves = [_rising(anchor), _rising(other)]
    if min(len(curve) for curve in curves) < 2:
        return None
    low = max(curve[0][1] for curve in curves)
    high = min(curve[-1][1] for curve in curves)
    if low >= high:
        return None
    means = [_mean_log_rate(curve, low, high) for curve in curves]
    return 100 * (math.exp(means[1] - means[0]) - 1)


def _rising(curve: Curve) -> list[tuple[float, float]]:
    """The points worth their rate, in rising order of both."""
    kept: list[tuple[float, float]] = []
    for rate, quality in sorted(curve, key=lambda point: (point[0], -point[1])):
        if math.isfinite(quality) and (not kept or quality > kept[-1][1]):
            kept.append((rate, quality))
    return kept


def _mean_log_rate(curve: list[tuple[float, float]], low: float, high: float) -> float:
    rates, qualities = np.array(curve).T
    log_rate = PchipInterpolator(qualities, np.log(rates))
    return float(log_rate.integrate(low, high)) / (high - low)
