"""From a wanted ratio to a number of Gaussians and of bytes, and from fitted Gaussians to a file that keeps to them."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
from pathlib import Path
from typing import Any

from smartsplat_large import sampling
from smartsplat_large.codec import Encoded, encode, encode_to_budget
from smartsplat_large.codec.budget import affordable
from smartsplat_large.codec.writer import Extras, only, visible_index
from smartsplat_large.config import FitConfig
from smartsplat_large.errors import UsageError
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.progress import Progress
from smartsplat_large.render.base import BlockRenderer
from smartsplat_large.source import ImageMeta, ImageSource
from smartsplat_large.streaming.finish import finish_at, finish_within
from smartsplat_large.streaming.workers import Workers

SETTLED_PASSES = 5
"""Passes after which the quality of a file hardly changes any more."""

SMALLEST_RATIO = 2.0

BYTES_PER_GAUSSIAN = {1: 2.9, 2: 3.3, 3: 3.7, 4: 4.2}
"""What a Gaussian takes in a file whose steps suit its Gaussians, by number of channels: sets N for a wanted ratio. The
steps are then chosen so that the file fills its budget, so an estimate is enough."""

SMALLEST_FILE = 48
"""Bytes of a file of one Gaussian."""

FREE_FINENESS = 2.0
"""Fineness where no budget binds: quantisation noise far below what a fit leaves."""


def gaussian_budget(meta: ImageMeta, config: FitConfig) -> tuple[int, int | None]:
    """How many Gaussians to fit, and how many bytes the file may have (None: as many as it takes).

    For a PSNR: the most that are of use.

    Raises
    ------
    UsageError
        The ratio leaves not one Gaussian, or is too small to be of use.
    """
    if config.gaussians is not None:
        return config.gaussians, None
    ratio = SMALLEST_RATIO if config.psnr is not None else config.ratio or 0.0
    if config.bytes is not None:
        ratio = meta.raw_bytes / config.bytes
    if ratio < SMALLEST_RATIO:
        raise UsageError(
            f"{meta.name}: ratio {ratio:g}; the smallest that is of use is {SMALLEST_RATIO:g}",
            hint="for less compression than that, a lossless format is the better choice",
        )
    limit = config.bytes if config.bytes is not None else math.floor(meta.raw_bytes / ratio)
    if limit < SMALLEST_FILE:
        largest = math.floor(meta.raw_bytes / SMALLEST_FILE)
        raise UsageError(
            f"{meta.name}: ratio {ratio:g} leaves {limit} bytes of {meta.raw_bytes}, not enough for one Gaussian",
            hint=f"--ratio {largest} or lower" if largest >= SMALLEST_RATIO
            else "so small a picture cannot shrink; --gaussians N fits it all the same",
        )  # fmt: skip
    if config.preset == "paper" and config.psnr is None:
        return sampling.budget(meta.size, ratio, channels=meta.channels, itemsize=meta.dtype.itemsize), limit
    count = math.floor((limit - SMALLEST_FILE) / BYTES_PER_GAUSSIAN[meta.channels])
    return max(count, 1), limit


def encode_within(
    gaussians: Gaussians, source: ImageSource, renderer: BlockRenderer, config: FitConfig, limit: int | None,
    workers: Workers, progress: Progress,
) -> Encoded:  # fmt: skip
    """The file of a fit: at most ``limit`` bytes, or as fine as is of use where there is none."""
    meta = source.meta
    extras = extras_of(meta, config, renderer)
    bits = 8 * meta.dtype.itemsize
    about: dict[str, Any] = dict(size=meta.size, bits=bits) | {
        field.name: getattr(extras, field.name) for field in dataclasses.fields(extras)
    }
    progress.start("encode", 1, "file")
    if limit is None:
        encoded = encode(gaussians, fineness=FREE_FINENESS, **about)
        progress.advance(bytes=encoded.size_bytes)
        return encoded
    plain = encode_to_budget(gaussians, budget_bytes=limit, **about)
    progress.advance(bytes=plain.size_bytes)
    affordable_extras, _ = affordable(extras, limit)
    encoded = plain
    if config.finish_passes:
        encoded = finish_within(
            plain, gaussians, limit, bits, affordable_extras, source, renderer, workers, progress, config.finish_passes
        )
    lost = len(gaussians) - len(plain.kept)
    if lost > len(gaussians) // 50:
        progress.note(f"{lost} of {len(gaussians)} Gaussians were left out to keep to {limit} bytes")
    if encoded.dropped_extras:
        progress.note(f"to keep to {limit} bytes, left out: {', '.join(encoded.dropped_extras)}")
    return encoded


def encode_at(
    gaussians: Gaussians, step_index: int, source: ImageSource, renderer: BlockRenderer, config: FitConfig, workers: Workers,
    progress: Progress,
) -> Encoded:  # fmt: skip
    """The file of a fit at one amplitude step, whatever its size, with what a budget of that size would carry."""
    meta = source.meta
    extras, dropped = affordable(extras_of(meta, config, renderer), usual_bytes(len(gaussians), meta))
    seen = only(gaussians, visible_index(gaussians, meta.size))
    # What is searched for must change little from step to step; the last passes even it out.
    passes = max(config.finish_passes, SETTLED_PASSES)
    encoded = finish_at(seen, step_index, 8 * meta.dtype.itemsize, extras, source, renderer, workers, progress, passes)
    return dataclasses.replace(encoded, dropped_extras=dropped)


def usual_bytes(count: int, meta: ImageMeta) -> int:
    """What a ratio gives a file of ``count`` Gaussians."""
    return SMALLEST_FILE + math.ceil(count * BYTES_PER_GAUSSIAN[meta.channels])


def extras_of(meta: ImageMeta, config: FitConfig, renderer: BlockRenderer) -> Extras:
    """What a file carries beside the Gaussians."""
    brightest = (1 << 8 * meta.dtype.itemsize) - 1
    return Extras(
        metadata=_provenance(meta, config), icc_profile=meta.icc_profile, pixels_per_cm=meta.pixels_per_cm,
        background=tuple(round(value * brightest) for value in renderer.background),
    )  # fmt: skip


def _provenance(meta: ImageMeta, config: FitConfig) -> dict[str, Any]:
    version = importlib.metadata.version("smartsplat-large")
    # All settings would take 3 % of a file of 12 kB; version and preset stand for most of them.
    return {"program": f"smartsplat-large {version}", "source": Path(meta.name).name, "config": config.summary()}
