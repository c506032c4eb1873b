"""PNG, JPEG and WebP through libvips, decoded from the top as far as wanted, not held whole where the format allows.

An image is shown upright, as its EXIF orientation says. Baseline JPEG and plain PNG stream in a few dozen rows. What
cannot stream is held by the decoder: an interlaced PNG and a WebP as pixels, a progressive JPEG as coefficients (two
bytes a sample); an image that must be turned is unpacked by libvips, above 100 MB into a temporary file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from smartsplat_large.array_types import Pixels
from smartsplat_large.errors import SourceError
from smartsplat_large.lattice import Size, Window
from smartsplat_large.native_threads import pyvips
from smartsplat_large.source.base import Closing, ImageMeta, band_windows, require_supported, require_window

_DTYPES = {"uchar": np.uint8, "ushort": np.uint16}
_SPACES = ("b-w", "grey16", "srgb", "rgb", "rgb16")
_FETCH_ROWS = 256


class StreamedSource(Closing):
    """A file that is decoded from its start for every window; ``bands`` reads it once."""

    def __init__(self, path: Path, name: str, kind: str) -> None:
        self._path, self._name, self._kind = path, name, kind
        image = self._open()
        space = str(image.interpretation)
        if space not in _SPACES:
            raise SourceError(f"{name}: colours in {space} are not supported", hint="convert it to sRGB first")
        size = Size(image.width, image.height)
        self.meta = ImageMeta(
            name=name,
            format=kind,
            levels=(size,),
            dtype=require_supported(name, _DTYPES.get(str(image.format), np.float32), image.bands),
            channels=image.bands,
            tile=None,
            cheap_windows=False,
            icc_profile=_field(image, "icc-profile-data"),
            pixels_per_cm=_resolution(image),
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (StreamedSource, (self._path, self._name, self._kind))

    def read(self, window: Window, level: int = 0) -> Pixels:
        require_window(self.meta, window, level)
        out = np.empty((*window.shape, self.meta.channels), self.meta.dtype)
        for strip, pixels in self._strips(window, _FETCH_ROWS):
            out[strip.slices(window)] = pixels
        return out

    def bands(self, height: int) -> Iterator[tuple[Window, Pixels]]:
        """The whole image, decoded once, as full-width strips of ``height`` rows from the top."""
        return self._strips(self.meta.size.window, height)

    def _strips(self, window: Window, height: int) -> Iterator[tuple[Window, Pixels]]:
        vips = pyvips()
        region = vips.Region.new(self._open())
        for rows in band_windows(Size(window.width, window.height), height):
            strip = Window(window.x, window.y + rows.y, rows.width, rows.height)
            try:
                data = region.fetch(strip.x, strip.y, strip.width, strip.height)
            except vips.Error as error:
                raise self._unreadable(error) from error
            values = np.frombuffer(data, self.meta.dtype)
            yield strip, values.reshape(*strip.shape, self.meta.channels).copy()

    def _open(self) -> Any:
        vips = pyvips()
        loader = getattr(vips.Image, f"{self._kind}load")
        try:
            image = loader(str(self._path), access="sequential", fail_on="truncated")
            if _field(image, "orientation") in range(2, 9):
                image = loader(str(self._path), access="random", fail_on="truncated").autorot()
        except vips.Error as error:
            raise self._unreadable(error) from error
        return image

    def _unreadable(self, error: Exception) -> SourceError:
        said = " ".join(str(error).split())
        return SourceError(f"{self._name}: cannot be decoded: {said}", hint="it is damaged or cut short; copy it again")


def _field(image: Any, name: str) -> Any:
    return image.get(name) if image.get_typeof(name) else None


def _resolution(image: Any) -> tuple[float, float] | None:
    # libvips counts in pixels per millimetre, and where a file says nothing it says 1, or 72 to the inch.
    if any(math.isclose(image.xres, nothing, rel_tol=1e-3) and image.xres == image.yres for nothing in (1, 72 / 25.4)):
        return None
    return (image.xres * 10, image.yres * 10)
