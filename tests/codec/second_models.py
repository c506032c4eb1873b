"""The models of a .ssplat file, written from docs/format.md alone: numpy, nothing of the package but its table."""

from __future__ import annotations

import binascii
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

STREAMS = ["count", "octave", "luma", "chroma1", "chroma2", "alpha", "mean", "aspect", "turn"]
UNSIGNED = {"count", "octave", "aspect", "turn"}
GROWTH = {"count": 0.0, "octave": 0.0, "chroma1": 0.5, "chroma2": 0.5, "turn": 0.0}
STEPS = {"chroma1": 4, "chroma2": 4}
TABLE = Path(__file__).parents[2] / "smartsplat_large" / "codec" / "standard.bin"
SPLITS = [0.5, 1, 2, 4, 8, 16, 64, 1e6]
ROOTS = [1.0, 1.0905077326652577, 1.189207115002721, 1.2968395546510096,
         1.4142135623730951, 1.5422108254079407, 1.681792830507429, 1.8340080864093424]  # fmt: skip
COLORS = {1: ["luma"], 2: ["luma", "alpha"], 3: ["luma", "chroma1", "chroma2"],
          4: ["luma", "chroma1", "chroma2", "alpha"]}  # fmt: skip
SIZES = [1] * 16 + [1 << (bits - 3) for bits in range(5, 41) for _ in range(4)]
FIRSTS = [*range(16), *((4 + part) << (bits - 3) for bits in range(5, 41) for part in range(4))]


class Bytes:
    def __init__(self, raw: bytes) -> None:
        self.raw, self.at = raw, 0

    def take(self, n: int) -> bytes:
        self.at += n
        assert self.at <= len(self.raw)
        return self.raw[self.at - n : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def signed(self) -> int:
        value = self.varint()
        return -(value + 1) // 2 if value % 2 else value // 2

    def sealed(self, n: int) -> bytes:
        data = self.take(n)
        if n:
            assert self.take(len(seal(data))) == seal(data)
        return data


def seal(data: bytes) -> bytes:
    if len(data) < 1024:
        return struct.pack("<H", binascii.crc_hqx(data, 0xFFFF))
    return struct.pack("<I", zlib.crc32(data))


def power8(n: int) -> float:
    return math.ldexp(ROOTS[n % 8], n // 8)


def read_table() -> dict[str, tuple[int, np.ndarray, np.ndarray]]:
    raw, found = Bytes(zlib.decompress(TABLE.read_bytes())), {}
    for stream in STREAMS:
        if stream != "alpha":
            contexts, first, tokens = struct.unpack(">BHB", raw.take(4))
            base = np.frombuffer(raw.take(contexts * tokens), np.uint8).reshape(contexts, tokens).astype(int)
            directions = np.frombuffer(raw.take(3 * contexts * tokens), np.int8).reshape(3, contexts, tokens)
            found[stream] = (first, base, directions.astype(int))
    return found


STANDARD = read_table()


def standard_weights(stream: str, context: int, coordinates: list[int]) -> np.ndarray:
    first, base, directions = STANDARD[stream]
    while context >= len(base):
        context -= STEPS.get(stream, 1)
    levels = np.full(160 if stream in UNSIGNED else 319, -128)
    levels[first : first + base.shape[1]] = sum(
        a * d[context] for a, d in zip(coordinates, directions, strict=True)
    ) - 2 * base[context]  # fmt: skip
    return np.array([power8(max(n, -128)) for n in levels.tolist()])


def kernel_weights(stream: str, context: int, raw: bytes) -> np.ndarray:
    c, h, g = raw[0] - 256 if raw[0] > 127 else raw[0], raw[1] >> 2, raw[1] & 3
    grown = power8(round(8 * GROWTH.get(stream, 1.0) * (context // STEPS.get(stream, 1))))
    centre = math.copysign(power8(abs(c) - 41), c) * grown if c else 0.0
    width = max(power8(4 * (h - 8)) * grown, 0.25)
    z = np.array(SIZES, float)
    x = np.array(FIRSTS, float) + (z - 1) / 2
    if stream not in UNSIGNED:
        x, z = np.concatenate([-x[:0:-1], x]), np.concatenate([z[:0:-1], z])
    offset = ((abs(x) if stream == "luma" else x) - centre) / width
    bell = 1.0 / (1.0 + offset * offset)
    for _ in range(g):
        bell = bell * bell
    return z * bell


def token_model(models: dict[str, Any], stream: str, context: int, octaves: tuple[int, int]) -> tuple[int, np.ndarray]:
    first, end = 0, min(2 * context, 16) if stream == "turn" else 319
    if stream == "octave":
        before, end = np.searchsorted(FIRSTS, [octaves[0] - 1, octaves[1] - 2], "right").tolist()
        first = before - 1
    if (stream, context) in models["histograms"]:
        first, levels = models["histograms"][stream, context]
        return first, np.array([power8(2 * n) if n else 0.0 for n in levels])
    family = models["families"][stream]
    weights = (kernel_weights if isinstance(family, bytes) else standard_weights)(stream, context, family)
    return first, weights[first:end]


def split_model(total: int, shape: float) -> np.ndarray:
    k = np.arange(total // 2, 0, -1, dtype=float)
    ratio = k * (total - k + shape) / ((total - k + 1.0) * (k - 1.0 + shape))
    falling = np.cumprod(np.concatenate([[1.0], ratio]))
    return np.concatenate([falling[::-1], falling[1 - total % 2 :]])


def read_models(head: Bytes, channels: int) -> dict[str, Any]:
    rest = head.take(len(head.raw) - head.at)
    digits, at, families = rest.hex(), 1, {}
    for stream in ["count", "octave", *COLORS[channels], "mean", "aspect", "turn"]:
        n = 5 if digits[at] == "8" else 3
        part, at = digits[at : at + n], at + n
        families[stream] = bytes.fromhex(part[1:]) if n == 5 else [(int(c, 16) + 8) % 16 - 8 for c in part]
    models: dict[str, Any] = {"split": int(digits[0], 16), "families": families, "histograms": {}}
    rest = rest[(at + 1) // 2 :]
    found = Bytes(zlib.decompress(rest, -15) if rest else b"")
    while found.at < len(found.raw):
        stream, context, first, count = struct.unpack(">BBHH", found.take(6))
        models["histograms"][STREAMS[stream], context] = (first, found.take(count))
    return models
