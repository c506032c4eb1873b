"""Tiled BigTIFF and OME-TIFF through tifffile.

Deflate with horizontal differences: every reader of TIFF has both, where zstd, half as slow, is unknown to many. Always
BigTIFF: whether a compressed image passes 4 GB is known only when it is too late.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smartsplat_large.array_types import Pixels
from smartsplat_large.sink.base import OutputSpec

TILE = 512
_PASS_BYTES = 16 << 20
_DEFLATE_LEVEL = 5


def write(path: Path, spec: OutputSpec, bands: Iterator[Pixels]) -> None:
    """A tiled BigTIFF from bands of ``TILE`` rows."""
    _write(path, spec, bands, ome=False, metadata=None)


def write_ome(path: Path, spec: OutputSpec, bands: Iterator[Pixels]) -> None:
    """As :func:`write`, with the OME-XML that makes it an OME-TIFF of one level."""
    metadata: dict[str, Any] = {"axes": "YXS" if spec.channels > 1 else "YX"}
    if spec.pixels_per_cm:
        x, y = spec.pixels_per_cm
        metadata |= {"PhysicalSizeX": 1e4 / x, "PhysicalSizeY": 1e4 / y}  # micrometres
    _write(path, spec, bands, ome=True, metadata=metadata)


def _write(
    path: Path, spec: OutputSpec, bands: Iterator[Pixels], *, ome: bool, metadata: dict[str, Any] | None
) -> None:
    import tifffile

    height, width = spec.size.height, spec.size.width
    resolution = {"resolution": spec.pixels_per_cm, "resolutionunit": "CENTIMETER"} if spec.pixels_per_cm else {}
    alpha = {"extrasamples": ["UNASSALPHA"]} if spec.channels in (2, 4) else {}
    with path.open("xb") as file, tifffile.TiffWriter(file, bigtiff=True, ome=ome) as writer:
        writer.write(
            _tiles(bands),
            shape=(height, width) if spec.channels == 1 else (height, width, spec.channels),
            dtype=spec.dtype,
            tile=(TILE, TILE),
            photometric="RGB" if spec.channels > 2 else "MINISBLACK",
            planarconfig="CONTIG" if spec.channels > 1 else None,
            compression="ADOBE_DEFLATE",
            compressionargs={"level": _DEFLATE_LEVEL},
            predictor=True,
            iccprofile=spec.icc_profile,
            metadata=metadata,
            software="smartsplat-large",
            buffersize=_PASS_BYTES,
            maxworkers=spec.workers,
            **resolution,
            **alpha,
        )


def _tiles(bands: Iterator[Pixels]) -> Iterator[Pixels]:
    for band in bands:
        for x in range(0, band.shape[1], TILE):
            tile = band[:, x : x + TILE]
            yield tile[:, :, 0] if tile.shape[2] == 1 else tile
