"""Pictures of any size for measurements: the bundled photograph laid out over and over, every second copy mirrored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from smartsplat_large.array_types import Index, Pixels
from smartsplat_large.lattice import Size
from smartsplat_large.sink import band_height, write_image
from smartsplat_large.source import open_source, read_window
from smartsplat_large.source.base import band_windows

PHOTOGRAPH = Path(__file__).parents[1] / "tests" / "data" / "flower.png"


def write_mosaic(path: Path, size: Size, *, overwrite: bool = False) -> None:
    """Write one of ``size`` in the format that the ending of ``path`` names, band by band."""
    write_image(path, size, 3, np.uint8, _bands(size, band_height(path)), overwrite=overwrite)


def _bands(size: Size, height: int) -> Iterator[Pixels]:
    with open_source(PHOTOGRAPH) as source:
        photograph = read_window(source, source.meta.size.window)
    columns = _mirrored(np.arange(size.width), photograph.shape[1])
    for band in band_windows(size, height):
        rows = _mirrored(np.arange(band.y, band.y_end), photograph.shape[0])
        yield photograph[rows[:, None], columns]


def _mirrored(index: Index, side: int) -> Index:
    """Where in ``side`` pixels each of any number of pixels comes from: forth, back, forth."""
    period = np.concatenate([np.arange(side), np.arange(side)[::-1]])
    places: Index = period[index % (2 * side)]
    return places
