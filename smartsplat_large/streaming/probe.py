"""How many Gaussians a PSNR will take, roughly: short fits of the picture, or of windows of it."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from smartsplat_large.config import PRESETS, FitConfig
from smartsplat_large.lattice import Window
from smartsplat_large.places import Place, joined
from smartsplat_large.progress import Progress
from smartsplat_large.render.base import BlockRenderer
from smartsplat_large.sampling import sample
from smartsplat_large.source import ImageSource, ingest
from smartsplat_large.source.array import ArraySource
from smartsplat_large.streaming.fit import fit_gaussians
from smartsplat_large.streaming.plan import FitPlan, column_bytes, phases, project, task_bytes
from smartsplat_large.streaming.workers import Workers

EXACT = 150.0
"""dB that stand for a probe without any error: a picture of one colour, say."""
PROBE_STEPS = 60
PROBES = 3
PROBE_BLOCK = 256
PER_GAUSSIAN = (24, 4000)
"""Pixels a Gaussian that probes are made with: the line is followed from there on."""
START = 64.0
"""Pixels a Gaussian of the first probe."""
SLOPE, SLOPES = 4.0, (1.5, 7.0)
"""dB for twice the Gaussians."""
NEAR = 0.5
"""Octaves of N: so close to a probe, another tells nothing new."""
GAIN, FROM = 0.045, 18.4
"""dB that twice the steps of a probe give, for every dB that it has above the second: what writing the file costs is
taken off. Of Kodak pictures at ratios 25 and 100."""
SAMPLE_SIDE, SAMPLE_ACROSS, SAMPLE_DOWN = 512, 4, 2
"""Windows that stand for a picture of more than twice their pixels."""


def first_count(
    source: ImageSource, renderer: BlockRenderer, config: FitConfig, target: float, workers: Workers, progress: Progress,
    *, folder: Place, kept_bytes: int = 0,
) -> int:  # fmt: skip
    """The number of Gaussians whose file should have a PSNR of ``target`` dB, to perhaps a tenth.

    ``folder`` takes what probes look at, where workers elsewhere are to see it, too.
    """
    probed = sampled(source)
    if workers.remote and probed is not source:
        levels = len(probed.meta.levels)
        probed = ingest(probed, joined(folder, "probe.zarr"), levels=levels, progress=progress, workers=workers.count)
    pixels = probed.meta.size.pixels
    low, high = (max(1, round(pixels / per)) for per in (PER_GAUSSIAN[1], PER_GAUSSIAN[0]))
    count, known = max(1, round(pixels / START)), list[tuple[int, float]]()
    for number in range(1, PROBES + 1):
        progress.note(f"probe {number}: {count} Gaussians on {probed.meta.size} pixels")
        known.append((count, probe(probed, renderer, config, count, workers, progress, kept_bytes)))
        wanted = extrapolated(known, target)
        count = min(max(wanted, low), high)
        if abs(math.log2(count / known[-1][0])) < NEAR:
            break
    return max(1, round(wanted * source.meta.size.pixels / pixels))


def extrapolated(known: list[tuple[int, float]], target: float) -> int:
    """Where the line through the two latest probes, or one of the usual slope, has a PSNR of ``target`` dB."""
    count, psnr = known[-1]
    slope = SLOPE
    if len(known) > 1:
        measured = (psnr - known[-2][1]) / math.log2(count / known[-2][0])
        slope = min(max(measured, SLOPES[0]), SLOPES[1])
    return max(1, round(count * math.exp2(min(max((target - psnr) / slope, -16), 16))))


def probe(
    source: ImageSource, renderer: BlockRenderer, config: FitConfig, count: int, workers: Workers, progress: Progress,
    kept_bytes: int,
) -> float:  # fmt: skip
    """The PSNR that a file of ``count`` Gaussians fitted by ``config`` should have."""
    meta, short = source.meta, probe_config(config)
    about = (meta.size, meta.channels, meta.dtype.itemsize, count)
    plan = FitPlan(
        size=meta.size, channels=meta.channels, gaussians=count, block=PROBE_BLOCK, phases=phases(meta.size, count, short),
        footprint=project(*about, PROBE_BLOCK, workers.count), task_bytes=task_bytes(*about, PROBE_BLOCK),
        column_bytes=column_bytes(count, meta.channels),
    )  # fmt: skip
    initial = sample(
        source.read, meta.size, meta.channels, meta.dtype, count, short.sampling, short.seed,
        workers=workers.count, progress=progress,
    )  # fmt: skip
    best = fit_gaussians(source, renderer, initial, plan, short, workers, progress, kept_bytes=kept_bytes)
    psnr = min(best.sums.psnr, EXACT) if best.sums else 0.0
    return psnr + GAIN * max(0.0, psnr - FROM) * math.log2(max(config.steps, 1) / max(short.steps, 1))


def probe_config(config: FitConfig) -> FitConfig:
    """A short recipe, whatever ``config`` is: its result only ranks numbers of Gaussians."""
    steps = min(PROBE_STEPS, config.steps)
    short = PRESETS["fast"].replace(
        steps=steps, coarse_share=0.5, relocate_share=0.15, relocate_every=6, seed=config.seed, sampling=config.sampling
    )
    return dataclasses.replace(short, loss=short.loss.without_ssim())


def sampled(source: ImageSource) -> ImageSource:
    """``source``, or a picture of evenly spread windows of it, side by side, where it is much larger than they are."""
    size = source.meta.size
    wide, high = SAMPLE_SIDE * SAMPLE_ACROSS, SAMPLE_SIDE * SAMPLE_DOWN
    if size.pixels <= 2 * wide * high or size.width < wide or size.height < high:
        return source
    rows = []
    for row in range(SAMPLE_DOWN):
        y = spread(row, SAMPLE_DOWN, size.height)
        across = [
            Window(spread(i, SAMPLE_ACROSS, size.width), y, SAMPLE_SIDE, SAMPLE_SIDE) for i in range(SAMPLE_ACROSS)
        ]
        rows.append(np.concatenate([source.read(window, 0) for window in across], axis=1))
    levels = 1 + math.floor(math.log2(high / 64))
    return ArraySource(np.concatenate(rows, axis=0), name=source.meta.name, levels=levels)


def spread(index: int, parts: int, side: int) -> int:
    """Where the window in the middle of one of equal parts of a side begins."""
    return math.floor((index + 0.5) * side / parts - SAMPLE_SIDE / 2)
