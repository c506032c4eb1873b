"""Which writer makes a path: decided by its extension, checked before any work starts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smartsplat_large.array_types import Pixels
from smartsplat_large.atomic_output import check_destination, part_file, part_folder
from smartsplat_large.errors import DiskFullError, UsageError
from smartsplat_large.lattice import Size
from smartsplat_large.sink import npy, ome_zarr, tiff, vips
from smartsplat_large.sink.base import OutputSpec, rebanded

Write = Callable[[Path, OutputSpec, Iterator[Pixels]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Format:
    write: Write
    height: Callable[[OutputSpec], int]
    """Rows of a band as the writer takes them."""
    largest_side: int
    channels: tuple[int, ...] = (1, 2, 3, 4)
    deep: bool = True
    """Whether 16 bits a channel can be stored."""
    folder: bool = False
    exact: bool = False
    """Whether the file takes just the bytes of its pixels, so that room for it can be checked."""


_TIFF = _Format(write=tiff.write, height=lambda _: tiff.TILE, largest_side=2**31 - 1)
_OME_TIFF = _Format(write=tiff.write_ome, height=lambda _: tiff.TILE, largest_side=2**31 - 1)
_PNG = _Format(write=vips.write_png, height=lambda _: vips.BAND, largest_side=vips.LARGEST_PNG_SIDE)
_JPEG = _Format(
    write=vips.write_jpeg,
    height=lambda _: vips.BAND,
    largest_side=vips.LARGEST_JPEG_SIDE,
    channels=(1, 3),
    deep=False,
)
_FORMATS: dict[str, _Format] = {
    ".ome.tif": _OME_TIFF,
    ".ome.tiff": _OME_TIFF,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".zarr": _Format(write=ome_zarr.write, height=lambda _: ome_zarr.BAND, largest_side=2**40, folder=True),
    ".png": _PNG,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".npy": _Format(write=npy.write, height=lambda _: npy.BAND, largest_side=2**40, exact=True),
}


def band_height(path: str | Path) -> int:
    """Rows of a band that suits the format of ``path``; :func:`write_image` takes any, these without copying twice.

    Raises
    ------
    UsageError
        No format has this extension.
    """
    return _format(Path(path)).height(_ONE_PIXEL)


def check_output(path: str | Path, size: Size, channels: int, dtype: Any, overwrite: bool = False) -> None:
    """Do nothing if an image of this kind can be written there: call it before the work that makes the pixels.

    Raises
    ------
    UsageError
        The extension is unknown, or its format cannot hold such an image, or the folder is missing or not writable.
    OutputExistsError
        It exists without leave to replace it, or is a folder that is no zarr image.
    DiskFullError
        The disk has too little room, where the bytes can be told beforehand.
    """
    path = Path(path)
    kind, depth = _format(path), np.dtype(dtype)
    check_destination(path, overwrite=overwrite, folder=kind.folder)
    if max(size.width, size.height) > kind.largest_side:
        raise UsageError(
            f"{path}: {size} pixels; {_extension(path)} holds at most {kind.largest_side} a side",
            hint="write .tif or .zarr",
        )
    if channels not in kind.channels:
        raise UsageError(
            f"{path}: {_extension(path)} cannot hold {channels} channels", hint="write .png, .tif or .zarr"
        )
    if depth not in (np.dtype(np.uint8), np.dtype(np.uint16)) or (depth.itemsize == 2 and not kind.deep):
        raise UsageError(f"{path}: {_extension(path)} cannot hold {depth} pixels", hint="write .png, .tif or .zarr")
    needed = size.pixels * channels * depth.itemsize
    if kind.exact and (free := shutil.disk_usage(path.parent).free) < needed:
        raise DiskFullError(
            f"{path}: {needed / 1e6:.0f} MB to write, {free / 1e6:.0f} MB left on the disk",
            hint="make room, or write .tif, which compresses",
        )


def write_image(
    path: str | Path,
    size: Size,
    channels: int,
    dtype: Any,
    bands: Iterable[Pixels],
    *,
    icc_profile: bytes | None = None,
    pixels_per_cm: tuple[float, float] | None = None,
    overwrite: bool = False,
    workers: int = 1,
) -> None:
    """Write full-width bands, in order from the top, to ``path`` in the format its extension names.

    The bands may have any heights, best :func:`band_height`; they are taken on the caller's thread, one at a time, and must
    not be written to any more.
    ``path`` appears when it is whole; after any failure or interrupt, also one of ``bands``, it is as it was before.
    TIFF and zarr are compressed by up to ``workers`` threads.

    Raises
    ------
    UsageError, OutputExistsError
        As :func:`check_output`.
    DiskFullError
        The disk ran full.
    ValueError
        The bands do not make up the image.
    """
    path = Path(path)
    check_output(path, size, channels, dtype, overwrite)
    kind = _format(path)
    spec = OutputSpec(
        size=size, channels=channels, dtype=np.dtype(dtype), icc_profile=icc_profile, pixels_per_cm=pixels_per_cm,
        workers=workers,
    )  # fmt: skip
    with (part_folder if kind.folder else part_file)(path, overwrite=overwrite) as part:
        kind.write(part, spec, rebanded(bands, spec, kind.height(spec)))


_ONE_PIXEL = OutputSpec(size=Size(1, 1), channels=1, dtype=np.dtype(np.uint8))


def _extension(path: Path) -> str:
    """The longest known extension of a name, in lower case, or what stands after its last dot."""
    name = path.name.lower()
    return next((known for known in _FORMATS if name.endswith(known)), path.suffix.lower())


def _format(path: Path) -> _Format:
    try:
        return _FORMATS[_extension(path)]
    except KeyError:
        what = _extension(path) or "no extension"
        raise UsageError(f"{path}: no output format for {what}", hint=f"one of {', '.join(_FORMATS)}") from None
