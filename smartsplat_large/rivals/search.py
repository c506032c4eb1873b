"""The largest file of an encoder within a number of bytes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from smartsplat_large.array_types import Pixels
from smartsplat_large.rivals.codecs import Encoder


@dataclass(frozen=True, slots=True)
class Encoded:
    """One file."""

    quality: float
    data: bytes
    seconds: float
    """What this one encoding took, without the search for its quality."""


class Ladder:
    """All files that one encoder makes of one picture, each made when it is first asked for and kept."""

    def __init__(self, encoder: Encoder, pixels: Pixels) -> None:
        self.encoder = encoder
        self._pixels = pixels
        self._made: dict[int, Encoded] = {}

    def largest(self, limit_bytes: int) -> Encoded | None:
        """The file of the highest quality of at most ``limit_bytes``; None where the lowest quality takes more.

        Bisects, and so takes it that sizes rise with quality. Where an encoder lets one fall now and then, the file
        found keeps to the limit all the same, and the next quality does not.
        """
        low, high = 0, len(self.encoder.qualities)
        while low < high:
            middle = (low + high) // 2
            if len(self._at(middle).data) <= limit_bytes:
                low = middle + 1
            else:
                high = middle
        return self._at(low - 1) if low else None

    def _at(self, index: int) -> Encoded:
        if index not in self._made:
            quality = self.encoder.qualities[index]
            began = time.perf_counter()
            data = self.encoder.encode(self._pixels, quality)
            self._made[index] = Encoded(quality, data, time.perf_counter() - began)
        return self._made[index]
