"""PSNR, SSIM and MS-SSIM as sums that add up over the windows of a picture of any size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray

from smartsplat_large.array_types import Planes
from smartsplat_large.lattice import Size, Window
from smartsplat_large.metrics import kernels
from smartsplat_large.metrics.partition import (
    REACH,
    SCALES,
    AxisScale,
    Span,
    core_windows,
    halo_window,
    scales_defined,
    window_scales,
)

PlaneReader = Callable[[Window], Planes]
"""Reads one window of a picture as planes; the caller owns the result."""
Scorer = Callable[[Window], "Score"]
Mapper = Callable[[Scorer, list[Window]], Iterable["Score"]]

_PerChannel = Float64[ndarray, "c"]
_PerScale = Int64[ndarray, "5"]
_WEIGHTS = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """Sums over part of a picture: a few hundred bytes, whatever the part.

    ``merge`` is associative and commutative up to float64 rounding; merge in one order for one result to the last bit.
    """

    squared_error: _PerChannel
    pixels: int
    ssim_sum: Float64[ndarray, "5 c"]
    """Per scale and channel; zero at scales that are not defined."""
    cs_sum: Float64[ndarray, "5 c"]
    """Sums of the contrast-structure factor."""
    positions: _PerScale
    """Window positions summed per scale."""

    @classmethod
    def zero(cls, channels: int) -> Self:
        """The score of nothing."""
        sums = np.zeros((2, SCALES, channels))
        return cls(np.zeros(channels), 0, sums[0], sums[1], np.zeros(SCALES, np.int64))

    def merge(self, other: Score) -> Score:
        """The score of two disjoint parts together.

        Raises
        ------
        ValueError
            Their channel counts differ.
        """
        if len(self.squared_error) != len(other.squared_error):
            raise ValueError(f"scores of {len(self.squared_error)} and {len(other.squared_error)} channels")
        return Score(
            self.squared_error + other.squared_error,
            self.pixels + other.pixels,
            self.ssim_sum + other.ssim_sum,
            self.cs_sum + other.cs_sum,
            self.positions + other.positions,
        )

    def mse(self) -> float:
        """Mean squared error over all samples; 1 is the brightest value squared."""
        if not self.pixels:
            raise ValueError("a score of no pixels has no mean")
        return float(self.squared_error.sum()) / (self.pixels * len(self.squared_error))

    def psnr(self) -> float:
        """``-10 log10(mse)`` in decibels; infinite for identical pictures."""
        mse = self.mse()
        return -10 * math.log10(mse) if mse else math.inf

    def ssim(self) -> float | None:
        """Mean SSIM (11 x 11 Gaussian window, sigma 1.5); None where a side is below 11 pixels."""
        if not self.positions[0]:
            return None
        return float(np.mean(self.ssim_sum[0] / self.positions[0]))

    def ms_ssim(self) -> float | None:
        """MS-SSIM over five scales, the mean over channels; None where a side is 160 pixels or less."""
        if not self.positions.all():
            return None
        factors = np.concatenate([self.cs_sum[:-1], self.ssim_sum[-1:]]) / self.positions[:, None]
        return float(np.mean(np.prod(np.maximum(factors, 0) ** _WEIGHTS[:, None], axis=0)))


def score_window(a: Planes, b: Planes, core: Window, size: Size) -> Score:
    """Score the part ``core`` of a picture of ``size``, given the pixels of ``halo_window(core, size)`` of both sides.

    Equal, once merged over a partition of the picture, to pytorch-msssim 1.0 with ``data_range=1`` on the whole.

    Raises
    ------
    ValueError
        ``core`` is not inside the picture, or an array does not have the shape of its halo window.
    """
    plan = window_scales(core, size)
    held = halo_window(core, size)
    if a.ndim != 3 or a.shape != b.shape or a.shape[1:] != held.shape:
        raise ValueError(f"planes of {a.shape} and {b.shape} do not cover the halo window {held} of core {core}")
    score = Score.zero(len(a))
    rows, columns = core.slices(held)
    scales = scales_defined(size)
    for channel in range(len(a)):
        pair = (np.ascontiguousarray(a[channel], np.float32), np.ascontiguousarray(b[channel], np.float32))
        score.squared_error[channel] = kernels.squared_error(pair[0][rows, columns], pair[1][rows, columns])
        for scale in range(scales):
            if scale:
                pair = (_halved(pair[0], plan[scale - 1], plan[scale]), _halved(pair[1], plan[scale - 1], plan[scale]))
            sums = kernels.ssim_sums(_seen(pair[0], plan[scale]), _seen(pair[1], plan[scale]))
            score.ssim_sum[scale, channel], score.cs_sum[scale, channel] = sums
    for scale, (row, column) in enumerate(plan[:scales]):
        score.positions[scale] = len(row.scored) * len(column.scored)
    return Score(score.squared_error, core.pixels, score.ssim_sum, score.cs_sum, score.positions)


def _halved(
    plane: Float32[ndarray, "h w"], fine: tuple[AxisScale, AxisScale], coarse: tuple[AxisScale, AxisScale]
) -> Float32[ndarray, "h2 w2"]:
    out = np.empty((len(coarse[0].held), len(coarse[1].held)), np.float32)
    top, left = (2 * c.held.start - f.odd - f.held.start for f, c in zip(fine, coarse, strict=True))
    kernels.halve(plane, out, top, left)
    return out


def _seen(plane: Float32[ndarray, "h w"], scale: tuple[AxisScale, AxisScale]) -> Float32[ndarray, "h w"]:
    """The part of the held plane that the scored SSIM values see; without rows or columns where none are scored."""
    rows, columns = (_inside(axis.scored, axis.held) for axis in scale)
    return plane[rows, columns]


def _inside(scored: Span, held: Span) -> slice:
    reach = REACH if len(scored) else 0
    return slice(scored.start - held.start, scored.start - held.start + len(scored) + reach) if reach else slice(0, 0)


def merge_scores(scores: Iterable[Score]) -> Score:
    """All parts together, added in the order given.

    Raises
    ------
    ValueError
        There are none.
    """
    total: Score | None = None
    for score in scores:
        total = score if total is None else total.merge(score)
    if total is None:
        raise ValueError("no scores to merge")
    return total


def evaluate_streams(
    read_a: PlaneReader, read_b: PlaneReader, size: Size, *, block: int = 1024, mapper: Mapper = map
) -> Score:
    """Score two pictures window by window, holding one halo window of each per running task.

    ``mapper`` runs the tasks: the builtin ``map``, or that of a pool or a cluster. It must keep the order, which makes
    the result the same to the last bit whatever runs them.
    """

    def score(core: Window) -> Score:
        held = halo_window(core, size)
        return score_window(read_a(held), read_b(held), core, size)

    return merge_scores(mapper(score, core_windows(size, block)))
