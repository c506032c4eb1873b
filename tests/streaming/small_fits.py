"""What tests of exact and of blocked fits begin with: a small picture, and a fit of it from its sampling."""

from __future__ import annotations

import dataclasses

import numpy as np

from smartsplat_large.config import FitConfig
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.progress import Progress, Silent
from smartsplat_large.render.base import BlockRenderer
from smartsplat_large.render.cpu import CpuRenderer
from smartsplat_large.sampling import sample
from smartsplat_large.source import ArraySource
from smartsplat_large.streaming.checkpoint import Checkpoint
from smartsplat_large.streaming.fit import fit_gaussians
from smartsplat_large.streaming.plan import FitPlan, plan_fit
from smartsplat_large.streaming.state import Best
from smartsplat_large.streaming.workers import open_workers

COLUMNS = ("xy", "scale", "rotation", "color")
SILENT = Silent()


def waves(width: int, height: int, spot: tuple[int, int], spot_radius_squared: int) -> ArraySource:
    """Waves of two directions, some noise, and a brighter spot with a sharp edge."""
    y, x = np.mgrid[:height, :width]
    smooth = 128 + 60 * np.sin(x / 9) + 50 * np.cos((x + 2 * y) / 15)
    edges = np.where((x - spot[0]) ** 2 + (y - spot[1]) ** 2 < spot_radius_squared, 60, 0)
    noise = np.random.default_rng(0).normal(0, 5, (height, width, 3))
    pixels = np.stack([smooth, smooth[::-1], 255 - smooth], axis=2) + edges[..., None] + noise
    return ArraySource(pixels.clip(0, 255).astype(np.uint8), levels=3)


def start(source: ArraySource, config: FitConfig) -> Gaussians:
    """The Gaussians that a fit begins with."""
    meta = source.meta
    count = config.gaussians or 1
    return sample(source.read, meta.size, meta.channels, meta.dtype, count, config.sampling, config.seed, workers=1)


def plan_of(source: ArraySource, config: FitConfig, block: int | None = None) -> FitPlan:
    """The plan of a fit, with blocks of a given side."""
    meta = source.meta
    plan = plan_fit(meta.size, meta.channels, 1, config.gaussians or 1, config, memory_bytes=1 << 40, workers=1)
    return plan if block is None else dataclasses.replace(plan, block=block)


def fit_from_start(
    source: ArraySource, config: FitConfig, *, block: int | None = None, workers: int = 1, dashboard: bool = False,
    scheduler: str | None = None, renderer: BlockRenderer | None = None, checkpoint: Checkpoint | None = None,
    progress: Progress = SILENT,
) -> Best:  # fmt: skip
    """A whole fit, or what is left of one."""
    checkpoint = checkpoint or Checkpoint.none(SILENT)
    plan, renderer = plan_of(source, config, block), renderer or CpuRenderer()
    with open_workers(workers, dashboard=dashboard, scheduler=scheduler, progress=SILENT) as pool, checkpoint:
        initial = checkpoint.resumed_gaussians or start(source, config)
        return fit_gaussians(source, renderer, initial, plan, config, pool, progress, 0, checkpoint)
