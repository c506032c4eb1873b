"""What symbols take in other contexts: bits a Gaussian, each with standard models learnt for it.

    python pipelines/contexts_tried.py FILE... --fits FOLDER [--json FILE]

Runs in the environment that pipelines/check.py sets up. FOLDER is that of pipelines/standard_models.py; FILE... are other
.ssplat files of three channels, named as those are, with the ratio at the end. Ideal code lengths, coordinates not counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from reporting import fixed, guarded, note, parser, publish, table
from standard_models import learnt

from smartsplat_large.codec import SplatFile
from smartsplat_large.codec.contexts import chroma1_context, chroma2_context, usual_mean
from smartsplat_large.codec.entropy import SPLIT_SHAPES, Tally
from smartsplat_large.codec.models import fit_standard
from smartsplat_large.codec.models import split_bits as shape_bits
from smartsplat_large.codec.payload import code_block
from smartsplat_large.codec.quantize import Symbols, bit_length
from smartsplat_large.codec.tokens import STREAMS, Ints, token_count, tokenize

SPLIT_BITS = 3
"""What naming a shape of splits takes."""


@dataclass(frozen=True, slots=True)
class Row:
    """A stream in some context, over the files of each ratio."""

    stream: str
    context: str
    bits: dict[int, float]


@dataclass(frozen=True, slots=True)
class Known:
    """The symbols of a file, in the order in which they stand there."""

    ratio: int
    leaf: int
    symbols: Symbols
    splits: list[tuple[int, Tally]]
    """By halving level."""

    @property
    def octave(self) -> Ints:
        return np.asarray(np.minimum(self.symbols.octave, 15))

    @property
    def quarter(self) -> Ints:
        """How much of the octave luma takes."""
        return np.asarray(chroma1_context(self.symbols.octave, self.color(0)) - 4 * self.octave)

    @property
    def sign(self) -> Ints:
        return np.asarray(np.where(self.color(0) < 0, -1, 1))

    def color(self, index: int) -> Ints:
        return np.asarray(self.symbols.color[:, index])

    def class_of(self, values: Ints, *borders: float) -> Ints:
        """Classes of a logarithm that a symbol stands for."""
        return np.asarray(np.digitize(np.ldexp(values.astype(np.float64), -self.symbols.octave), borders))

    @property
    def size_class(self) -> Ints:
        return self.class_of(self.symbols.mean - usual_mean(self.symbols.octave, self.leaf), -0.4, -0.1, 0.2)

    @property
    def left(self) -> Ints:
        """Bit length of the square of what the octave leaves beside luma."""
        square = np.ldexp(0.6, 2 * self.octave) - np.square(self.color(0).astype(np.float64))
        return bit_length(np.maximum(square, 0).astype(np.int64))


TRIED: dict[str, dict[str, Callable[[Known], tuple[Ints, Ints]]]] = {
    "mean": {
        "octave; the mean itself": lambda k: (k.octave, k.symbols.mean),
        "octave; less that of a leaf cell (taken)": lambda k: (
            k.octave, k.symbols.mean - usual_mean(k.symbols.octave, k.leaf)),
    },
    "aspect": {
        "octave (taken)": lambda k: (k.octave, k.symbols.aspect),
        "octave, mean": lambda k: (4 * k.octave + k.size_class, k.symbols.aspect),
    },
    "luma": {
        "octave (taken)": lambda k: (k.octave, k.color(0)),
        "octave, mean": lambda k: (4 * k.octave + k.size_class, k.color(0)),
        "octave, aspect": lambda k: (4 * k.octave + k.class_of(k.symbols.aspect, 0.1, 0.3, 0.6), k.color(0)),
    },
    "chroma1": {
        "octave": lambda k: (k.octave, k.color(1)),
        "what the octave leaves beside luma": lambda k: (k.left, k.color(1)),
        "octave, share of luma": lambda k: (4 * k.octave + k.quarter, k.color(1)),
        "octave, share of luma; luma's sign (taken)": lambda k: (4 * k.octave + k.quarter, k.sign * k.color(1)),
    },
    "chroma2": {
        "bits of chroma1": lambda k: (bit_length(abs(k.color(1))), k.color(2)),
        "bits of chroma1; luma's sign": lambda k: (bit_length(abs(k.color(1))), k.sign * k.color(2)),
        "bits of chroma1, octave; chroma1's sign": lambda k: (
            chroma2_context(k.symbols.octave, k.color(1)), np.where(k.color(1) < 0, -1, 1) * k.color(2)),
        "bits of chroma1, octave; luma's sign (taken)": lambda k: (
            chroma2_context(k.symbols.octave, k.color(1)), k.sign * k.color(2)),
        "bits of chroma1, octave, share of luma; luma's sign": lambda k: (
            4 * chroma2_context(k.symbols.octave, k.color(1)) + k.quarter, k.sign * k.color(2)),
    },
}  # fmt: skip


class Splits(Tally):
    """Keeps the splits of each call by themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Tally] = []

    def split(self, totals: Ints, values: Ints | None) -> Ints:
        self.calls.append(Tally())
        return self.calls[-1].split(totals, values)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("files", nargs="+", type=Path)
    arguments.add_argument("--fits", type=Path, required=True)
    given = arguments.parse_args()
    train = [known(path) for path in sorted(given.fits.glob("*.ssplat"))]
    test = [known(path) for path in given.files]
    rows = [measured(stream, name, train, test) for stream, tried in TRIED.items() for name in tried]
    for name, keys in (("one shape (taken)", lambda level, total: 0), ("a shape a level", lambda level, total: level),
                       ("a shape a size", lambda level, total: total.bit_length())):  # fmt: skip
        rows.append(Row("split", name, mean_by_ratio(test, [split_bits(k, keys) for k in test])))
    ratios = sorted(rows[0].bits)
    cells = [(row.stream, row.context, *(fixed(row.bits[ratio], 3) for ratio in ratios)) for row in rows]
    publish(table(("stream", "context", *map(str, ratios)), cells), given.json, rows)


