"""Score a file against its image, window by window."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from smartsplat_large.lattice import Size, Window
from smartsplat_large.metrics import Score, core_windows, halo_window, merge_scores, score_window
from smartsplat_large.pixels import scaled, to_planes
from smartsplat_large.progress import Progress
from smartsplat_large.source.base import ImageSource, read_planes
from smartsplat_large.streaming.view import View
from smartsplat_large.streaming.workers import Workers

_WINDOW_SIDE = 1024 + 190
"""Of the largest window that is scored: its core, and what MS-SSIM sees beyond."""
_PLANES = 3
"""float32 planes a channel of a window that live at once: those of both pictures, and one while they are made and compared."""
_PIXEL_ARRAYS = 3
"""Copies of a window as stored pixels: one restored, one read, and one while it is put in order."""
_BESIDE = 16
"""Bytes a pixel for the tiles of the renderer and the scratch of SSIM."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the tasks of an evaluation share."""

    source: ImageSource
    view: View


def score_file(source: ImageSource, view: View, workers: Workers, progress: Progress, *, stage: str = "eval") -> Score:
    """Score of the pixels a decoder would write, rounded as they are written, against those of ``source``."""
    cores = core_windows(source.meta.size)
    progress.start(stage, source.meta.size.megapixels, "MP")
    scores = []
    for core, score in zip(cores, workers.map(score_core, Comparison(source, view), cores), strict=True):
        scores.append(score)
        progress.advance(core.pixels / 1e6)
    return merge_scores(scores)


def scoring_bytes(size: Size, channels: int, itemsize: int) -> int:
    """Bytes at the peak of the task of one window, the largest one."""
    pixels = min(_WINDOW_SIDE, size.width) * min(_WINDOW_SIDE, size.height)
    return pixels * (channels * (_PIXEL_ARRAYS * itemsize + 4 * _PLANES) + _BESIDE)


def measure_psnr(source: ImageSource, view: View, workers: Workers) -> float:
    """The PSNR of :func:`score_file` alone, which takes a fraction of its time; infinite for identical pictures."""
    cores = core_windows(source.meta.size)
    squared = sum(workers.map(squared_error, Comparison(source, view), cores))
    mean = squared / (source.meta.size.pixels * source.meta.channels)
    return -10 * math.log10(mean) if mean else math.inf


def squared_error(comparison: Comparison, core: Window) -> float:
    """The task of one window: its sum of squared differences."""
    difference = to_planes(comparison.view.read(core)) - scaled(read_planes(comparison.source, core, 0))
    return float(np.square(difference, dtype=np.float64).sum())


def score_core(comparison: Comparison, core: Window) -> Score:
    """The task of one window."""
    size = comparison.source.meta.size
    outer = halo_window(core, size)
    restored = to_planes(comparison.view.read(outer))
    return score_window(restored, scaled(read_planes(comparison.source, outer, 0)), core, size)
