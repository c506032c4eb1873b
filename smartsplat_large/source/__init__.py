"""Images of every supported format behind one protocol."""

from smartsplat_large.source.array import ArraySource
from smartsplat_large.source.base import ImageMeta, ImageSource, bands, read_window
from smartsplat_large.source.open import open_source
from smartsplat_large.source.pyramid import copying_bytes, downsample, ingest, working_copy

__all__ = [
    "ArraySource",
    "ImageMeta",
    "ImageSource",
    "bands",
    "copying_bytes",
    "downsample",
    "ingest",
    "open_source",
    "read_window",
    "working_copy",
]
