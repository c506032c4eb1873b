"""A second decoder, from docs/format.md alone: numpy, constriction, and the table that is part of the format.

Names are those of that page.
"""

import binascii
import io
import zlib
from pathlib import Path

import constriction
import numpy as np

STREAMS = ["count", "octave", "luma", "chroma1", "chroma2", "alpha", "mean", "aspect", "turn"]
STEPS = {"chroma1": 4, "chroma2": 4}  # contexts a step; of others 1
GROWTH = {"luma": 8, "chroma1": 4, "chroma2": 4, "alpha": 8, "mean": 8, "aspect": 8}  # in eighths; of others 0
SPLITS = [0.5, 1, 2, 4, 8, 16, 64, 1e6]
# How many magnitudes share each token, and the first of them.
SIZE = np.array([1] * 16 + [1 << (bits - 3) for bits in range(5, 41) for _ in range(4)])
FIRST = np.cumsum(SIZE) - SIZE
TOKENS = {name: np.arange(0 if name in ("count", "octave", "aspect", "turn") else -159, 160) for name in STREAMS}
ROOTS = np.array([2.0 ** (i / 8) for i in range(8)])
RGBA = np.array([[1, 1, 1, 0], [1, 0, -1, 0], [1, -2, 1, 0], [0, 0, 0, 1]]) * np.sqrt([[1 / 3], [1 / 2], [1 / 6], [1]])
TABLE = Path(__file__).parents[2] / "smartsplat_large" / "codec" / "standard.bin"


class Bytes(io.BytesIO):
    """Reads one field after the other."""

    def number(self, n=1, order="big"):
        return int.from_bytes(self.read(n), order)

    def varint(self):
        byte = self.number()
        return byte if byte < 128 else byte - 128 + 128 * self.varint()

    def signed(self):
        value = self.varint()
        return -(value + 1) // 2 if value % 2 else value // 2

    def sealed(self, n):
        data = self.read(n)
        assert not n or self.read(len(seal(data))) == seal(data)
        return data


def seal(data):
    if len(data) < 1024:
        return binascii.crc_hqx(data, 0xFFFF).to_bytes(2, "little")
    return zlib.crc32(data).to_bytes(4, "little")


