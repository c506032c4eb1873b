"""Any window of a file, at any zoom: :class:`SplatImage`, and what regions, levels and scales mean."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

import numpy as np

from smartsplat_large.array_types import Pixels
from smartsplat_large.codec import SplatFile
from smartsplat_large.config import Device
from smartsplat_large.errors import UsageError
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Size, Window
from smartsplat_large.render.choice import renderer_on
from smartsplat_large.render.cpu import CpuRenderer
from smartsplat_large.streaming.view import View, from_full_size

Region = Window | tuple[int, int, int, int]
"""``x, y, width, height`` in level-0 pixels."""


class SplatImage:
    """An open file, read like an array: ``picture.read(Window(x, y, w, h), level=2)``. Close it, or use ``with``."""

    def __init__(self, path: str | Path) -> None:
        self.file = SplatFile(path)
        self._renderer = CpuRenderer(self.file.header.background)

    @property
    def width(self) -> int:
        return self.file.header.size.width

    @property
    def height(self) -> int:
        return self.file.header.size.height

    def gaussians(self, region: Region | None = None) -> Gaussians:
        """All Gaussians that may show in a level-0 region (and some around it)."""
        return self.file.gaussians(None if region is None else Window(*_corner_and_size(region)))

    def read(self, region: Region | None = None, *, level: int | None = None, scale: float | None = None) -> Pixels:
        """The pixels of a level-0 region (by default all), ``(h, w, c)`` of uint8 or uint16, at any zoom."""
        view = View(self.file, self._renderer, pitch_of(level, scale))
        return view.read(output_window(view, region, str(self.file.path)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.read(), dtype)

    def close(self) -> None:
        self.file.close()

    def __enter__(self) -> SplatImage:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def view_of(file: SplatFile, pitch: float = 1.0, skip_damage: bool = False, device: Device = "cpu") -> View:
    """A file as its pictures are restored on this machine."""
    return View(file, renderer_on(device, file.header.background), pitch, skip_damage)


def pitch_of(level: int | None, scale: float | None) -> float:
    """Level-0 pixels per output pixel.

    Raises
    ------
    UsageError
        Both are given, or one of them is out of range.
    """
    if level is not None and scale is not None:
        raise UsageError("give a level or a scale, not both", hint="--level 2 is --scale 0.25")
    if level is not None:
        if not 0 <= level <= 30:
            raise UsageError(f"level {level} is out of range", hint="it takes 0 (full size) to 30")
        return 2.0**level
    if scale is not None:
        if not 1e-6 <= scale <= 1e4:
            raise UsageError(f"scale {scale:g} is out of range", hint="it takes 0.000001 to 10000")
        return 1 / scale
    return 1.0


def _corner_and_size(region: Region) -> tuple[int, int, int, int]:
    x, y, width, height = (region.x, region.y, region.width, region.height) if isinstance(region, Window) else region
    return operator.index(x), operator.index(y), operator.index(width), operator.index(height)


def output_window(view: View, given: Region | None, name: str) -> Window:
    """The pixels of ``view`` that show a level-0 region of the file called ``name``."""
    if given is None:
        return view.size.window
    return from_full_size(window_in(given, view.file.header.size, name), view.pitch, view.size)


def window_in(given: Region | None, size: Size, name: str) -> Window:
    """A region of a picture called ``name`` as a window; all of it where none is given.

    Raises
    ------
    UsageError
        It is empty, or not inside the picture.
    """
    if given is None:
        return size.window
    region = Window(*_corner_and_size(given))
    if region.is_empty or not size.window.contains(region):
        raise UsageError(
            f"{name}: region {region} is not inside the picture", hint=f"X,Y,W,H within 0,0,{size.width},{size.height}"
        )
    return region
