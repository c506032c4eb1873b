"""Which source reads a path or an address: decided by what the file holds, not by what it is called."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from smartsplat_large.atomic_output import is_zarr_folder
from smartsplat_large.errors import SourceError
from smartsplat_large.places import Place, is_url, joined, shown
from smartsplat_large.remote import RemoteFile, has_answered
from smartsplat_large.remote_zarr import MARKERS
from smartsplat_large.source.base import ImageSource
from smartsplat_large.source.netpbm import netpbm_header
from smartsplat_large.source.npy import npy_header
from smartsplat_large.source.piped import PipeStream, is_pipe, pipe_name
from smartsplat_large.source.raw import RawSource, piped_rows
from smartsplat_large.source.streamed import StreamedSource, piped_image
from smartsplat_large.source.tiff import TiffSource
from smartsplat_large.source.zarr import ZarrSource

_SUPPORTED = "TIFF, OME-TIFF, SVS, zarr, OME-Zarr, npy, PNG, JPEG, WebP, PPM and PGM are supported"
_PIPED = "PNG, JPEG, WebP, npy, PPM and PGM come through a pipe; save others as a file"
_MAGIC = {
    b"II*\0": "tiff",
    b"MM\0*": "tiff",
    b"II+\0": "tiff",
    b"MM\0+": "tiff",
    b"\x93NUMPY": "npy",
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
}
_FROM_FILE: dict[str, Callable[[Place, str], ImageSource]] = {
    "tiff": TiffSource,
    "npy": partial(RawSource, npy_header),
    "netpbm": partial(RawSource, netpbm_header),
    **{kind: partial(StreamedSource, kind) for kind in ("png", "jpeg", "webp")},
}
_FROM_PIPE: dict[str, Callable[[PipeStream, str], ImageSource]] = {
    "npy": partial(piped_rows, npy_header),
    "netpbm": partial(piped_rows, netpbm_header),
    **{kind: partial(piped_image, kind) for kind in ("png", "jpeg", "webp")},
}
_HEAD_BYTES = 16
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
    """Open an image file or a zarr folder, also one at an address, a named pipe, or standard input (``-``), by its content.

    Of a pipe, the first bytes are waited for, and the source is read once, from top to bottom.

    Raises
    ------
    SourceError
        It is missing, empty, not readable, damaged, or of a kind that is not supported, or not through a pipe.
    UsageError
        Standard input is a terminal.
    MissingDependencyError
        A package for such an address is not installed.
    """
    if is_pipe(path):
        return _open_pipe(path)
    if is_url(path):
        return _open_url(str(path))
    name, path = str(path), Path(path)
    try:
        if path.is_dir():
            return _open_folder(path, name)
        if path.exists() and not path.is_file():
            raise SourceError(f"{name}: is a device", hint="give an image file, a zarr folder or a pipe")
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except FileNotFoundError as error:
        raise SourceError(f"{name}: no such file", hint="check the path") from error
    except OSError as error:
        raise SourceError(f"{name}: {error.strerror}", hint="give an image file that this user may read") from error
    return _FROM_FILE[_kind(head, name)](path, name)


def _open_url(url: str) -> ImageSource:
    name = shown(url)
    try:
        kind = _kind(RemoteFile(url, SourceError).read(0, _HEAD_BYTES), name)
    except SourceError as error:
        # A server answers for a folder as it likes: that there is none, with a page, with a redirection.
        if not (has_answered(error) and _is_zarr_at(url)):
            raise
        return ZarrSource(url, name)
    return _FROM_FILE[kind](url, name)


def _is_zarr_at(url: str) -> bool:
    for marker in MARKERS:
        with contextlib.suppress(SourceError):
            RemoteFile(joined(url, marker), SourceError)
            return True
    return False


def _open_pipe(image: str | Path) -> ImageSource:
    name, stream = pipe_name(image), PipeStream(image)
    try:
        kind = _kind(stream.head, name)
        if kind not in _FROM_PIPE:
            raise SourceError(f"{name}: a TIFF is not stored in the order of its rows", hint=_PIPED)
        return _FROM_PIPE[kind](stream, name)
    except BaseException:
        stream.close()
        raise


def _open_folder(path: Path, name: str) -> ImageSource:
    if not is_zarr_folder(path):
        raise SourceError(f"{name}: is a folder, and not a zarr image", hint="give an image file or a zarr folder")
    return ZarrSource(path, name)


def _kind(head: bytes, name: str) -> str:
    """Which format begins like this.

    Raises
    ------
    SourceError
        None that is supported.
    """
    if not head:
        raise SourceError(f"{name}: the file is empty", hint="copy or download it again")
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[:2] in (b"P5", b"P6") and head[2:3].isspace():
        return "netpbm"
    if head.startswith(_SPLAT):
        raise SourceError(f"{name}: is a .ssplat file, not an image", hint="decode makes an image of it")
    foreign = next((kind for magic, kind in _FOREIGN.items() if head.startswith(magic)), None)
    if head[4:8] == b"ftyp":
        foreign = "a HEIF, AVIF or video file"
    raise SourceError(f"{name}: {f'is {foreign}' if foreign else 'not an image we know'}", hint=_SUPPORTED)
