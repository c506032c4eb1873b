"""Learns the models that every decoder knows (smartsplat_large/codec/standard.bin) from fits of pictures.

    python pipelines/standard_models.py PICTURE... --fits FOLDER [--ratios 50 100 200 500 1000] [--table FILE]

Runs in the environment that pipelines/check.py sets up. Two crops of 768 x 512 pixels of each picture, one of them reduced
to half, are fitted with the preset balanced, in turn at one ratio and the next; FOLDER keeps the files. Each file is a
point of a log-linear family: its logarithms of chances are a base plus three coordinates times three directions. All are
found together, by Adam on the bits that the symbols take.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from reporting import guarded, note, parser

from smartsplat_large.api import fit
from smartsplat_large.codec import SplatFile
from smartsplat_large.codec.entropy import Tally
from smartsplat_large.codec.layout import WIDE, wide_frame
from smartsplat_large.codec.payload import code_block, coded_order
from smartsplat_large.codec.quantize import STEPS_PER_OCTAVE
from smartsplat_large.codec.standard import DIRECTIONS, FARTHEST, STANDARD_STREAMS, Table, tables_to_bytes
from smartsplat_large.codec.tokens import STREAMS
from smartsplat_large.codec.writer import quantized
from smartsplat_large.config import preset

CROP = (768, 512)
FINER = (2, 3)
"""Octaves by which fits of the lowest ratio are rounded once more, for the contexts that high qualities need."""
HIGH = 9
"""The first octave for which these count."""
FINER_SHARE = 0.25
STEPS, RATE = 500, 0.05
WITHIN = 0.95
"""Share of the files that lie within the largest coordinates."""
PULL = 30.0
"""Weight of what holds base and directions near smooth ones."""
BLUR = (0.02, 0.08, 0.8, 0.08, 0.02)

Counts = dict[tuple[str, int], np.ndarray]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("pictures", nargs="+", type=Path)
    arguments.add_argument("--fits", type=Path, required=True)
    arguments.add_argument("--ratios", nargs="+", type=int, default=[50, 100, 200, 500, 1000])
    arguments.add_argument("--table", type=Path, default=Path("standard.bin"))
    given = arguments.parse_args()
    given.fits.mkdir(parents=True, exist_ok=True)
    files = list(fitted(given.pictures, given.ratios, given.fits))
    counted = [counts_of(path) for path in files]
    for counts, path in zip(counted, files, strict=True):
        if path.stem.endswith(f"_{min(given.ratios)}"):
            add_finer(counts, path)
    tables = {name: learnt(name, counted) for name in STANDARD_STREAMS}
    given.table.write_bytes(tables_to_bytes(tables))
    note(f"{given.table}: {given.table.stat().st_size} bytes from {len(files)} files")


def fitted(pictures: list[Path], ratios: list[int], folder: Path) -> Iterator[Path]:
    """Files of the fits of crops; those that are there already are not made again."""
    for number, picture in enumerate(sorted(pictures)):
        rng = np.random.default_rng(number)
        crops = {shrink: cut(picture, shrink, rng) for shrink in (2, 1)}
        for turn, ratio in enumerate(ratios):
            shrink = 1 + turn % 2
            name = f"{picture.stem}_{shrink}"
            path = folder / f"{name}_{ratio}.ssplat"
            if not path.exists():
                note(path.name)
                crops[shrink].save(folder / f"{name}.png")
                fit(folder / f"{name}.png", path, config=preset("balanced").replace(ratio=ratio))
            yield path


def cut(picture: Path, shrink: int, rng: np.random.Generator) -> Image.Image:
    """A part of a picture, reduced."""
    image = Image.open(picture).convert("RGB")
    width, height = (shrink * side for side in CROP)
    x, y = (int(rng.integers(0, whole - side)) for whole, side in zip(image.size, (width, height), strict=True))
    return image.crop((x, y, x + width, y + height)).resize(CROP, Image.Resampling.LANCZOS)


def counts_of(path: Path) -> Counts:
    """How often each token is in each context of a file."""
    tally = Tally()
    with SplatFile(path) as file:
        for scope, symbols in file.payloads():
            code_block(tally, replace(scope, version=3), symbols, len(symbols))
    return merged(tally.histograms)


def add_finer(counts: Counts, path: Path) -> None:
    """Add to the high octaves of ``counts`` what rounding the Gaussians of a file to finer steps gives."""
    with SplatFile(path) as file:
        gaussians, size, usual = file.gaussians(), file.header.size, file.step_index
    for octaves in FINER:
        tally = Tally()
        table, layout = quantized(gaussians, size, usual - octaves * STEPS_PER_OCTAVE)
        layout = replace(layout, wide=wide_frame(layout, table.cell))
        symbols = table.take(coded_order(table.cell, layout.wide))
        code_block(tally, layout.scope(WIDE, 0, gaussians.channels), symbols, len(symbols))
        for key, found in tally.histograms.items():
            if key[0] in ("luma", "chroma1", "chroma2", "mean", "aspect") and key[1] // STREAMS[key[0]].steps >= HIGH:
                counts[key] = counts.get(key, 0) + FINER_SHARE * found


def merged(histograms: Mapping[tuple[str, int], np.ndarray]) -> Counts:
    """Octaves of all layers together: a layer has a part of them."""
    found: Counts = {}
    for (name, context), counts in histograms.items():
        key = (name, 0 if name == "octave" else context)
        found[key] = found[key] + counts if key in found else counts
    return found


def learnt(name: str, counted: list[Counts]) -> Table:
    """Base and directions for all contexts of a stream that files have."""
    steps = STREAMS[name].steps
    contexts = -(-(max(key[1] for counts in counted for key in counts if key[0] == name) + 1) // steps) * steps
    empty = np.zeros_like(next(counts[key] for counts in counted for key in counts if key[0] == name))
    all_ = np.array([[counts.get((name, c), empty) for c in range(contexts)] for counts in counted])
    used = np.flatnonzero(all_.sum(axis=(0, 1)))
    first = int(used[0])
    n = all_[..., first : int(used[-1]) + 1]
    base, directions = descended(n, usual(n, first, STREAMS[name].signed, steps))
    below = (base.max(axis=1, keepdims=True) - base) / np.log(2)
    return Table(
        first,
        np.minimum(np.rint(4 * below), 64).astype(np.int64),
        np.clip(np.rint(8 * directions / np.log(2)), -127, 127).astype(np.int64),
    )


def usual(n: np.ndarray, first: int, signed: bool, steps: int) -> np.ndarray:
    """Logarithms of smoothed shares by context; a context that nothing was seen in is as that of the octave before."""
    x = first + np.arange(n.shape[2]) - (159 if signed else 0)
    total = n.sum(axis=0)
    for context in range(steps, len(total)):
        if total[context].sum() < 30:
            total[context] += total[context - steps] * 30 / max(total[context - steps].sum(), 30)
    spread = np.array([np.convolve(row, BLUR, "same") for row in total])
    spread += 1e-3 * (total.sum(axis=1, keepdims=True) + 30) / (1 + (x / 8) ** 2)
    return np.asarray(np.log(spread / spread.sum(axis=1, keepdims=True)))


def descended(n: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Base and directions for counts by file, context and token."""
    rng = np.random.default_rng(0)
    weight = 1 / np.sqrt(n.sum(axis=(1, 2)) + 1)
    counts, usual_base = torch.tensor(n * (weight / weight.mean())[:, None, None]), torch.tensor(start)
    found = [
        torch.tensor(values, requires_grad=True)
        for values in (start, rng.normal(0, 0.05, (DIRECTIONS, *start.shape)), rng.normal(0, 0.5, (len(n), DIRECTIONS)))
    ]
    adam = torch.optim.Adam(found, RATE, betas=(0.9, 0.99))
    falling = torch.optim.lr_scheduler.LambdaLR(adam, lambda taken: 1 - 0.9 * (taken + 1) / STEPS)
    for _ in range(STEPS):
        adam.zero_grad()
        base, directions, at = found
        nats = -(counts * torch.log_softmax(base + torch.tensordot(at, directions, 1), dim=2)).sum()
        roughness = directions.square().sum() + directions.diff(dim=2).square().sum()
        loss = nats + PULL / 2 * ((base - usual_base).square().sum() + roughness) + at.square().sum() / 4
        torch.autograd.backward(loss)
        adam.step()
        falling.step()
    origin, ways, places = (values.detach().numpy() for values in found)
    mean = places.mean(axis=0)
    scale = np.quantile(np.abs(places - mean), WITHIN, axis=0) / FARTHEST
    return origin + np.tensordot(mean, ways, 1), ways * scale[:, None, None]


if __name__ == "__main__":
    guarded(main)