def known(path: Path) -> Known:
    """Symbols and splits of a file."""
    splits: list[tuple[int, Tally]] = []
    with SplatFile(path) as file:
        parts = []
        for scope, symbols in file.payloads():
            tally = Splits()
            code_block(tally, scope, symbols, len(symbols))
            splits += enumerate(tally.calls)
            parts.append(symbols)
        return Known(int(path.stem.rpartition("_")[2]), file.layout.leaf, Symbols.concatenate(parts), splits)


def measured(stream: str, name: str, train: list[Known], test: list[Known]) -> Row:
    """Learn models on some files, and code others with them."""
    note(f"{stream}: {name}")
    learned = learnt(stream, [counted(stream, TRIED[stream][name](k))[0] for k in train])
    bits = []
    for k in test:
        counts, low = counted(stream, TRIED[stream][name](k))
        bits.append(low + fit_standard(stream, learned, {key[1]: n for key, n in counts.items()})[1])
    return Row(stream, name, mean_by_ratio(test, bits))


def counted(stream: str, coded: tuple[Ints, Ints]) -> tuple[dict[tuple[str, int], np.ndarray], float]:
    """Tokens by context, and the bits below them."""
    signed = STREAMS[stream].signed
    tokens, _, sizes = tokenize(coded[1], signed)
    counts = {
        (stream, context): np.bincount(tokens[coded[0] == context], minlength=token_count(signed)).astype(np.float64)
        for context in np.unique(coded[0]).tolist()
    }
    return counts, float(np.log2(sizes).sum())


def split_bits(k: Known, key: Callable[[int, int], int]) -> float:
    """Bits of all splits, with the best shape for each key."""
    parted: dict[int, Tally] = {}
    fair = 0.0
    for level, tally in k.splits:
        fair += tally.uniform_bits["split"]
        for total, counts in tally.splits.items():
            part = parted.setdefault(key(level, total), Tally()).splits
            part[total] = part[total] + counts if total in part else counts
    shapes = range(len(SPLIT_SHAPES))
    return fair + sum(SPLIT_BITS + min(shape_bits(part, shape) for shape in shapes) for part in parted.values())


def mean_by_ratio(files: list[Known], bits: list[float]) -> dict[int, float]:
    """Bits a Gaussian."""
    each = [(k.ratio, b / len(k.symbols)) for k, b in zip(files, bits, strict=True)]
    return {ratio: float(np.mean([b for r, b in each if r == ratio])) for ratio in {r for r, _ in each}}


if __name__ == "__main__":
    guarded(main)
