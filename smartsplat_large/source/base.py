"""What every image source can do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from smartsplat_large.array_types import Pixels
from smartsplat_large.lattice import Size, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageMeta:
    """What is known of an image before a pixel is read."""

    name: str
    """The path as the user gave it, for messages."""
    format: str
    """For example ``tiff``, ``ome-zarr``, ``png``."""
    levels: tuple[Size, ...]
    """Sizes of the stored pyramid, full size first; at least one."""
    dtype: np.dtype[np.generic]
    """``uint8`` or ``uint16``."""
    channels: int
    """1 grey, 2 grey + alpha, 3 RGB, 4 RGBA (or four channels of any meaning)."""
    tile: tuple[int, int] | None
    """Stored chunk ``(height, width)``, or None where rows are contiguous."""
    cheap_windows: bool
    """Whether a window costs about its own pixels: False for a source that must be decoded from its start."""
    icc_profile: bytes | None = None
    pixels_per_cm: tuple[float, float] | None = None
    """Resolution (x, y)."""

    @property
    def size(self) -> Size:
        return self.levels[0]

    @property
    def raw_bytes(self) -> int:
        """Bytes of the uncompressed pixels: the numerator of every compression ratio."""
        return self.size.pixels * self.channels * self.dtype.itemsize


class ImageSource(Protocol):
    """An open image. Safe to read from several threads; picklable, so that it can travel to a worker."""

    @property
    def meta(self) -> ImageMeta: ...

    def read(self, window: Window, level: int = 0) -> Pixels:
        """Read one window of one stored level.

        Returns
        -------
        Pixels
            ``(window.height, window.width, channels)`` of ``meta.dtype``, owned by the caller.

        Raises
        ------
        ValueError
            The window is empty or not inside the level, or there is no such level.
        SourceError
            The bytes cannot be read or decoded.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
