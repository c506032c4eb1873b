"""Models as files of format version 2 have them: only ever read."""

from __future__ import annotations

from collections.abc import Iterable

from smartsplat_large.codec.entropy import SPLIT_SHAPES, Family, Histogram, Kernel, Models
from smartsplat_large.codec.models import histogram_of, inflate
from smartsplat_large.codec.payload import component_streams
from smartsplat_large.codec.tokens import MAX_CONTEXT, STREAMS, ModelKey

_NAMES = ("count", "rise", "luma", "chroma1", "chroma2", "alpha", "mean", "aspect")


def models_of_version2(raw: bytes, channels: int) -> Models:
    """A kernel a stream, then histograms.

    Raises
    ------
    ValueError
        The bytes are no models.
    """
    colors = [name for name in component_streams(channels) if name != "chroma2"]
    names = ("count", "rise", *colors, "mean", "aspect")
    end = 1 + 2 * len(names)
    if len(raw) < end or raw[0] >= len(SPLIT_SHAPES):
        raise ValueError("models cut short")
    kernels: dict[str, Family] = {name: Kernel.from_bytes(raw[1 + 2 * i : 3 + 2 * i]) for i, name in enumerate(names)}
    if "chroma1" in kernels:
        kernels["chroma2"] = kernels["chroma1"]
    return Models(kernels, dict(_parse_histograms(inflate(raw[end:]))) if raw[end:] else {}, raw[0])


def _parse_histograms(raw: bytes) -> Iterable[tuple[ModelKey, Histogram]]:
    at = 0
    while at < len(raw):
        head = raw[at : at + 5]
        if len(head) < 5 or head[0] >> 4 >= len(_NAMES) or head[0] & 15 > MAX_CONTEXT:
            raise ValueError("histogram cut short")
        name = _NAMES[head[0] >> 4]
        context = STREAMS[name].steps * (head[0] & 15)
        yield (name, context), histogram_of(name, context, head[1:], raw[at + 5 :])
        at += 5 + (head[3] << 8 | head[4])
