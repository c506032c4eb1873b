"""The rival codecs as one table: what each is called, which qualities it has, how it is encoded and decoded.

Settings were chosen for PSNR at ratios 50 and 200 of kodim05 and kodim23; where two were each best somewhere, both are
tried and the better file counts. JPEG, WebP and AVIF go through libvips, which hands on what decides their PSNR:
mozjpeg's tables and trellis, WebP's careful subsampling, AVIF's tuning for PSNR; imagecodecs has no such settings, and
its wheels have no mozjpeg.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import pyvips

from smartsplat_large.array_types import Pixels
from smartsplat_large.errors import SourceError

Encode = Callable[[Pixels, float], bytes]


@dataclass(frozen=True, slots=True)
class Encoder:
    """One way to encode, at any of its qualities."""

    label: str
    qualities: Sequence[float]
    """From the smallest file to the largest."""
    encode: Encode
    """``(h, w, 1 or 3)`` of uint8 and one of ``qualities`` to a whole file without profile or other metadata."""


@dataclass(frozen=True, slots=True)
class Codec:
    """A file format with its encoders."""

    title: str
    settings: str
    """The program, its effort and its options, for people."""
    encoders: tuple[Encoder, ...]
    """Of the files these make for a budget, the one with the best PSNR counts."""
    decode: Callable[[bytes], Pixels]


def require_supported(pixels: Pixels, name: str) -> None:
    """Do nothing for pixels that every rival can hold.

    Raises
    ------
    SourceError
        They are not of 8 bits with one or three channels.
    """
    if pixels.dtype != np.uint8 or pixels.shape[2] not in (1, 3):
        raise SourceError(
            f"{name}: {pixels.shape[2]} channel(s) of {pixels.dtype}; JPEG and WebP hold no more than 8-bit grey or RGB",
            hint="compare an 8-bit copy without alpha",
        )


def _image(pixels: Pixels) -> Any:
    """As libvips takes it; reads from the array without a copy."""
    height, width, bands = pixels.shape
    image = pyvips.Image.new_from_memory(np.ascontiguousarray(pixels).data, width, height, bands, "uchar")
    return image.copy(interpretation="srgb" if bands == 3 else "b-w")


def _plain(pixels: Pixels) -> Any:
    """As imagecodecs takes it: grey without an axis of its own."""
    return np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _jpeg(pixels: Pixels, quality: float, table: int) -> bytes:
    return bytes(
        _image(pixels).jpegsave_buffer(
            Q=int(quality), subsample_mode="on", optimize_coding=True, interlace=True, trellis_quant=True,
            optimize_scans=True, quant_table=table, keep="none",
        )
    )  # fmt: skip


def _webp(pixels: Pixels, quality: float) -> bytes:
    return bytes(_image(pixels).webpsave_buffer(Q=int(quality), effort=6, smart_subsample=True, keep="none"))


def _avif(pixels: Pixels, quality: float, subsampling: str, effort: int) -> bytes:
    return bytes(
        _image(pixels).heifsave_buffer(
            Q=int(quality), compression="av1", effort=effort, subsample_mode=subsampling, tune="psnr", keep="none"
        )
    )


def _jpegxl(pixels: Pixels, distance: float) -> bytes:
    encoded = imagecodecs.jpegxl_encode(
        _plain(pixels), distance=distance, effort=_JXL_EFFORT, lossless=False, usecontainer=False, numthreads=_THREADS
    )
    return bytes(encoded)


def _jpeg2000(pixels: Pixels, decibels: float) -> bytes:
    # A level is the PSNR that OpenJPEG's rate control aims at. A bare codestream saves the 85 bytes of boxes around it.
    return bytes(imagecodecs.jpeg2k_encode(_plain(pixels), level=decibels, reversible=False, codecformat="j2k"))  # type: ignore[arg-type]


@functools.cache
def jpeg_encoder() -> str:
    """Which JPEG encoder libvips was built with; another than mozjpeg ignores the choice of tables."""
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    return "mozjpeg" if _jpeg(noise, 50, 0) != _jpeg(noise, 50, 1) else "libjpeg"


_THREADS = 2
_JXL_EFFORT = 7
_WHOLE = tuple(float(quality) for quality in range(1, 101))
_DISTANCES = tuple(np.geomspace(25, 0.05, 256).tolist())
_DECIBELS = tuple(np.arange(5, 70, 1 / 64).tolist())


def _avif_codec(title: str, effort: int) -> Codec:
    return Codec(
        title,
        f"libaom, effort {effort} of 9, tuned for PSNR, the better of 4:2:0 and 4:4:4",
        tuple(
            Encoder(label, _WHOLE, functools.partial(_avif, subsampling=subsampling, effort=effort))
            for label, subsampling in (("4:2:0", "on"), ("4:4:4", "off"))
        ),
        imagecodecs.avif_decode,
    )


def _codecs() -> dict[str, Codec]:
    return {
        "jpeg": Codec(
            "JPEG",
            f"{jpeg_encoder()}, 4:2:0, progressive, trellis, optimised scans, the better of the flat and the MS-SSIM table",
            (
                Encoder("flat table", _WHOLE, functools.partial(_jpeg, table=1)),
                Encoder("MS-SSIM table", _WHOLE, functools.partial(_jpeg, table=2)),
            ),
            imagecodecs.jpeg8_decode,
        ),
        "webp": Codec(
            "WebP",
            "libwebp, method 6, careful subsampling (sharp YUV)",
            (Encoder("", _WHOLE, _webp),),
            imagecodecs.webp_decode,
        ),
        "jpegxl": Codec(
            "JPEG XL",
            f"libjxl, effort {_JXL_EFFORT}, lossy, by distance",
            (Encoder("", _DISTANCES, _jpegxl),),
            imagecodecs.jpegxl_decode,
        ),
        "avif": _avif_codec("AVIF", effort=6),
        "avif9": _avif_codec("AVIF, slow", effort=9),
        "jpeg2000": Codec(
            "JPEG 2000",
            "OpenJPEG, irreversible 9/7 transform and colours, one layer by its PSNR rate control",
            (Encoder("", _DECIBELS, _jpeg2000),),
            imagecodecs.jpeg2k_decode,
        ),
    }


RIVALS: Mapping[str, Codec] = _codecs()
USUAL = tuple(name for name in RIVALS if name != "avif9")
"""Those that are measured where none are named: AVIF's last tenth of a dB takes minutes for a small photograph."""
