"""Which source reads a path: decided by what the file holds, not by what it is called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from smartsplat_large.atomic_output import is_zarr_folder
from smartsplat_large.errors import SourceError
from smartsplat_large.source.base import ImageSource
from smartsplat_large.source.npy import NpySource
from smartsplat_large.source.streamed import StreamedSource
from smartsplat_large.source.tiff import TiffSource
from smartsplat_large.source.zarr import ZarrSource

_SUPPORTED = "TIFF, OME-TIFF, SVS, zarr, OME-Zarr, npy, PNG, JPEG and WebP are supported"
_MAGIC: dict[bytes, Callable[[Path, str], ImageSource]] = {
    b"II*\0": TiffSource,
    b"MM\0*": TiffSource,
    b"II+\0": TiffSource,
    b"MM\0+": TiffSource,
    b"\x93NUMPY": NpySource,
    b"\x89PNG\r\n\x1a\n": lambda path, name: StreamedSource(path, name, "png"),
    b"\xff\xd8\xff": lambda path, name: StreamedSource(path, name, "jpeg"),
}
_SPLAT = b"SSPL"
_FOREIGN = {
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"PK\3\4": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"%PDF": "a PDF",
    b"8BPS": "a Photoshop file",
    b"\xff\x0a": "a JPEG XL",
    b"\0\0\0\x0cJXL ": "a JPEG XL",
    b"\0\0\0\x0cjP  ": "a JPEG 2000",
    b"\x89HDF": "an HDF5 file",
    b"<svg": "an SVG",
}


def open_source(path: str | Path) -> ImageSource:
    """Open an image file or a zarr folder by its content.

    Raises
    ------
    SourceError
        It is missing, empty, not readable, damaged, or of a kind that is not supported.
    """
    name, path = str(path), Path(path)
    try:
        if path.is_dir():
            return _open_folder(path, name)
        if path.exists() and not path.is_file():
            raise SourceError(f"{name}: is a device or a pipe", hint="save it as a file, to be read at any offset")
        with path.open("rb") as file:
            head = file.read(16)
    except FileNotFoundError as error:
        raise SourceError(f"{name}: no such file", hint="check the path") from error
    except OSError as error:
        raise SourceError(f"{name}: {error.strerror}", hint="give an image file that this user may read") from error
    if not head:
        raise SourceError(f"{name}: the file is empty", hint="copy or download it again")
    return _opener(head, name)(path, name)


def _open_folder(path: Path, name: str) -> ImageSource:
    if not is_zarr_folder(path):
        raise SourceError(f"{name}: is a folder, and not a zarr image", hint="give an image file or a zarr folder")
    return ZarrSource(path, name)


def _opener(head: bytes, name: str) -> Callable[[Path, str], ImageSource]:
    for magic, opener in _MAGIC.items():
        if head.startswith(magic):
            return opener
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return lambda path, name: StreamedSource(path, name, "webp")
    if head.startswith(_SPLAT):
        raise SourceError(f"{name}: is a .ssplat file, not an image", hint="decode makes an image of it")
    kind = next((kind for magic, kind in _FOREIGN.items() if head.startswith(magic)), None)
    if head[4:8] == b"ftyp":
        kind = "a HEIF, AVIF or video file"
    raise SourceError(f"{name}: {f'is {kind}' if kind else 'not an image we know'}", hint=_SUPPORTED)
