"""A decoder written from docs/format.md alone: numpy and constriction, and of the package only the table of the format."""

from __future__ import annotations

import binascii
import math
import struct
import zlib
from collections import namedtuple
from functools import partial
from pathlib import Path

import numpy as np
import constriction

File = namedtuple("File", "size bits background xy scale rotation color")
# In the order of the format: whether values are signed, eighths of an octave that a kernel grows by a step, contexts a step.
STREAMS = {
    "count": (False, 0, 1),
    "octave": (False, 0, 1),
    "luma": (True, 8, 1),
    "chroma1": (True, 4, 4),
    "chroma2": (True, 4, 4),
    "alpha": (True, 8, 1),
    "mean": (True, 8, 1),
    "aspect": (False, 8, 1),
    "turn": (False, 0, 1),
}
SPLITS = [0.5, 1, 2, 4, 8, 16, 64, 1e6]
ROOTS = np.array([2.0 ** (i / 8) for i in range(8)])
TABLE = Path(__file__).parents[2] / "smartsplat_large" / "codec" / "standard.bin"
FIRST = np.array([*range(16), *((4 + part) << (n - 3) for n in range(5, 41) for part in range(4))])
SIZE = np.array([1] * 16 + [1 << (n - 3) for n in range(5, 41) for _ in range(4)])


class Bytes:
    def __init__(self, raw):
        self.raw, self.at = raw, 0

    def take(self, n):
        self.at += n
        assert self.at <= len(self.raw)
        return self.raw[self.at - n : self.at]

    def byte(self):
        return self.take(1)[0]

    def varint(self):
        byte = self.byte()
        return byte if byte < 128 else byte - 128 + 128 * self.varint()

    def signed(self):
        value = self.varint()
        return -(value + 1) // 2 if value % 2 else value // 2

    def sealed(self, n):
        data = self.take(n)
        assert not n or self.take(len(seal(data))) == seal(data)
        return data


def seal(data):
    return (
        struct.pack("<H", binascii.crc_hqx(data, 0xFFFF)) if len(data) < 1024 else struct.pack("<I", zlib.crc32(data))
    )


