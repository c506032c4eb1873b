"""Where the bytes of a file go."""

from __future__ import annotations

import math
from collections.abc import Iterable

from smartsplat_large.codec.container import sealed_bytes
from smartsplat_large.codec.directory import Directory
from smartsplat_large.codec.entropy import Tally
from smartsplat_large.codec.models import stream_bits
from smartsplat_large.codec.payload import Scope, code_block
from smartsplat_large.codec.quantize import Symbols

ATTRIBUTES = {
    "positions": ("count", "split", "place"),
    "scales": ("octave", "mean", "aspect"),
    "rotations": ("turn",),
    "colors": ("luma", "chroma1", "chroma2", "alpha"),
}
"""The streams that hold each attribute."""


def byte_ledger(directory: Directory, payloads: Iterable[tuple[Scope, Symbols]], size_bytes: int) -> dict[str, int]:
    """Bytes per purpose, with ``size_bytes`` as their sum: see :meth:`SplatFile.ledger`."""
    head = directory.head
    seals = sum(sealed_bytes(length) - length for length in head.wide_bytes)
    payload = sum(entry.length for entry in directory.entries)
    fixed = {
        "models": head.models_bytes,
        "index": sealed_bytes(head.index_bytes) + seals,
        "metadata": sealed_bytes(head.metadata_bytes),
        "icc": sealed_bytes(head.icc_bytes),
    }
    tally = Tally()
    for scope, symbols in payloads:
        code_block(tally, scope, symbols, len(symbols))
    header = size_bytes - payload - sum(fixed.values())
    return {"header": header} | fixed | _shares(payload, stream_bits(head.models, tally))


def _shares(total: int, bits: dict[str, float]) -> dict[str, int]:
    """``total`` bytes shared out in proportion to the bits of the attributes, to the last byte."""
    weights = {name: sum(bits.get(stream, 0.0) for stream in streams) for name, streams in ATTRIBUTES.items()}
    whole = sum(weights.values()) or 1.0
    exact = {name: total * weight / whole for name, weight in weights.items()}
    shares = {name: math.floor(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda n: shares[n] - exact[n])[: total - sum(shares.values())]:
        shares[name] += 1
    return shares
