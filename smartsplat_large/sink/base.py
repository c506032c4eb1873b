"""What every writer is told, and how a stream of bands is cut to the height it wants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from smartsplat_large.array_types import Pixels
from smartsplat_large.lattice import Size


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSpec:
    """An image before its first pixel is there."""

    size: Size
    channels: int
    dtype: np.dtype[Any]
    icc_profile: bytes | None = None
    pixels_per_cm: tuple[float, float] | None = None
    workers: int = 1
    """Threads that may compress, where the format knows how to use several."""

    @property
    def raw_bytes(self) -> int:
        return self.size.pixels * self.channels * self.dtype.itemsize


def rebanded(bands: Iterable[Pixels], spec: OutputSpec, height: int) -> Iterator[Pixels]:
    """The same rows as contiguous full-width bands of ``height`` rows, the last one shorter.

    A contiguous band of that height is passed on as it is: it must not be written to any more.

    Raises
    ------
    ValueError
        A band is not of the image's width, channels or type, or there are too few or too many rows.
    """
    held, filled, rows = np.empty((0, spec.size.width, spec.channels), spec.dtype), 0, 0
    for band in bands:
        if band.shape[1:] != held.shape[1:] or band.dtype != spec.dtype:
            raise ValueError(
                f"a band of {band.shape} {band.dtype} for an image of {spec.size}x{spec.channels} {spec.dtype}"
            )
        rows += len(band)
        if not filled and len(band) == height:
            yield np.ascontiguousarray(band)
            continue
        while len(band):
            if not filled:
                held = np.empty((height, *band.shape[1:]), band.dtype)
            taken = min(height - filled, len(band))
            held[filled : filled + taken] = band[:taken]
            filled, band = filled + taken, band[taken:]
            if filled == height:
                yield held
                filled = 0
    if rows != spec.size.height:
        raise ValueError(f"{rows} rows for an image of {spec.size}")
    if filled:
        yield held[:filled]
