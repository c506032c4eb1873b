"""Where a fit computes, if that is left to the program."""

from __future__ import annotations

from smartsplat_large import gpu
from smartsplat_large.config import Device, FitConfig
from smartsplat_large.lattice import Size
from smartsplat_large.streaming.plan import is_blocked

WORTH_A_START = 1_000_000_000
"""Pixels times steps from which on a GPU is taken: there, a fit on an H200 gained more than the seconds that CUDA and torch
take to start, beside 16 cores; see docs/performance.md."""


def device_for(size: Size, config: FitConfig, *, elsewhere: bool = False) -> Device:
    """``cpu`` or ``cuda``; ``elsewhere`` means workers of a cluster."""
    if config.device != "auto":
        return config.device
    # What has not been measured stays where it was: short fits, blocked mode, clusters, and GPUs for games.
    if elsewhere or size.pixels * config.steps < WORTH_A_START or is_blocked(size, 0, config):
        return "cpu"
    return "cuda" if gpu.is_ready() and gpu.is_for_computing() else "cpu"