def power8(n):
    return np.ldexp(ROOTS[n % 8], n // 8)


def standard_tables():
    raw, found = Bytes(zlib.decompress(TABLE.read_bytes())), {}
    for stream in STREAMS:
        if stream != "alpha":
            contexts, first, tokens = struct.unpack(">BHB", raw.take(4))
            levels = np.frombuffer(raw.take(4 * contexts * tokens), np.int8).astype(int).reshape(4, contexts, tokens)
            found[stream] = first, levels[0] & 255, levels[1:]
    return found


STANDARD = standard_tables()


def standard_weights(stream, coordinates, context):
    signed, _, steps = STREAMS[stream]
    first, b, d = STANDARD[stream]
    while context >= len(b):
        context -= steps
    e = np.full(319 if signed else 160, -128)
    e[first : first + b.shape[1]] = np.maximum(coordinates @ d[:, context] - 2 * b[context], -128)
    return power8(e)


def kernel_weights(stream, raw, context):
    signed, growth, steps = STREAMS[stream]
    c, shape = struct.unpack("bB", raw)
    grown = power8(growth * (context // steps))
    centre = np.sign(c) * power8(abs(c) - 41) * grown
    width = max(power8(4 * (shape >> 2) - 32) * grown, 0.25)
    token = np.arange(-159 if signed else 0, 160)
    z = SIZE[abs(token)]
    x = np.sign(token) * (FIRST[abs(token)] + (z - 1) / 2)
    bell = 1 / (1 + (((abs(x) if stream == "luma" else x) - centre) / width) ** 2)
    for _ in range(shape & 3):
        bell = bell * bell
    return z * bell


def split_weights(s, n):
    k = np.arange(n // 2, 0, -1.0)
    lower = np.cumprod([1.0, *(k * (n - k + s) / ((n - k + 1) * (k - 1 + s)))])
    return 0, np.concatenate([lower[::-1], lower[1 - n % 2 :]])


class Models:
    def __init__(self, raw, channels, least):
        digits = Bytes(raw.hex())  # each is half a byte
        self.split, self.families, self.histograms = SPLITS[int(digits.take(1), 16)], {}, {}
        absent = {"chroma1": channels < 3, "chroma2": channels < 3, "alpha": channels % 2}
        for stream in [stream for stream in STREAMS if not absent.get(stream)]:
            first = digits.take(1)
            if first == "8":
                self.families[stream] = partial(kernel_weights, stream, bytes.fromhex(digits.take(4)))
            else:
                coordinates = [(int(digit, 16) + 8) % 16 - 8 for digit in first + digits.take(2)]
                self.families[stream] = partial(standard_weights, stream, coordinates)
        rest = raw[(digits.at + 1) // 2 :]
        found = Bytes(zlib.decompress(rest, -15) if rest else b"")
        while found.at < len(found.raw):
            stream, context, first, count = struct.unpack(">BBHH", found.take(6))
            levels = np.frombuffer(found.take(count), np.uint8).astype(int)
            self.histograms[list(STREAMS)[stream], context] = first, np.where(levels, power8(2 * levels), 0)
        starts = np.searchsorted(FIRST, [n - 1 for n in least], "right") - 1
        ends = np.searchsorted(FIRST, [n - 2 for n in [25, *least[:-1]]], "right")
        self.octaves = dict(enumerate(zip(starts, ends, strict=True)))

    def weights(self, stream, context):
        if (stream, context) in self.histograms:
            return self.histograms[stream, context]
        ranges = {"octave": self.octaves.get(context), "turn": (0, min(2 * context, 16))}
        first, end = ranges.get(stream, (0, 319))
        return first, self.families[stream](context)[first:end]


class Payload:
    def __init__(self, raw, models):
        words = np.frombuffer(raw + bytes(-len(raw) % 4), ">u4").astype(np.uint32)
        self.coder, self.models = constriction.stream.queue.RangeDecoder(words), models

    def grouped(self, keys, weights):
        """A symbol for each key, those of one key together; ``weights(key)``: the first symbol, the weights from there on."""
        found = np.zeros(len(keys), np.int64)
        for key in np.unique(keys).tolist():
            at = np.flatnonzero(keys == key)
            found[at], chances = weights(key)
            if len(chances) > 1:
                found[at] += self.coder.decode(constriction.stream.model.Categorical(chances, perfect=False), len(at))
        return found

    def uniform(self, sizes):
        found = np.zeros(sizes.shape, np.int64)
        found[sizes > 1] = self.coder.decode(constriction.stream.model.Uniform(), sizes[sizes > 1].astype(np.int32))
        return found

    def tokens(self, stream, contexts):
        token = self.grouped(contexts, partial(self.models.weights, stream)) - (159 if STREAMS[stream][0] else 0)
        size = SIZE[abs(token)]
        low = self.uniform(np.minimum(size, 1 << 16))
        return np.sign(token) * (FIRST[abs(token)] + low + (self.uniform(size >> 16) << 16))

    def cells(self, frame, layer):
        x, y, columns, rows, depth = frame
        number = np.arange(columns * rows)
        n = self.tokens("count", np.full(columns * rows, layer))
        cell = np.stack([number % columns, number // columns], axis=1)
        for level in range(2 * depth):
            cell, n = cell[n > 0], n[n > 0]
            first = self.grouped(n, partial(split_weights, self.models.split))
            cell, n = np.repeat(cell, 2, axis=0), np.stack([first, n - first], axis=1).ravel()
            axis = 1 - level % 2
            cell[:, axis] *= 2
            cell[1::2, axis] += 1
        return np.repeat(cell, n, axis=0) + np.array([x, y])

    def turns(self, many):
        sectors = np.minimum(many, 16)
        sector = self.tokens("turn", np.minimum(many // 2, 9))
        first, end = (-((1 - 2 * i) * many // (2 * sectors)) for i in (sector, sector + 1))
        return (first + self.uniform(end - first)) % many

    def colors(self, c, channels):
        luma = self.tokens("luma", c)
        found = [luma]
        if channels > 2:
            chroma1 = self.tokens("chroma1", 4 * c + np.minimum(4 * abs(luma) >> c, 3))
            n = np.minimum(np.frexp(abs(chroma1))[1], 15)
            chroma2 = self.tokens("chroma2", 4 * n + np.clip(c - n, 0, 3))
            sign = np.where(luma < 0, -1, 1)
            found += [sign * chroma1, sign * chroma2]
        return np.stack([*found, self.tokens("alpha", c)] if channels % 2 == 0 else found, axis=1)


def rough_exp(x):
    y = x * 1.4426950408889634
    return np.ldexp(1 + (y - np.floor(y)), np.floor(y).astype(int))


def block(payload, frame, layer, leaf, channels, step):
    """The columns of the Gaussians of a block in a layer: xy, scale, rotation, color."""
    cell = payload.cells(frame, layer)
    o = 1 + payload.tokens("octave", np.full(len(cell), layer))
    c = np.minimum(o, 15)
    mean = payload.tokens("mean", c) + (leaf * 473 * 2**o >> 10)
    mean = np.clip(np.ldexp(1.5 * mean, -o), -40, 40)
    aspect = np.minimum(np.ldexp(3.0 * payload.tokens("aspect", c), -o), 40)
    r = rough_exp(aspect)
    w = np.ldexp(r - 1 / r, o)
    turns = np.where(w < 1, 1, 2 * np.floor(np.minimum(w, 1 << 18) / 2 + 0.5)).astype(int)
    f = payload.turns(turns) / turns
    a = 4 * f * (1 - f)
    long, short = rough_exp(-2 * mean - aspect), rough_exp(aspect - 2 * mean)
    inverse = np.stack([a * long + (1 - a) * short, (1 - a) * long + a * short], axis=1)
    levels = 1 + np.minimum(np.ldexp(np.sqrt(inverse) / 2, (leaf + o)[:, None]), (1 << 22) - 1).astype(int)
    xy = np.ldexp(cell + (payload.uniform(levels) + 0.5) / levels, leaf)
    transform = np.eye(channels)
    if channels > 2:
        rows = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]])
        transform[:3, :3] = rows * np.sqrt([[1 / 3], [1 / 2], [1 / 6]])
    color = (payload.colors(c, channels) * (step * np.exp(-mean))[:, None]) @ transform
    scale = np.exp(np.stack([mean + aspect / 2, mean - aspect / 2], axis=1))
    rotation = np.where(turns > 1, f - 0.5, 0) * np.pi
    return xy, *(column.astype(np.float32) for column in (scale, rotation, color))


def frame_of(x, y, width, height, leaf, depth):
    """The coarse cells that cover a rectangle of pixels, from its corner on."""
    corner = [math.floor(math.ldexp(at, -leaf)) for at in (x, y)]
    return *corner, *(math.ceil(math.ldexp(side, -leaf - depth)) for side in (width, height)), depth


def read(raw):
    file = Bytes(raw)
    assert file.take(5) == b"SSPL\x03"
    end, start = file.varint() + file.at, file.at
    file.at = 0
    head = Bytes(file.sealed(end)[start:])
    flags, width, height, _, step = head.byte(), head.varint(), head.varint(), head.varint(), head.signed()
    channels, layers = (flags & 3) + 1, (flags >> 6) + 1
    leaf, depth = head.byte() - 6, head.byte()
    frames = [frame_of(0, 0, width, height, leaf, depth)]
    if flags & 16:
        frames = [(head.signed(), head.signed(), head.varint(), head.varint(), depth)]
    least = [*head.take(layers - 1), 1]
    wide_lengths = [head.varint() for _ in range(layers)]
    b, index_length = (head.byte(), head.varint()) if flags & 8 else (0, 0)
    sections = head.byte() if flags & 32 else 0
    head.take(8 if sections & 1 else 0)
    extras = [head.varint() for bit in (2, 4) if sections & bit]
    deep = 2 if flags & 4 else 1
    background = [int.from_bytes(head.take(deep), "little") for _ in range(channels if sections & 8 else 0)]
    models = Models(head.take(len(head.raw) - head.at), channels, least)
    index = Bytes(file.sealed(index_length))
    for length in extras:
        file.sealed(length)
    if flags & 8:
        corners = [(x, y) for y in range(0, height, 1 << b) for x in range(0, width, 1 << b)]
        frames += [frame_of(x, y, min(1 << b, width - x), min(1 << b, height - y), leaf, 3) for x, y in corners]
    lengths = [index.varint() for _ in range(layers * (len(frames) - 1))]
    parts = []
    for layer in range(layers):
        for number, frame in enumerate(frames):
            data = file.take(lengths.pop(0)) if number else file.sealed(wide_lengths[layer])
            assert not number or not data or index.take(len(seal(data))) == seal(data)
            if data:
                parts.append(block(Payload(data, models), frame, layer, leaf, channels, 2.0 ** (step / 64)))
    columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    return File((width, height), 8 * deep, tuple(level / (256**deep - 1) for level in background), *columns)


def pixels(file):
    """The picture of whole levels, (height, width, channels)."""
    channels = file.color.shape[1]
    picture = np.zeros((*file.size[::-1], channels)) + (file.background or 0)
    c, s = np.cos(file.rotation), np.sin(file.rotation)
    long, short = file.scale.astype(float).T
    reach = np.sqrt(2 * np.log(255)) * np.stack([np.hypot(c * long, s * short), np.hypot(s * long, c * short)], axis=1)
    low, high = (np.clip(np.rint(at), 0, file.size).astype(int) for at in (file.xy - reach, file.xy + reach))
    for i, (x, y) in enumerate(file.xy):
        dx = np.arange(low[i, 0], high[i, 0]) + 0.5 - x
        dy = np.arange(low[i, 1], high[i, 1])[:, None] + 0.5 - y
        e = (((c[i] * dx + s[i] * dy) / long[i]) ** 2 + ((c[i] * dy - s[i] * dx) / short[i]) ** 2) / 2
        kernel = np.maximum((np.exp(-e) - 1 / 255) / (1 - 1 / 255), 0)
        picture[low[i, 1] : high[i, 1], low[i, 0] : high[i, 0]] += kernel[:, :, None] * file.color[i]
    return np.floor(np.clip(picture, 0, 1) * (2**file.bits - 1) + 0.5)
