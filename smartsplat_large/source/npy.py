"""NumPy's ``.npy`` files: ``(height, width)`` or ``(height, width, channels)``, rows contiguous."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from smartsplat_large.array_types import Pixels
from smartsplat_large.errors import SourceError
from smartsplat_large.lattice import Size, Window
from smartsplat_large.source.base import Closing, ImageMeta, require_supported, require_window
from smartsplat_large.source.ranged_file import RangedFile


class NpySource(Closing):
    """One array on disk; a window reads its own bytes and no others."""

    def __init__(self, path: Path, name: str) -> None:
        shape, stored, self._offset = _header(path, name)
        channels = shape[2] if len(shape) == 3 else 1
        dtype = require_supported(name, stored, channels)
        size = Size(shape[1], shape[0])
        self.meta = ImageMeta(
            name=name, format="npy", levels=(size,), dtype=dtype, channels=channels, tile=None, cheap_windows=True
        )
        self._stored = stored
        self._file = RangedFile(path, name)
        held = self._file.size_bytes - self._offset
        if held < self.meta.raw_bytes:
            self.close()
            raise SourceError(
                f"{name}: ends early: {self.meta.raw_bytes} bytes of pixels announced, {held} there",
                hint="the file was cut short; copy it again",
            )

    def close(self) -> None:
        self._file.close()

    def read(self, window: Window, level: int = 0) -> Pixels:
        require_window(self.meta, window, level)
        pixel_bytes = self.meta.channels * self._stored.itemsize
        stride = self.meta.size.width * pixel_bytes
        start = self._offset + window.y * stride + window.x * pixel_bytes
        rows = self._file.read_rows(start, stride, window.height, window.width * pixel_bytes)
        pixels = rows.view(self._stored).reshape(*window.shape, self.meta.channels)
        # Bytes read in one piece are not writable; the caller owns its pixels.
        return pixels.astype(self.meta.dtype, copy=not pixels.flags.writeable)


def _header(path: Path, name: str) -> tuple[tuple[int, ...], np.dtype[np.generic], int]:
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
            offset = file.tell()
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
    return shape, np.dtype(dtype), offset
