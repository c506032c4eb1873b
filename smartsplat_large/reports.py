"""What the commands report."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How good a file is, and what it costs. Ratios are raw bytes / bytes of the file on disk."""

    psnr: float | None
    """dB; None where the pictures are identical."""
    ssim: float | None
    """None where a side is below 11 pixels."""
    ms_ssim: float | None
    """None where a side is 160 pixels or less."""
    bytes: int
    raw_bytes: int
    ratio: float
    bpp: float
    """Bits per pixel."""
    gaussians: int
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FitReport(Evaluation):
    """The file that a fit wrote, measured by decoding it again."""

    output: str
    seconds: float
    peak_rss_bytes: int
    """Largest resident memory of this process."""
    steps: int
    preset: str
    seed: int


def peak_rss_bytes() -> int:
    """Largest resident memory so far of this process, in bytes: all of a fit's, unless it runs on a cluster elsewhere."""
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return _high_water_bytes() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _high_water_bytes() -> int:
    """Linux's own record, 0 elsewhere: ``ru_maxrss`` also counts the parent that started this process."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
