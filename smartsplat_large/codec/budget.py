"""Search for the fineness that fills a number of bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from smartsplat_large import columns
from smartsplat_large.codec.estimate import Estimate
from smartsplat_large.codec.layout import Layout
from smartsplat_large.codec.quantize import STEPS_PER_OCTAVE, FloatColumn, SymbolTable, fineness_to_index
from smartsplat_large.codec.writer import (
    Encoded,
    Extras,
    importance_of,
    mean_spacing,
    only,
    pack,
    quantized,
    require_encodable,
    visible_index,
)
from smartsplat_large.errors import UsageError
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Size
from smartsplat_large.ordering import least

COARSEST, FINEST = 0.25, 256.0
"""Fineness limits. Coarser than 1/4 (noise of 28 dB), fewer Gaussians are the better bargain."""
EXTRAS_SHARE = 0.04
"""Resolution, profile and metadata may take this much of a budget together; what goes beyond is left out, the last first."""
FULL = 0.997
"""Share of a budget that is not worth filling further."""
FILLED = 0.9985
"""Share aimed at where single Gaussians are left out."""
ACCEPTED, GUESSED, AIM, LEAST = 0.985, 0.992, 0.994, 0.97
"""Shares of the budget: good enough to stop searching, aimed at by an estimate and by files known, and promised unless the
finest steps need less."""
BIT_SHARE = 0.9
"""Of a bit, what twice the step takes from each number: some are 0 already."""
MAX_ATTEMPTS = 14
MAX_TRIMS = 8
MAX_GUESSES, NEAR = 4, 4
"""Estimates made at most before the first file, and how few indices from one to its successor end them."""


def encode_to_budget(
    gaussians: Gaussians,
    *,
    size: Size,
    bits: int,
    budget_bytes: int,
    importance: FloatColumn | None = None,
    metadata: dict[str, Any] | None = None,
    icc_profile: bytes | None = None,
    pixels_per_cm: tuple[float, float] | None = None,
    background: tuple[int, ...] = (),
) -> Encoded:
    """Encode as finely as ``budget_bytes`` allow: at most that many bytes, and at least 97 % of them if need be.

    Where even coarse steps are too large, the Gaussians of least ``importance`` (default: their energy) are left out.
    Where the finest steps take less than 97 %, ``under_budget`` is set. Parameters as for :func:`encode`.

    Raises
    ------
    UsageError
        Not one Gaussian fits.
    ValueError
        As for :func:`encode`.
    """
    extras = Extras(
        metadata=metadata or {}, icc_profile=icc_profile, pixels_per_cm=pixels_per_cm, background=background
    )
    require_encodable(gaussians, bits)
    if importance is not None and not np.isfinite(importance).all():
        raise ValueError("the importance of a Gaussian is not finite")
    extras, dropped = affordable(extras, budget_bytes)
    index = visible_index(gaussians, size)
    while True:
        search = _Search(only(gaussians, index), size, bits, budget_bytes, extras)
        best = search.run()
        if best is not None:
            under = best.size_bytes < LEAST * budget_bytes
            return replace(best, kept=columns.taken(index, best.kept), under_budget=under, dropped_extras=dropped)
        if len(index) == 1:
            raise UsageError(
                f"a file of {budget_bytes} bytes holds not one Gaussian; the smallest takes {search.smallest_bytes}",
                hint="a lower ratio",
            )
        count = max(1, min(len(index) - 1, int(len(index) * AIM * budget_bytes / search.smallest_bytes)))
        weight = importance_of(gaussians) if importance is None else np.asarray(importance, np.float64)
        negative = columns.taken(weight, index)
        negative *= -1
        index = columns.taken(index, least(negative, count))


def trimmed(
    symbols: SymbolTable, layout: Layout, bits: int, step_index: int, extras: Extras, over: Encoded, budget_bytes: int
) -> Encoded | None:
    """The file of as many of ``symbols`` as a budget holds, the faintest left out; None where none of those tried fits.

    ``over`` is the file of them all, which is somewhat too large. A step of the amplitude moves a file by 0.4 %, a Gaussian
    by some bytes.
    """
    faintness = columns.empty(len(symbols), np.int64)
    for rows in columns.chunks(len(symbols)):
        faintness[rows] = -np.square(symbols.color[rows], dtype=np.int64).sum(axis=1)
    low, high = 0, len(over.kept)
    count, size_bytes, each = high, over.size_bytes, 0.8 * over.size_bytes / high
    best = None
    for _ in range(MAX_TRIMS):
        following = min(max(count - round((size_bytes - FILLED * budget_bytes) / each), low + 1), high - 1)
        if low + 1 >= high:
            break
        chosen = least(faintness, following)
        encoded = pack(symbols.chosen(chosen), layout, bits, step_index, extras, start=over.models)
        if following != count and encoded.size_bytes != size_bytes:
            each = min(max((encoded.size_bytes - size_bytes) / (following - count), each / 3), 3 * each)
        count, size_bytes = following, encoded.size_bytes
        if size_bytes > budget_bytes:
            high = count
            continue
        low = count
        if best is None or size_bytes > best.size_bytes:
            best = replace(encoded, kept=columns.taken(chosen, encoded.kept))
        if size_bytes >= FULL * budget_bytes:
            break
    return best


def affordable(extras: Extras, budget_bytes: int) -> tuple[Extras, tuple[str, ...]]:
    """What a budget can carry beside the Gaussians, and the names of what it cannot."""
    kept, dropped = Extras(background=extras.background), []
    wanted = (
        ("resolution", {"pixels_per_cm": extras.pixels_per_cm}),
        ("colour profile", {"icc_profile": extras.icc_profile}),
        ("provenance", {"metadata": extras.metadata}),
    )
    for name, part in wanted:
        more = replace(kept, **part)
        if more.size_bytes <= EXTRAS_SHARE * budget_bytes:
            kept = more
        elif any(part.values()):
            dropped.append(name)
    return kept, tuple(dropped)


class _Search:
    """Finds the smallest amplitude step whose file fits. Sizes fall with the step, almost linearly in its logarithm."""

    def __init__(self, gaussians: Gaussians, size: Size, bits: int, budget_bytes: int, extras: Extras) -> None:
        self._gaussians, self._size, self._bits, self._extras = gaussians, size, bits, extras
        self._budget = budget_bytes
        spacing = mean_spacing(size, len(gaussians))
        self._low, self._high = fineness_to_index(FINEST, spacing), fineness_to_index(COARSEST, spacing)
        self._start = fineness_to_index(1.0, spacing)
        # A step twice as large takes most of a bit from each of a Gaussian's numbers.
        self._slope = -BIT_SHARE * len(gaussians) * (gaussians.channels + 5) / 8 / STEPS_PER_OCTAVE
        self._best: Encoded | None = None
        self._tried: dict[int, int] = {}
        self.smallest_bytes = 0

    def run(self) -> Encoded | None:
        """The best file that fits, or None where the coarsest does not."""
        at = self._guess()
        for _ in range(MAX_ATTEMPTS):
            size_bytes = self._attempt(at)
            if ACCEPTED * self._budget <= size_bytes <= self._budget:
                break
            following = self._next(at)
            if following in self._tried:
                break
            at = following
        if self._best is None and self._high not in self._tried:
            self._attempt(self._high)
        return self._best

    def _attempt(self, at: int) -> int:
        warm = self._best.models if self._best else None
        encoded = pack(*quantized(self._gaussians, self._size, at), self._bits, at, self._extras, start=warm)
        self._tried[at] = encoded.size_bytes
        self.smallest_bytes = min(self._tried.values())
        fits = encoded.size_bytes <= self._budget
        if fits and (self._best is None or encoded.size_bytes > self._best.size_bytes):
            self._best = encoded
        return encoded.size_bytes

    def _next(self, at: int) -> int:
        """Where the line through what is known crosses the aim, within what is still open."""
        fitting = [i for i, found in self._tried.items() if found <= self._budget]
        failing = [i for i, found in self._tried.items() if found > self._budget]
        low = max(failing, default=self._low - 1) + 1
        high = min(fitting, default=self._high + 1) - 1
        if low > high:
            return at
        slope = self._slope
        if fitting and failing:
            left, right = max(failing), min(fitting)
            if left < right and self._tried[right] < self._tried[left]:
                slope = (self._tried[right] - self._tried[left]) / (right - left)
        wanted = at + (AIM * self._budget - self._tried[at]) / slope
        return min(max(round(wanted), low), high)

    def _guess(self) -> int:
        """The step whose file is estimated to have the size aimed at."""
        estimate, at = Estimate(self._gaussians, self._size), self._start
        for _ in range(MAX_GUESSES):
            excess = estimate(at) + self._extras.size_bytes - GUESSED * self._budget
            before, at = at, min(max(round(at - excess / self._slope), self._low), self._high)
            if abs(at - before) <= NEAR:
                break
        return at
