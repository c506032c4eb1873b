"""An image held in memory, with or without a pyramid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smartsplat_large.array_types import Pixels, WholePlanes
from smartsplat_large.downsampling import downsample
from smartsplat_large.errors import SourceError
from smartsplat_large.lattice import Size, Window
from smartsplat_large.pixels import to_whole_planes
from smartsplat_large.source.base import Closing, ImageMeta, require_supported, require_window, stored_levels


class ArraySource(Closing):
    """An in-memory pyramid.

    Parameters
    ----------
    pixels
        ``(h, w)`` or ``(h, w, c)``, uint8 or uint16; or a list of them, one a level, full size first.
    levels
        How many levels to have in all: those that are missing are made by 2 x 2 box means.

    Raises
    ------
    SourceError
        The arrays are no image, or not the levels of one.
    """

    def __init__(
        self,
        pixels: Pixels | Sequence[Pixels],
        *,
        name: str = "array",
        levels: int | None = None,
        icc_profile: bytes | None = None,
        pixels_per_cm: tuple[float, float] | None = None,
    ) -> None:
        given = [pixels] if isinstance(pixels, np.ndarray) else list(pixels)
        self._levels = [_as_pixels(array, name) for array in given]
        while levels is not None and len(self._levels) < levels:
            self._levels.append(downsample(self._levels[-1]))
        sizes = [Size(array.shape[1], array.shape[0]) for array in self._levels]
        if len(stored_levels(sizes)) < len(sizes) or len({(a.dtype, a.shape[2]) for a in self._levels}) > 1:
            raise SourceError(f"{name}: levels {', '.join(map(str, sizes))} do not shrink by two each, alike in type")
        self.meta = ImageMeta(
            name=name,
            format="array",
            levels=tuple(sizes),
            dtype=self._levels[0].dtype,
            channels=self._levels[0].shape[2],
            tile=None,
            cheap_windows=True,
            icc_profile=icc_profile,
            pixels_per_cm=pixels_per_cm,
        )

    def read(self, window: Window, level: int = 0) -> Pixels:
        return self._seen(window, level).copy()

    def planes(self, window: Window, level: int = 0) -> WholePlanes:
        return to_whole_planes(self._seen(window, level))

    def _seen(self, window: Window, level: int) -> Pixels:
        require_window(self.meta, window, level)
        return self._levels[level][window.slices(self.meta.levels[level].window)]


def _as_pixels(array: np.ndarray, name: str) -> Pixels:
    if array.ndim not in (2, 3) or array.size == 0:
        raise SourceError(f"{name}: an array of shape {array.shape} is no image", hint="give (height, width, channels)")
    pixels = array[:, :, None] if array.ndim == 2 else array
    return pixels.astype(require_supported(name, pixels.dtype, pixels.shape[2]), copy=False)
