"""Where the pixels of a TIFF lie: parsed once by tifffile into the segments of every level."""

from __future__ import annotations

import functools
import logging
import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from smartsplat_large.array_types import Pixels
from smartsplat_large.errors import SourceError
from smartsplat_large.lattice import Size, Window
from smartsplat_large.places import Place
from smartsplat_large.source.base import require_supported
from smartsplat_large.source.ranged_file import opened

_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _YCBCR = 0, 1, 2, 3, 6
_JPEG_LIKE = (6, 7, 33003, 33005, 33007, 34712, 34892, 50001)
_CENTIMETRES = {2: 2.54, 3: 1.0}
_LARGEST_PIECE_BYTES = 2 << 30
_REWRITE = "convert it to 8-bit or 16-bit grey or RGB first"


class Decoder:
    """tifffile's decoder of one page, with all it would otherwise look up in the file when first used."""

    def __init__(self, page: Any) -> None:
        self.kind = (page.dtype, page.photometric)
        self._decode = functools.partial(page.decode, jpegtables=page.jpegtables, jpegheader=page.jpegheader)

    def __call__(self, data: bytes, index: int) -> Pixels:
        """``(h, w, samples)`` of the segment with this index in its page; any codec's error."""
        values, _, _ = self._decode(data, index)
        pixels: Pixels = values[0]
        return pixels


@dataclass(frozen=True, slots=True)
class Plane:
    """Segments that hold ``samples`` channels of the whole level; ``first`` is the index of the first in its page."""

    decoder: Decoder
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    first: int


