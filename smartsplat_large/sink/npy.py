"""NumPy's ``.npy``: a header, then the rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from smartsplat_large.array_types import Pixels
from smartsplat_large.sink.base import OutputSpec

BAND = 256


def write(path: Path, spec: OutputSpec, bands: Iterator[Pixels]) -> None:
    """An array of shape ``(h, w)`` for one channel, else ``(h, w, c)``."""
    shape = (spec.size.height, spec.size.width, spec.channels)
    header = {
        "descr": np.lib.format.dtype_to_descr(spec.dtype),
        "fortran_order": False,
        "shape": shape[:2] if spec.channels == 1 else shape,
    }
    with path.open("xb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for band in bands:
            file.write(band.data)
