"""Reading a window together with the pixels around it."""

from __future__ import annotations

import numpy as np

from smartsplat_large.array_types import PixelReader, Pixels
from smartsplat_large.lattice import Size, Window


def read_with_halo(read: PixelReader, window: Window, halo: int, size: Size) -> Pixels:
    """``window`` grown by ``halo`` on all sides, ``(height + 2 halo, width + 2 halo, c)``, C-contiguous.

    Beyond the border of the image the nearest pixel is repeated. Only pixels inside the image are read, once.
    """
    outer = window.expanded(halo)
    inside = outer.clipped(size)
    pixels = np.ascontiguousarray(read(inside))
    if inside == outer:
        return pixels
    rows = (inside.y - outer.y, outer.y_end - inside.y_end)
    columns = (inside.x - outer.x, outer.x_end - inside.x_end)
    return np.pad(pixels, (rows, columns, (0, 0)), mode="edge")
