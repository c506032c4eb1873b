"""A decoder written from docs/format.md alone: numpy and constriction, nothing of the package."""

from __future__ import annotations

import math
from collections import namedtuple
from typing import Any

import constriction
import numpy as np
from second_models import COLORS, FIRSTS, SIZES, SPLITS, UNSIGNED, Bytes, read_models, seal, split_model, token_model

File = namedtuple(
    "File", "symbols xy scale rotation color background"
)  # symbols: cell, o, mean, aspect, turn, place, k


class Payload:
    def __init__(self, raw: bytes, models: dict[str, Any]) -> None:
        words = np.frombuffer(raw + bytes(-len(raw) % 4), ">u4").astype(np.uint32)
        self.coder, self.models = constriction.stream.queue.RangeDecoder(words), models

    def draw(self, weights: np.ndarray, n: int) -> np.ndarray:
        return self.coder.decode(constriction.stream.model.Categorical(weights, perfect=False), n).astype(np.int64)

    def uniform(self, sizes: list[int]) -> list[int]:
        model = constriction.stream.model.Uniform()
        return [int(self.coder.decode(model, np.array([n], np.int32))[0]) if n > 1 else 0 for n in sizes]

    def tokens(self, stream: str, contexts: np.ndarray, octaves: tuple[int, int] = (1, 25)) -> np.ndarray:
        token = np.zeros(len(contexts), np.int64)
        for context in sorted(set(contexts.tolist())):
            at = np.flatnonzero(contexts == context)
            first, weights = token_model(self.models, stream, context, octaves)
            token[at] = first + (self.draw(weights, len(at)) if len(weights) > 1 else 0)
        if stream not in UNSIGNED:
            token -= 159
        sizes = [SIZES[abs(t)] for t in token.tolist()]
        low = self.uniform([min(n, 1 << 16) for n in sizes])
        high = self.uniform([max(n >> 16, 1) for n in sizes])
        magnitude = [FIRSTS[abs(t)] + a + (b << 16) for t, a, b in zip(token.tolist(), low, high, strict=True)]
        return np.array([-m if t < 0 else m for t, m in zip(token.tolist(), magnitude, strict=True)], np.int64)

    def split(self, totals: np.ndarray) -> np.ndarray:
        found = np.zeros(len(totals), np.int64)
        for total in sorted(set(totals.tolist())):
            at = np.flatnonzero(totals == total)
            found[at] = self.draw(split_model(total, SPLITS[self.models["split"]]), len(at))
        return found


def rough_exp(x: np.ndarray) -> np.ndarray:
    y = x * 1.4426950408889634
    floor = np.floor(y)
    return np.ldexp(1.0 + (y - floor), floor.astype(np.int32))


