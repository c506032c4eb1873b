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


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One file of one codec, and what the picture it restores is worth."""

    bytes: int
    ratio: float
    bpp: float
    psnr: float | None
    ssim: float | None
    ms_ssim: float | None
    encode_s: float
    """Of the one encoding, without the search for its quality; of ours, the whole fit."""
    decode_s: float
    setting: str
    """The quality that the search found; of ours, the number of Gaussians."""
    factor: int = 1
    """By how much the picture was shrunk before it was encoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """One codec at one ratio."""

    codec: str
    wanted_ratio: float
    budget_bytes: int
    direct: Measured | None
    """None where the codec cannot go that low."""
    reduced: Measured | None = None
    """Only then: the best of a smaller copy, encoded and enlarged again."""

    @property
    def best(self) -> Measured | None:
        """What the codec is left with."""
        return self.direct or self.reduced


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A picture through all codecs at equal bytes."""

    image: str
    width: int
    height: int
    channels: int
    raw_bytes: int
    preset: str
    steps: int
    seed: int
    codecs: dict[str, dict[str, str]]
    """Name to title and settings; ours first."""
    results: list[Contest]
    bd_rate: dict[str, dict[str, float | None]]
    """Name to percent of bytes against JPEG at equal ``psnr`` and ``ms_ssim``; None where the curves share no range."""
    output: str | None
    """The page that was written."""

    def of(self, codec: str) -> list[Contest]:
        """The results of one codec, by rising ratio."""
        return [contest for contest in self.results if contest.codec == codec]


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
