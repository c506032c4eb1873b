"""Where a fit computes: refused if it is not here, chosen if that is left to the program."""

from __future__ import annotations

from smartsplat_large import gpu
from smartsplat_large.config import Device, FitConfig
from smartsplat_large.errors import MemoryLimitError, UsageError
from smartsplat_large.lattice import Size
from smartsplat_large.source import ImageMeta
from smartsplat_large.streaming.allowance import Allowance, allow
from smartsplat_large.streaming.plan import is_blocked

WORTH_A_START = 1_000_000_000
"""Pixels times steps from which on a GPU is taken: there, a fit on an H200 gained more than the seconds that CUDA and torch
take to start, beside 16 cores; see docs/performance.md."""


def require_device(config: FitConfig, *, elsewhere: bool = False) -> None:
    """Do nothing if the device that the settings name is here; ``elsewhere`` means workers of a cluster.

    Raises
    ------
    UsageError
        A cluster's workers are to do what a GPU of this machine should.
    MissingDependencyError
        There is no GPU here, or nothing to use it with.
    """
    if config.device == "cuda":
        if elsewhere:
            raise UsageError("a cluster's workers fit on their processors", hint="--device cpu, or no --scheduler")
        gpu.require()


def allow_on_device(
    meta: ImageMeta, config: FitConfig, memory_bytes: int, threads: int, *, elsewhere: bool = False
) -> tuple[FitConfig, Allowance]:
    """The settings with a device that is here, and what memory leaves to them there; raises what :func:`.allow` does."""
    chosen = config.replace(device=device_for(meta.size, config, elsewhere=elsewhere))
    try:
        return chosen, allow(meta, chosen, memory_bytes, threads, elsewhere=elsewhere)
    except MemoryLimitError:
        if config.device != "auto" or chosen.device == "cpu":
            raise
        # Without the GPU's libraries there is more room.
        chosen = config.replace(device="cpu")
        return chosen, allow(meta, chosen, memory_bytes, threads, elsewhere=elsewhere)


def device_for(size: Size, config: FitConfig, *, elsewhere: bool = False) -> Device:
    """``cpu`` or ``cuda``; ``elsewhere`` means workers of a cluster."""
    if config.device != "auto":
        return config.device
    # What has not been measured stays where it was: short fits, blocked mode, clusters, and GPUs for games.
    if elsewhere or size.pixels * config.steps < WORTH_A_START or is_blocked(size, 0, config):
        return "cpu"
    return "cuda" if gpu.is_ready() and gpu.is_for_computing() else "cpu"
