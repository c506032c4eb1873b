"""What a fit may take: Gaussians, bytes of its file, and memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

from smartsplat_large.config import FitConfig
from smartsplat_large.memory import require
from smartsplat_large.sampling.footprint import footprint
from smartsplat_large.source import ImageMeta
from smartsplat_large.streaming.budget import gaussian_budget
from smartsplat_large.streaming.plan import FitPlan, plan_fit
from smartsplat_large.streaming.quality import most_that_fit


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one fit is given, and its plan with that."""

    count: int
    """Gaussians; for a PSNR, the most that may be tried."""
    limit_bytes: int | None
    """Of the file; None: as many as it takes."""
    plan: FitPlan
    spare_bytes: int
    """Memory that a copy of the image may take throughout."""
    levels: int
    """Of the image that are looked at."""
    threads: int
    """Of this machine."""
    planned: Callable[[int], tuple[FitPlan, int]]
    """Plan and spare memory for another number of Gaussians; refuses one that memory does not hold."""


def allow(meta: ImageMeta, config: FitConfig, memory_bytes: int, threads: int) -> Allowance:
    """What the settings and the memory leave to a fit of ``threads`` workers.

    Raises
    ------
    UsageError
        The ratio leaves not one Gaussian, or is too small to be of use.
    MemoryLimitError
        Fitting or sampling needs more than ``memory_bytes``.
    """
    count, limit = gaussian_budget(meta, config)
    planned = functools.partial(_plan_and_spare, meta, config, memory_bytes, threads)
    if config.psnr is not None:
        count = most_that_fit(count, planned)
    plan, spare = planned(count)
    # Fewer Gaussians, as a PSNR may turn out to take, begin on coarser levels.
    coarsest = plan.coarsest if config.psnr is None else planned(1)[0].coarsest
    return Allowance(count, limit, plan, spare, coarsest + 1, threads, planned)


def _plan_and_spare(
    meta: ImageMeta, config: FitConfig, memory_bytes: int, threads: int, count: int
) -> tuple[FitPlan, int]:
    """The plan of a fit, and how many bytes a copy of the image may take in memory throughout.

    Raises
    ------
    MemoryLimitError
        Fitting or sampling needs more than ``memory_bytes``.
    """
    about = (meta.size, meta.channels, meta.dtype.itemsize, count)
    plan = plan_fit(*about, config, memory_bytes=memory_bytes, workers=threads)
    sampling = footprint(*about, config.sampling, threads)
    require(sampling, memory_bytes, f"sampling {count} Gaussians")
    # Half of what is left: while its coarse levels are made, a copy takes twice its size.
    return plan, (memory_bytes - max(plan.footprint.total, sampling.total)) // 2
