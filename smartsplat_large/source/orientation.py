"""The eight orientations of TIFF and EXIF: which stored pixels an upright window shows, and how to turn them."""

from __future__ import annotations

import numpy as np

from smartsplat_large.array_types import Pixels
from smartsplat_large.lattice import Size, Window

# Orientation: (rows become columns, stored x runs backwards, stored y runs backwards).
_TURNS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def upright_size(stored: Size, orientation: int) -> Size:
    """The size a viewer shows."""
    return Size(stored.height, stored.width) if _TURNS[orientation][0] else stored


def stored_window(window: Window, stored: Size, orientation: int) -> Window:
    """The stored pixels that the upright ``window`` shows."""
    transposed, x_back, y_back = _TURNS[orientation]
    x, y, width, height = window.x, window.y, window.width, window.height
    if transposed:
        x, y, width, height = y, x, height, width
    x = stored.width - x - width if x_back else x
    y = stored.height - y - height if y_back else y
    return Window(x, y, width, height)


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Stored pixels as a viewer shows them."""
    transposed, x_back, y_back = _TURNS[orientation]
    pixels = pixels[:: -1 if y_back else 1, :: -1 if x_back else 1]
    if transposed:
        pixels = pixels.transpose(1, 0, 2)
    return np.ascontiguousarray(pixels)
