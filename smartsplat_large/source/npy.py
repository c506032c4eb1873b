"""NumPy's ``.npy`` files: ``(height, width)`` or ``(height, width, channels)``, rows contiguous."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from smartsplat_large.errors import SourceError
from smartsplat_large.lattice import Size
from smartsplat_large.source.raw import RawLayout


def npy_header(file: BinaryIO, name: str) -> RawLayout:
    """Read the header.

    Raises
    ------
    SourceError
        It is damaged, or that of no image whose rows are contiguous.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (OSError, ValueError, EOFError) as error:
        raise SourceError(f"{name}: not a readable .npy file: {error}", hint="write it with numpy.save") from error
    if len(shape) not in (2, 3) or 0 in shape:
        raise SourceError(
            f"{name}: an array of shape {shape} is no image",
            hint="save an array of shape (height, width) or (height, width, channels)",
        )
    if fortran and max(shape) < np.prod(shape):
        raise SourceError(
            f"{name}: stored in column order, so no row can be read by itself",
            hint="save numpy.ascontiguousarray(array)",
        )
    channels = shape[2] if len(shape) == 3 else 1
    return RawLayout(format="npy", size=Size(shape[1], shape[0]), channels=channels, stored=np.dtype(dtype))