def cells_of(payload: Payload, frame: tuple[int, ...], layer: int) -> np.ndarray:
    x0, y0, columns, rows, depth = frame
    totals = payload.tokens("count", np.full(columns * rows, layer))
    boxes = [(i // columns, i % columns) for i in np.flatnonzero(totals)]
    totals = totals[totals > 0]
    for level in range(2 * depth):
        first = payload.split(totals)
        down, right = 1 - level % 2, level % 2
        halves = [((r << down) + i * down, (c << right) + i * right) for r, c in boxes for i in (0, 1)]
        both = np.stack([first, totals - first], axis=1).ravel()
        boxes, totals = [half for half, n in zip(halves, both, strict=True) if n], both[both > 0]
    rows_ = [(x0 + c, y0 + r) for (r, c), n in zip(boxes, totals.tolist(), strict=True) for _ in range(n)]
    return np.array(rows_, np.int64).reshape(-1, 2)


def turns_of(payload: Payload, turns: np.ndarray) -> np.ndarray:
    many = turns[turns > 1]
    s = payload.tokens("turn", np.minimum(many // 2, 9))
    first, end = -((1 - 2 * s) * many // 32), -((-1 - 2 * s) * many // 32)
    found = np.zeros(len(turns), np.int64)
    within = payload.uniform(np.where(many <= 16, 1, end - first).tolist())
    found[turns > 1] = np.where(many <= 16, s, first + within) % many
    return found


def block(
    raw: bytes,
    models: dict[str, Any],
    frame: tuple[int, ...],
    leaf: int,
    channels: int,
    layer: int,
    octaves: tuple[int, int],
) -> tuple[np.ndarray, ...]:
    payload = Payload(raw, models)
    cell = cells_of(payload, frame, layer)
    o = 1 + payload.tokens("octave", np.zeros(len(cell), np.int64), octaves)
    context = np.minimum(o, 15)
    mean = payload.tokens("mean", context) + (leaf * 473 * 2**o >> 10)
    aspect = payload.tokens("aspect", context)
    log_mean = np.clip(np.ldexp(mean * 1.5, -o), -40, 40)
    log_aspect = np.minimum(np.ldexp(aspect * 3.0, -o), 40)
    r = rough_exp(log_aspect)
    w = np.ldexp(r - 1.0 / r, o)
    turns = np.where(w < 1, 1, 2 * np.floor(np.minimum(w, 1 << 18) * 0.5 + 0.5).astype(np.int64))
    turn = turns_of(payload, turns)
    long, short = rough_exp(-2.0 * log_mean - log_aspect), rough_exp(log_aspect - 2.0 * log_mean)
    f = turn / turns
    a = 4.0 * f * (1.0 - f)
    inverse = np.stack([a * long + (1.0 - a) * short, (1.0 - a) * long + a * short], axis=1)
    density = np.ldexp(np.sqrt(inverse) * 0.5, (leaf + o)[:, None])
    levels = 1 + np.minimum(density, (1 << 22) - 1).astype(np.int64)
    place = np.array(payload.uniform(levels.ravel().tolist()), np.int64).reshape(-1, 2)
    color = np.zeros((len(cell), channels), np.int64)
    for i, stream in enumerate(COLORS[channels]):
        by, sign = context, 1
        if i in (1, 2) and channels > 2:
            sign = np.where(color[:, 0] < 0, -1, 1)
            by = 4 * context + np.minimum(4 * abs(color[:, 0]) >> context, 3)
            if i == 2:
                bits = np.array([min(abs(k).bit_length(), 15) for k in color[:, 1].tolist()], np.int64)
                by = 4 * bits + np.clip(context - bits, 0, 3)
        color[:, i] = sign * payload.tokens(stream, by)
    xy = np.ldexp(cell + (place + 0.5) / levels, leaf)
    rotation = np.where(turns > 1, f - 0.5, 0.0) * np.pi
    logs = np.stack([log_mean + 0.5 * log_aspect, log_mean - 0.5 * log_aspect], axis=1)
    symbols = np.column_stack([cell, o, mean, aspect, turn, place, color])
    return symbols, xy, logs, rotation, color, log_mean


def read(raw: bytes) -> File:
    at = Bytes(raw)
    assert at.take(5) == b"SSPL\x03"
    length, start = at.varint(), at.at
    at = Bytes(raw)
    head = Bytes(at.sealed(start + length)[start:])
    flags, width, height, _, step_index = head.byte(), head.varint(), head.varint(), head.varint(), head.signed()
    channels, layers = (flags & 3) + 1, (flags >> 6) + 1
    leaf, depth = head.byte() - 6, head.byte()
    side = math.ldexp(1.0, leaf + depth)
    wide = (0, 0, math.ceil(width / side), math.ceil(height / side), depth)
    if flags & 16:
        wide = (head.signed(), head.signed(), head.varint(), head.varint(), depth)
    least = [*head.take(layers - 1), 1]
    octaves = list(zip(least, [25, *least], strict=False))
    wide_lengths = [head.varint() for _ in range(layers)]
    b, index_length = (head.byte(), head.varint()) if flags & 8 else (0, 0)
    sections = head.byte() if flags & 32 else 0
    head.take(8 if sections & 1 else 0)
    extras = [head.varint() if sections & bit else 0 for bit in (2, 4)]
    deep = 2 if flags & 4 else 1
    levels = [int.from_bytes(head.take(deep), "little") for _ in range(sections // 8 * channels)]
    models = read_models(head, channels)
    index, _ = Bytes(at.sealed(index_length)), [at.sealed(n) for n in extras]
    columns, rows = (-(-width >> b), -(-height >> b)) if b else (0, 0)
    lengths = [index.varint() for _ in range(layers * columns * rows)]
    seals = [index.take(2 if n < 1024 else 4) if n else b"" for n in lengths]
    parts = []
    for layer in range(layers):
        todo = [(at.sealed(wide_lengths[layer]), wide)]
        for i in range(columns * rows):
            n = layer * columns * rows + i
            data = at.take(lengths[n])
            assert not data or seal(data) == seals[n]
            x, y = i % columns << b, i // columns << b
            cells = [
                math.ceil(min(1 << b, whole - from_) / math.ldexp(8.0, leaf))
                for whole, from_ in ((width, x), (height, y))
            ]
            todo.append((data, (math.floor(math.ldexp(x, -leaf)), math.floor(math.ldexp(y, -leaf)), *cells, 3)))
        parts += [block(data, models, frame, leaf, channels, layer, octaves[layer]) for data, frame in todo if data]
    symbols, xy, logs, rotation, color, log_mean = (np.concatenate(column) for column in zip(*parts, strict=True))
    transform = np.eye(channels)
    if channels > 2:
        a, h, s = math.sqrt(1 / 3), math.sqrt(1 / 2), math.sqrt(1 / 6)
        transform[:3, :3] = [[a, a, a], [h, 0, -h], [s, -2 * s, s]]
    step = math.ldexp(2.0 ** (step_index % 64 / 64), step_index // 64)
    linear = (color * (step * np.exp(-log_mean))[:, None]) @ transform
    floats = (column.astype(np.float32) for column in (np.exp(logs), rotation, linear))
    return File(symbols, xy, *floats, tuple(level / (256**deep - 1) for level in levels))
