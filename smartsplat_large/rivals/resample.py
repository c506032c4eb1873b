"""Smaller pictures and back: what a codec that cannot go low enough is left with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyvips

from smartsplat_large.array_types import Pixels
from smartsplat_large.lattice import Size

_KERNEL = "lanczos3"


def shrunk(pixels: Pixels, factor: int) -> Pixels:
    """Both sides divided by ``factor``, rounded up; by Lanczos' filter, without aliasing."""
    size = Size(-(-pixels.shape[1] // factor), -(-pixels.shape[0] // factor))
    return resized(pixels, size)


def resized(pixels: Pixels, size: Size) -> Pixels:
    """``(h, w, c)`` of uint8 at another size, edge to edge, by Lanczos' filter."""
    height, width, bands = pixels.shape
    image = pyvips.Image.new_from_memory(np.ascontiguousarray(pixels).data, width, height, bands, "uchar")
    out: Any = image.resize(size.width / width, vscale=size.height / height, kernel=_KERNEL)
    array = np.frombuffer(out.write_to_memory(), np.uint8).reshape(out.height, out.width, bands)
    if array.shape[:2] != (size.height, size.width):
        raise AssertionError(f"libvips made {out.width} x {out.height} where {size} was asked for")
    return array