@dataclass(frozen=True, slots=True)
class Level:
    """One stored size: a grid of segments (tiles or strips), the same for each plane."""

    size: Size
    segment: tuple[int, int]
    planes: tuple[Plane, ...]
    samples: int

    @property
    def columns(self) -> int:
        return -(-self.size.width // self.segment[1])

    def segments(self, window: Window) -> list[tuple[int, Window]]:
        """Index and place of each segment that ``window`` touches."""
        height, width = self.segment
        return [
            (row * self.columns + column, Window(column * width, row * height, width, height).clipped(self.size))
            for row in range(window.y // height, -(-window.y_end // height))
            for column in range(window.x // width, -(-window.x_end // width))
        ]


@dataclass(frozen=True, slots=True)
class Layout:
    """All that reading needs; ``dtype`` and ``channels`` are those of the pixels handed out."""

    levels: tuple[Level, ...]
    dtype: np.dtype[Any]
    channels: int
    orientation: int
    palette: np.ndarray | None
    inverted: bool
    raw_rows: bool
    """Rows lie uncompressed in strips, so that parts of a strip can be read."""
    one_segment: bool
    """All of the image is one compressed piece."""
    stored_dtype: np.dtype[Any]
    remark: str | None
    icc_profile: bytes | None
    pixels_per_cm: tuple[float, float] | None

    @property
    def decoded_bytes(self) -> int:
        """Of all segments, those at the edges whole."""
        pixels = (
            len(plane.offsets) * math.prod(level.segment) * level.samples
            for level in self.levels
            for plane in level.planes
        )
        return sum(pixels) * self.stored_dtype.itemsize


@functools.cache
def tifffile_module() -> Any:
    """tifffile, kept from printing on standard error."""
    import tifffile

    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    return tifffile


def parse(path: Place, name: str) -> Layout:
    """Read the structure of the first image of a TIFF. Of several pages, times or depths the first counts.

    Raises
    ------
    SourceError
        The file is damaged, or its pixels are of a kind that is not supported.
    """
    try:
        file: AbstractContextManager[Any] = nullcontext(path) if isinstance(path, Path) else opened(path)
        with file as given, tifffile_module().TiffFile(given) as tif:
            return _layout(tif, name)
    except SourceError:
        raise
    except Exception as error:  # a damaged directory ends in any of a dozen kinds
        said = " ".join(str(error).split())
        message = f"{name}: not a readable TIFF: {said or type(error).__name__}"
        raise SourceError(message, hint="it is damaged or cut short; copy it again") from error


def _layout(tif: Any, name: str) -> Layout:
    series = tif.series[0]
    page = series.keyframe
    _require_readable(page, name)
    levels = [_level(stored, name) for stored in series.levels]
    # A reduced picture of another make (a thumbnail in other colours) is no level.
    levels = [level for level in levels if _alike(level, levels[0])]
    _require_small_pieces(page, levels[0], name)
    palette = _palette(page, name)
    stored = np.dtype(page.dtype)
    channels = len(levels[0].planes) * levels[0].samples if palette is None else 3
    bilevel = page.bitspersample == 1
    one = levels[0].segment[0] >= levels[0].size.height and levels[0].segment[1] >= levels[0].size.width
    orientation = page.tags.valueof(274, 1)
    return Layout(
        levels=tuple(levels),
        dtype=np.dtype(np.uint8) if bilevel else require_supported(name, stored, channels),
        channels=channels,
        orientation=int(orientation) if orientation in range(1, 9) else 1,
        palette=palette,
        inverted=page.photometric == _MINISWHITE,
        raw_rows=_plain(page) and not page.is_tiled and not bilevel,
        one_segment=one and not _plain(page),
        stored_dtype=stored.newbyteorder(tif.byteorder),
        remark=_remark(tif, series),
        icc_profile=page.tags.valueof(34675, None) or None,
        pixels_per_cm=_resolution(page),
    )


def _remark(tif: Any, series: Any) -> str | None:
    """That only the first of several pages, times or depths is read."""
    others = {axis: n for axis, n in zip(series.axes, series.shape, strict=True) if axis not in "YXSC" and n > 1}
    if others:
        return f"only the first plane is read, of {' x '.join(f'{n} along {axis}' for axis, n in others.items())}"
    alike = [s for s in tif.series if s.keyframe.shape[:2] == series.keyframe.shape[:2]]
    return f"only the first page is read, of {len(alike)} of the same size" if len(alike) > 1 else None


def _require_readable(page: Any, name: str) -> None:
    if page.dtype is None or page.imagedepth > 1:
        raise SourceError(f"{name}: {page.bitspersample}-bit or volumetric pixels are not supported", hint=_REWRITE)
    colours = page.photometric
    if colours == _YCBCR and page.compression not in _JPEG_LIKE:
        raise SourceError(f"{name}: YCbCr without JPEG compression is not supported", hint=_REWRITE)
    if colours not in (_MINISWHITE, _MINISBLACK, _RGB, _PALETTE, _YCBCR):
        raise SourceError(
            f"{name}: colours stored as {getattr(colours, 'name', colours)} are not supported", hint=_REWRITE
        )
    if page.bitspersample not in (1, 8, 16) and np.dtype(page.dtype).kind == "u":
        raise SourceError(f"{name}: {page.bitspersample}-bit samples are not supported", hint=_REWRITE)
    if page.samplesperpixel == 0 or page.imagewidth < 1 or page.imagelength < 1:
        raise SourceError(f"{name}: an image of {page.imagewidth}x{page.imagelength} pixels", hint="it holds none")


def _require_small_pieces(page: Any, level: Level, name: str) -> None:
    """A compressed piece is decoded whole: one larger than memory cannot be read at all."""
    piece_bytes = level.segment[0] * level.segment[1] * level.samples * np.dtype(page.dtype).itemsize
    if piece_bytes > _LARGEST_PIECE_BYTES and not _plain(page):
        raise SourceError(
            f"{name}: compressed in pieces of {piece_bytes / 1e9:.1f} GB, which cannot be read in parts",
            hint="rewrite it in tiles: tiffcp -t -w 512 -l 512 IN OUT",
        )


def _plain(page: Any) -> bool:
    return bool(page.compression == 1 and page.predictor == 1 and page.fillorder == 1)


def _level(series: Any, name: str) -> Level:
    page = series.keyframe
    size = Size(page.imagewidth, page.imagelength)
    segment = (page.tilelength, page.tilewidth) if page.is_tiled else (min(page.rowsperstrip, size.height), size.width)
    per_plane = math.ceil(size.height / segment[0]) * math.ceil(size.width / segment[1])
    planes: list[Plane] = []
    decoder = Decoder(page)
    for frame in _channel_frames(series, name):
        separate = page.samplesperpixel if page.planarconfig == 2 else 1
        for first in range(0, separate * per_plane, per_plane):
            last = first + per_plane
            planes.append(Plane(decoder, frame.dataoffsets[first:last], frame.databytecounts[first:last], first))
    if any(len(plane.offsets) != per_plane or len(plane.counts) != per_plane for plane in planes):
        raise SourceError(
            f"{name}: its index lists fewer pieces than the image has", hint="it is damaged; copy it again"
        )
    return Level(size, segment, tuple(planes), page.samplesperpixel if page.planarconfig == 1 else 1)


def _channel_frames(series: Any, name: str) -> list[Any]:
    """The page of each channel at the first index of all other axes; one page where channels lie within it."""
    page = series.keyframe
    outer = [(axis, length) for axis, length in zip(series.axes, series.shape, strict=True) if axis not in "YXS"]
    if "C" not in dict(outer) or page.planarconfig == 2:
        return [series[0]]
    position = [axis for axis, _ in outer].index("C")
    step = math.prod(length for _, length in outer[position + 1 :])
    frames = [series[index * step] for index in range(outer[position][1])]
    if any(frame is None or frame.parent is not page.parent for frame in frames):
        raise SourceError(f"{name}: its channels are spread over several files", hint="join them in one file first")
    return frames


def _alike(level: Level, first: Level) -> bool:
    kinds = [(one.planes[0].decoder.kind, one.samples, len(one.planes)) for one in (level, first)]
    return kinds[0] == kinds[1]


def _palette(page: Any, name: str) -> np.ndarray | None:
    if page.photometric != _PALETTE:
        return None
    if page.bitspersample != 8 or page.samplesperpixel != 1 or page.colormap is None:
        raise SourceError(f"{name}: a {page.bitspersample}-bit palette is not supported", hint=_REWRITE)
    colours = np.asarray(page.colormap).T
    # The standard says 16 bits a colour; some writers fill 8.
    return (colours >> 8 if colours.max() > 255 else colours).astype(np.uint8)


def _resolution(page: Any) -> tuple[float, float] | None:
    factor = _CENTIMETRES.get(page.tags.valueof(296, 2))
    x, y = page.tags.valueof(282), page.tags.valueof(283)
    if factor is None or not x or not y or 0 in (*x, *y):
        return None
    return (x[0] / x[1] / factor, y[0] / y[1] / factor)