def power8(n):
    """``2^(n / 8)``."""
    return np.ldexp(ROOTS[n % 8], n // 8)


def rough_exp(x):
    """``E(x)``."""
    y = 1.4426950408889634 * x
    return np.ldexp(1 + (y - np.floor(y)), np.floor(y).astype(int))


class Picture:
    """A file that was read: ``size, background, xy, scale, rotation, color``."""

    def __init__(self, raw):
        file = Bytes(raw)
        assert file.read(5) == b"SSPL\x03"
        length, start = file.varint(), file.tell()
        file.seek(0)
        self.read_header(Bytes(file.sealed(start + length)[start:]))
        index, _, _ = (Bytes(file.sealed(length)) for length in self.front_lengths)
        lengths = [index.varint() for _ in self.wide_lengths for _ in self.frames[1:]]
        parts = []
        for layer, wide_length in enumerate(self.wide_lengths):
            for number, frame in enumerate(self.frames):
                payload = file.read(lengths.pop(0)) if number else file.sealed(wide_length)
                assert not number or not payload or index.read(len(seal(payload))) == seal(payload)
                if payload:
                    parts.append(self.block(payload, frame, layer))
        self.xy, *others = (np.concatenate(column) for column in zip(*parts, strict=True))
        self.scale, self.rotation, self.color = (column.astype(np.float32) for column in others)

    def read_header(self, head):
        flags, self.size, _ = head.number(), np.array([head.varint(), head.varint()]), head.varint()
        self.channels, layers, sample_bytes = (flags & 3) + 1, (flags >> 6) + 1, 2 if flags & 4 else 1
        self.step, self.leaf, depth = 2.0 ** (head.signed() / 64), head.number() - 6, head.number()
        corner, cells = (0, 0), np.ceil(self.size / 2.0 ** (self.leaf + depth)).astype(int)
        if flags & 16:
            corner, cells = (head.signed(), head.signed()), (head.varint(), head.varint())
        self.frames = [(corner, cells, depth)]
        self.octaves = [25, *head.read(layers - 1), 1]
        self.wide_lengths = [head.varint() for _ in range(layers)]
        side, index_length = (1 << head.number(), head.varint()) if flags & 8 else (0, 0)
        for y in range(0, self.size[1], side) if side else ():
            for x in range(0, self.size[0], side):
                cells = np.ceil(np.minimum(side, self.size - [x, y]) / 2.0 ** (self.leaf + 3)).astype(int)
                self.frames.append((np.ldexp([x, y], -self.leaf), cells, 3))
        sections = head.number() if flags & 32 else 0
        head.read(8 if sections & 1 else 0)
        self.front_lengths = [index_length, *(head.varint() if sections & bit else 0 for bit in (2, 4))]
        self.peak, levels = 256**sample_bytes - 1, self.channels if sections & 8 else 0
        self.background = tuple(head.number(sample_bytes, "little") / self.peak for _ in range(levels))
        self.read_models(head.read())

    def read_models(self, raw):
        self.families, self.histograms, self.tables = {}, {}, {}
        digits = io.StringIO(raw.hex())  # each is half a byte
        self.s = SPLITS[int(digits.read(1), 16)]
        absent = {"chroma1": self.channels < 3, "chroma2": self.channels < 3, "alpha": self.channels % 2}
        for stream in [stream for stream in STREAMS if not absent.get(stream)]:
            first = digits.read(1)
            self.families[stream] = digits.read(4) if first == "8" else first + digits.read(2)
        deflated = raw[(digits.tell() + 1) // 2 :]
        found = Bytes(zlib.decompress(deflated, -15) if deflated else b"")
        while found.tell() < len(found.getvalue()):
            key, first, tokens = (STREAMS[found.number()], found.number()), found.number(2), found.number(2)
            levels = np.frombuffer(found.read(tokens), np.uint8).astype(int)
            self.histograms[key] = first, np.where(levels, power8(2 * levels), 0)
        table = Bytes(zlib.decompress(TABLE.read_bytes()))
        for stream in [stream for stream in STREAMS if stream != "alpha"]:
            contexts, first, tokens = table.number(), table.number(2), table.number()
            levels = np.frombuffer(table.read(4 * contexts * tokens), np.int8).astype(int)
            self.tables[stream] = first, levels.reshape(4, contexts, tokens)

    def weights(self, stream, context):
        """The first possible token, and the weights from there on."""
        if (stream, context) in self.histograms:
            return self.histograms[stream, context]
        first, end = 0, min(2 * context, 16) if stream == "turn" else 319
        if stream == "octave":
            upper, least = self.octaves[context : context + 2]
            first, end = np.searchsorted(FIRST, [least - 1, upper - 2], "right") - [1, 0]
        family = self.kernel if len(self.families[stream]) == 4 else self.standard
        return first, family(stream, context)[first:end]

    def standard(self, stream, context):
        first, levels = self.tables[stream]
        while context >= levels.shape[1]:
            context -= STEPS.get(stream, 1)
        a = [(int(digit, 16) + 8) % 16 - 8 for digit in self.families[stream]]
        e = np.full(len(TOKENS[stream]), -128)
        e[first : first + levels.shape[2]] = a @ levels[1:, context] - 2 * (levels[0, context] & 255)
        return power8(np.maximum(e, -128))

    def kernel(self, stream, context):
        c, shape = np.frombuffer(bytes.fromhex(self.families[stream]), np.int8).astype(int)
        growth = power8(GROWTH.get(stream, 0) * (context // STEPS.get(stream, 1)))
        centre = np.sign(c) * power8(abs(c) - 41) * growth
        width = max(power8(4 * (shape >> 2 & 63) - 32) * growth, 0.25)
        token = TOKENS[stream]
        z = SIZE[abs(token)]
        x = np.sign(token) * (FIRST[abs(token)] + (z - 1) / 2)
        bell = 1 / (1 + (((abs(x) if stream == "luma" else x) - centre) / width) ** 2)
        for _ in range(shape & 3):
            bell = bell**2
        return z * bell

    def split_weights(self, n):
        s, k = self.s, np.arange(n // 2, 0, -1.0)
        lower = np.cumprod([1.0, *(k * (n - k + s) / ((n - k + 1) * (k - 1 + s)))])
        return 0, np.concatenate([lower[::-1], lower[1 - n % 2 :]])

    def grouped(self, keys, weights):
        """A symbol for each key, those of one key together; ``weights(key)`` are the first symbol and the weights."""
        found = np.zeros(len(keys), int)
        for key in np.unique(keys).tolist():
            at = np.flatnonzero(keys == key)
            found[at], each = weights(key)
            if len(each) > 1:
                found[at] += self.coder.decode(constriction.stream.model.Categorical(each, perfect=False), len(at))
        return found

    def uniform(self, sizes):
        found = np.zeros(sizes.shape, int)
        found[sizes > 1] = self.coder.decode(constriction.stream.model.Uniform(), sizes[sizes > 1].astype(np.int32))
        return found

    def tokens(self, stream, contexts):
        token = TOKENS[stream][self.grouped(contexts, lambda context: self.weights(stream, context))]
        size = SIZE[abs(token)]
        low = self.uniform(np.minimum(size, 1 << 16))
        return np.sign(token) * (FIRST[abs(token)] + low + (self.uniform(size >> 16) << 16))

    def cells(self, corner, size, depth, layer):
        """The leaf cell, (x, y), of each Gaussian in a frame."""
        n = self.tokens("count", np.full(size[0] * size[1], layer))
        cell = np.argwhere(np.ones(size[::-1]))
        for level in range(2 * depth):
            cell, n = np.repeat(cell[n > 0], 2, axis=0), n[n > 0]
            cell[:, level % 2] = 2 * cell[:, level % 2] + np.arange(len(cell)) % 2
            first = self.grouped(n, self.split_weights)
            n = np.stack([first, n - first], axis=1).ravel()
        return corner + np.repeat(cell, n, axis=0)[:, ::-1]

    def turns(self, L):
        sector, sectors = self.tokens("turn", np.minimum(L // 2, 9)), np.minimum(L, 16)
        first, end = (-((1 - 2 * i) * L // (2 * sectors)) for i in (sector, sector + 1))
        return (first + self.uniform(end - first)) % L

    def colors(self, c):
        found = [self.tokens("luma", c)]
        if self.channels > 2:
            chroma1 = self.tokens("chroma1", 4 * c + np.minimum(4 * abs(found[0]) >> c, 3))
            n = np.minimum(np.frexp(abs(chroma1))[1], 15)
            chroma2 = self.tokens("chroma2", 4 * n + np.clip(c - n, 0, 3))
            found += [np.where(found[0] < 0, -1, 1) * chroma for chroma in (chroma1, chroma2)]
        if self.channels % 2 == 0:
            found.append(self.tokens("alpha", c))
        return np.stack(found, axis=1)

    def block(self, payload, frame, layer):
        """``xy, scale, rotation, color`` of the Gaussians of a block in a layer."""
        words = np.frombuffer(payload + bytes(-len(payload) % 4), ">u4").astype(np.uint32)
        self.coder = constriction.stream.queue.RangeDecoder(words)
        cell = self.cells(*frame, layer)
        o = 1 + self.tokens("octave", np.full(len(cell), layer))
        c = np.minimum(o, 15)
        m = self.tokens("mean", c) + (473 * self.leaf * 2**o >> 10)
        u = np.clip(np.ldexp(1.5 * m, -o), -40, 40)
        v = np.minimum(np.ldexp(3.0 * self.tokens("aspect", c), -o), 40)
        r = rough_exp(v)
        w = np.ldexp(r - 1 / r, o)
        L = np.where(w < 1, 1, 2 * np.floor(np.minimum(w, 1 << 18) / 2 + 0.5)).astype(int)
        f = self.turns(L) / L
        A, B, a = rough_exp(-2 * u - v), rough_exp(v - 2 * u), 4 * f * (1 - f)
        density = np.sqrt(np.stack([a * A + (1 - a) * B, a * B + (1 - a) * A], axis=1)) / 2
        PQ = 1 + np.minimum(np.ldexp(density, (self.leaf + o)[:, None]), (1 << 22) - 1).astype(int)
        xy = np.ldexp(cell + (self.uniform(PQ) + 0.5) / PQ, self.leaf)
        transform = (RGBA if self.channels > 2 else np.eye(2))[: self.channels, : self.channels]
        color = (self.colors(c) * (self.step * np.exp(-u))[:, None]) @ transform
        scale = np.exp(np.stack([u + v / 2, u - v / 2], axis=1))
        return xy, scale, np.where(L > 1, f - 0.5, 0) * np.pi, color

    def pixels(self):
        """(height, width, channels), whole levels."""
        total = np.zeros((*self.size[::-1], self.channels)) + (self.background or 0)
        for (x, y), (long, short), angle, color in zip(self.xy, self.scale, self.rotation, self.color, strict=True):
            reach = long * np.sqrt(2 * np.log(255))
            columns, rows = (slice(max(0, round(at - reach)), max(0, round(at + reach))) for at in (x, y))
            dx, dy = np.arange(self.size[0])[columns] + 0.5 - x, np.arange(self.size[1])[rows, None] + 0.5 - y
            c, s = np.cos(angle, dtype=float), np.sin(angle, dtype=float)
            e = (((c * dx + s * dy) / long) ** 2 + ((c * dy - s * dx) / short) ** 2) / 2
            kernel = np.maximum((np.exp(-e) - 1 / 255) / (1 - 1 / 255), 0)
            total[rows, columns] += kernel[:, :, None] * color
        return np.floor(np.clip(total, 0, 1) * self.peak + 0.5)
