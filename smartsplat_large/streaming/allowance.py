"""What a fit may take: Gaussians, bytes of its file, and memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

from smartsplat_large.config import FitConfig
from smartsplat_large.memory import Footprint, program_on, require
from smartsplat_large.sampling.footprint import column_bytes, footprint
from smartsplat_large.source import ImageMeta, copying_bytes
from smartsplat_large.streaming.budget import gaussian_budget
from smartsplat_large.streaming.evaluate import scoring_bytes
from smartsplat_large.streaming.plan import FitPlan, in_use, phases, plan_fit
from smartsplat_large.streaming.quality import most_that_fit


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one fit is given, and its plan with that."""

    count: int
    """Gaussians; for a PSNR, the most that may be tried."""
    limit_bytes: int | None
    """Of the file; None: as many as it takes."""
    plan: FitPlan
    column_bytes: int | None
    """Memory that the columns of all Gaussians may take; what is more goes to files. None: all of them are there."""
    spare_bytes: int
    """Memory that a copy of the image may take throughout."""
    levels: int
    """Of the image that are looked at."""
    threads: int
    """Of this machine."""
    task_bytes: int
    """What a task takes at its peak, of whatever stage."""
    planned: Callable[[int], FitPlan]
    """The plan for another number of Gaussians; refuses one that memory does not hold."""


def allow(meta: ImageMeta, config: FitConfig, memory_bytes: int, threads: int, *, elsewhere: bool = False) -> Allowance:
    """What the settings and the memory leave to a fit of ``threads`` workers; ``elsewhere`` means those of a cluster.

    Raises
    ------
    UsageError
        The ratio leaves not one Gaussian, or is too small to be of use.
    MemoryLimitError
        One of the :func:`footprints` is more than ``memory_bytes``.
    """
    count, limit = gaussian_budget(meta, config)
    # A GPU holds the Gaussians itself, and a cluster's are sent around.
    with_files = not elsewhere and config.device != "cuda"
    planned = functools.partial(_planned, meta, config, memory_bytes, threads, with_files)
    if config.psnr is not None:
        count = most_that_fit(count, planned)
    plan = planned(count)
    left = memory_bytes - max(each.total for each in footprints(meta, config, plan, threads).values())
    columns, spare = parted(left, plan.column_bytes) if with_files else (None, left // 2)
    # Fewer Gaussians, as a PSNR may turn out to take, begin on coarser levels.
    coarsest = plan.coarsest if config.psnr is None else planned(1).coarsest
    task = max(plan.task_bytes, *passing(meta, plan, 1)) + source_bytes(meta, plan.coarsest)
    return Allowance(count, limit, plan, columns, spare, coarsest + 1, threads, task, planned)


def parted(left: int, columns: int) -> tuple[int, int]:
    """Of what a plan leaves of memory, the bytes for columns of all Gaussians, and for a copy of the image."""
    more = columns - in_use(columns)
    if left < more:
        return left, 0
    # Half of the rest: while its coarse levels are made, a copy takes twice its size.
    return columns, (left - more) // 2


def passing(meta: ImageMeta, plan: FitPlan, threads: int) -> tuple[int, int]:
    """Bytes that the tasks of a pass over the whole picture take: those of its working copy, and of its verification."""
    # No more than that is held to fit the integers of a file.
    scored = scoring_bytes(meta.size, meta.channels, meta.dtype.itemsize)
    return copying_bytes(meta, plan.coarsest + 1, threads), threads * scored


def source_bytes(meta: ImageMeta, coarsest: int) -> int:
    """What the image's file keeps of what it has decoded, where it is read itself: without a copy of so many levels."""
    return 0 if copying_bytes(meta, coarsest + 1, 1) else meta.kept_bytes


def footprints(meta: ImageMeta, config: FitConfig, plan: FitPlan, threads: int) -> dict[str, Footprint]:
    """Projected peaks of a fit, by what it does; all of them are to stay within its memory."""
    copying, judging = passing(meta, plan, threads)
    program, gaussians = program_on(config.device), plan.footprint.gaussians
    kept = source_bytes(meta, plan.coarsest)
    sampling = _sampling(meta, config, plan, threads)
    return {
        # A state that is resumed is read before.
        f"copying {meta.size} pixels": Footprint(
            program=program, gaussians=gaussians, working=copying, decoder=meta.held_bytes
        ),
        f"sampling {plan.gaussians} Gaussians": replace(sampling, working=sampling.working + kept),
        f"fitting {plan.gaussians} Gaussians to {meta.size} pixels": plan.footprint,
        # What held the Gaussians is not given back to the system at once.
        f"verifying {meta.size} pixels": Footprint(program=program, gaussians=gaussians, working=judging + kept),
    }


def _sampling(meta: ImageMeta, config: FitConfig, plan: FitPlan, threads: int) -> Footprint:
    held = column_bytes(plan.gaussians, meta.channels)
    return footprint(
        meta.size, meta.channels, meta.dtype.itemsize, plan.gaussians, config.sampling, threads,
        held_bytes=in_use(held) if plan.with_files else held,
    )  # fmt: skip


def _planned(
    meta: ImageMeta, config: FitConfig, memory_bytes: int, threads: int, with_files: bool, count: int
) -> FitPlan:
    """The plan of a fit.

    Raises
    ------
    MemoryLimitError
        One of the :func:`footprints` is more than ``memory_bytes``.
    """
    about = (meta.size, meta.channels, meta.dtype.itemsize, count)
    kept = source_bytes(meta, max(phase.level for phase in phases(meta.size, count, config)))
    plan = plan_fit(
        *about, config, memory_bytes=memory_bytes, workers=threads, with_files=with_files, source_bytes=kept
    )
    for what, each in footprints(meta, config, plan, threads).items():
        require(each, memory_bytes, what)
    return plan
