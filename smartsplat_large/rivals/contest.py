"""One rival on one picture: its best file within a number of bytes, and what that is worth."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from smartsplat_large.array_types import Pixels, Planes
from smartsplat_large.lattice import Size, Window
from smartsplat_large.memory import PROGRAM, Footprint
from smartsplat_large.metrics import Score, evaluate_streams
from smartsplat_large.pixels import to_planes
from smartsplat_large.rivals.codecs import Codec
from smartsplat_large.rivals.resample import resized, shrunk
from smartsplat_large.rivals.search import Encoded, Ladder

FACTORS = (2, 4, 8)
"""How much smaller a picture may be encoded where its codec cannot go low enough at full size."""

BYTES_PER_PIXEL = 96
"""What the hungriest encoder holds beside the picture, with a margin: JPEG XL and AVIF took 58 and 51 on 1.9 megapixels."""


def footprint(size: Size, channels: int) -> Footprint:
    """The most that the rivals need at once: every one of them takes the whole picture."""
    return Footprint(program=PROGRAM, gaussians=0, working=size.pixels * (3 * channels + BYTES_PER_PIXEL))


@dataclass(frozen=True, slots=True, eq=False)
class Rendition:
    """A file, and the picture it restores."""

    bytes: int
    setting: str
    """The quality found, and the encoder where a codec has several."""
    factor: int
    """1, or by how much the picture was shrunk before it was encoded."""
    encode_s: float
    decode_s: float
    score: Score
    pixels: Pixels


class Rival:
    """One codec on one picture. Keeps the files it has made, so that further budgets cost less."""

    def __init__(self, codec: Codec, pixels: Pixels, workers: int = 1) -> None:
        self._codec, self._pixels, self._workers = codec, pixels, workers
        self._ladders: dict[int, tuple[list[Ladder], float]] = {}

    def direct(self, limit_bytes: int) -> Rendition | None:
        """The best PSNR within ``limit_bytes`` at full size; None where the codec cannot go that low."""
        return self._best(limit_bytes, 1)

    def reduced(self, limit_bytes: int) -> Rendition | None:
        """The best PSNR within ``limit_bytes`` of a smaller copy, enlarged again; None where that is too large as well."""
        found = [rendition for factor in FACTORS if (rendition := self._best(limit_bytes, factor)) is not None]
        return max(found, key=_psnr, default=None)

    def _best(self, limit_bytes: int, factor: int) -> Rendition | None:
        ladders, shrink_s = self._at(factor)
        made = [(ladder, ladder.largest(limit_bytes)) for ladder in ladders]
        found = [self._restored(ladder, file, factor, shrink_s) for ladder, file in made if file is not None]
        return max(found, key=_psnr, default=None)

    def _at(self, factor: int) -> tuple[list[Ladder], float]:
        """A ladder an encoder, of the picture shrunk by ``factor``, and the seconds that shrinking took."""
        if factor not in self._ladders:
            began = time.perf_counter()
            pixels = self._pixels if factor == 1 else shrunk(self._pixels, factor)
            taken = time.perf_counter() - began if factor > 1 else 0.0
            self._ladders[factor] = ([Ladder(encoder, pixels) for encoder in self._codec.encoders], taken)
        return self._ladders[factor]

    def _restored(self, ladder: Ladder, file: Encoded, factor: int, shrink_s: float) -> Rendition:
        began = time.perf_counter()
        pixels = _as_picture(self._codec.decode(file.data), self._pixels.shape[2])
        if factor > 1:
            pixels = resized(pixels, Size(self._pixels.shape[1], self._pixels.shape[0]))
        decode_s = time.perf_counter() - began
        setting = ", ".join(filter(None, (f"quality {file.quality:.4g}", ladder.encoder.label)))
        worth = score(self._pixels, pixels, self._workers)
        return Rendition(len(file.data), setting, factor, shrink_s + file.seconds, decode_s, worth, pixels)


def _psnr(rendition: Rendition) -> float:
    return rendition.score.psnr()


def _as_picture(decoded: Pixels, channels: int) -> Pixels:
    """Channels last and no more than wanted: WebP has no grey of its own and gives it back three times."""
    return np.atleast_3d(decoded)[:, :, :channels]


def score(original: Pixels, restored: Pixels, workers: int = 1) -> Score:
    """What ``restored`` is worth, by the metrics that measure our own files; ``workers`` do not change it."""
    size = Size(original.shape[1], original.shape[0])
    with ThreadPoolExecutor(workers) as pool:
        return evaluate_streams(_reader(original), _reader(restored), size, mapper=pool.map)


def _reader(pixels: Pixels) -> Callable[[Window], Planes]:
    whole = Size(pixels.shape[1], pixels.shape[0]).window
    return lambda window: to_planes(np.ascontiguousarray(pixels[window.slices(whole)]))
