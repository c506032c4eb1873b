"""The codecs people use, each at its best for PSNR within a number of bytes: what our files are held against."""

from smartsplat_large.rivals.bd_rate import bd_rate
from smartsplat_large.rivals.codecs import RIVALS, USUAL, Codec, Encoder, require_supported
from smartsplat_large.rivals.contest import Rendition, Rival, footprint, score

__all__ = [
    "RIVALS",
    "USUAL",
    "Codec",
    "Encoder",
    "Rendition",
    "Rival",
    "bd_rate",
    "footprint",
    "require_supported",
    "score",
]
