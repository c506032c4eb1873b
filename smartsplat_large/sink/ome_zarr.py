"""Multiscale OME-Zarr."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from smartsplat_large.array_types import Pixels
from smartsplat_large.downsampling import level_count
from smartsplat_large.ome_zarr import OmeZarrSpec, PyramidWriter, shard_for_bands
from smartsplat_large.sink.base import OutputSpec

BAND = 256


def write(folder: Path, spec: OutputSpec, bands: Iterator[Pixels]) -> None:
    """All levels down to 256 pixels, into an existing empty folder."""
    zarr_spec = OmeZarrSpec(
        name=folder.name.removesuffix(".part"),
        size=spec.size,
        channels=spec.channels,
        dtype=spec.dtype,
        levels=level_count(spec.size),
        shard=shard_for_bands(spec.size.width, spec.channels * spec.dtype.itemsize),
        icc_profile=spec.icc_profile,
        pixels_per_cm=spec.pixels_per_cm,
    )
    with PyramidWriter(folder, zarr_spec, spec.workers) as writer:
        for band in bands:
            writer.write(band)
