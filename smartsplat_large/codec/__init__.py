"""The ``.ssplat`` file: a few bytes per Gaussian, any window from the bytes that touch it. See docs/format.md."""

from smartsplat_large.codec.budget import encode_to_budget
from smartsplat_large.codec.container import SplatHeader
from smartsplat_large.codec.files import write_atomic
from smartsplat_large.codec.reader import Damage, SplatFile
from smartsplat_large.codec.writer import Encoded, encode

__all__ = ["Damage", "Encoded", "SplatFile", "SplatHeader", "encode", "encode_to_budget", "write_atomic"]
