"""The best JPEG of at most as many bytes as a file of ours, to hold it against."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from smartsplat_large.array_types import Pixels
from smartsplat_large.errors import UsageError
from smartsplat_large.lattice import Size
from smartsplat_large.metrics import Score, evaluate_streams
from smartsplat_large.pixels import to_planes
from smartsplat_large.source import ArraySource


def require_jpeg(pixels: Pixels) -> None:
    """Do nothing for pixels that a JPEG can hold.

    Raises
    ------
    UsageError
        They are not of 8 bits with one or three channels.
    """
    if pixels.dtype != np.uint8 or pixels.shape[2] not in (1, 3):
        raise UsageError(
            f"no JPEG holds {pixels.shape[2]} channels of {pixels.dtype}", hint="take pictures of 8-bit grey or RGB"
        )


def best_jpeg(pixels: Pixels, limit_bytes: int) -> tuple[bytes, Score]:
    """The JPEG of at most ``limit_bytes`` with the best PSNR, over all qualities with and without subsampled colours.

    Where none is so small, the smallest there is. No profile and no other metadata is in it.
    """
    rivals = [largest_jpeg(pixels, limit_bytes, subsampling) for subsampling in ("4:2:0", "4:4:4")]
    fitting = [jpeg for jpeg in rivals if len(jpeg) <= limit_bytes] or [min(rivals, key=len)]
    return max(((jpeg, score(pixels, jpeg)) for jpeg in fitting), key=lambda pair: pair[1].psnr())


def largest_jpeg(pixels: Pixels, limit_bytes: int, subsampling: str) -> bytes:
    """The JPEG of the highest quality that keeps to ``limit_bytes``; that of quality 1 where none does."""
    best = encoded(pixels, 1, subsampling)
    low, high = 2, 100
    while low <= high:
        quality = (low + high) // 2
        jpeg = encoded(pixels, quality, subsampling)
        if len(jpeg) <= limit_bytes:
            best, low = jpeg, quality + 1
        else:
            high = quality - 1
    return best


def encoded(pixels: Pixels, quality: int, subsampling: str) -> bytes:
    """As small as Pillow makes it: optimised tables, progressive."""
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    picture.save(buffer, "jpeg", quality=quality, subsampling=subsampling, optimize=True, progressive=True)
    return buffer.getvalue()


def score(pixels: Pixels, jpeg: bytes) -> Score:
    """What the JPEG makes of ``pixels``, by the metrics that measure our own files."""
    size = Size(pixels.shape[1], pixels.shape[0])
    decoded = np.asarray(Image.open(io.BytesIO(jpeg))).reshape(pixels.shape)

    sources = ArraySource(pixels), ArraySource(decoded)
    original, restored = (lambda window, of=source: to_planes(of.read(window)) for source in sources)
    return evaluate_streams(original, restored, size)
