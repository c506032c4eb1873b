"""How fast a .ssplat file is made and read: Gaussians parsed and encoded a second, windows, and a whole picture.

    python pipelines/benchmark_codec.py [FILE.ssplat] [--json OUT.json]

Without a file, Gaussians are drawn: 250 000 on 8192 x 4096 pixels, about ratio 100. The parse is of one thread, the whole
picture of all cores, to .npy, which takes no time to compress. Rates are by processor time, which other work on the machine
hardly changes; of the whole picture both are told. A window is the middle
1024 x 1024 pixels: from opening the file, and with its blocks parsed but nothing of them in a processor's cache.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import smartsplat_large as ss
from smartsplat_large.codec import SplatFile, encode, write_atomic
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Size, Window

SIZE, COUNT, FINENESS = Size(8192, 4096), 250_000, 0.9
WINDOW = 1024
REPEATS = 5
CACHE_BYTES = 1 << 27
"""More than a processor's caches hold."""


def drawn() -> Gaussians:
    """Like those of a fit: crowded centres, log-normal sizes, colours of both signs, nearly grey."""
    rng = np.random.default_rng(0)
    spacing = np.sqrt(SIZE.pixels / COUNT)
    mean, aspect = np.log(0.6 * spacing) + rng.normal(0, 0.45, COUNT), rng.gamma(1.5, 0.4, COUNT)
    scale = np.exp(np.stack([mean + aspect / 2, mean - aspect / 2], axis=1)).astype(np.float32)
    color = rng.laplace(0.05, 0.08, (COUNT, 1)) + rng.laplace(0, 0.015, (COUNT, 3))
    xy = rng.random((COUNT, 2)) * (SIZE.width, SIZE.height)
    crowd = COUNT // 2
    xy[:crowd] = xy[rng.integers(crowd, COUNT, crowd) // 8 * 8] + rng.normal(0, 3 * spacing, (crowd, 2))
    return Gaussians(xy, scale, rng.uniform(-1.5, 1.5, COUNT).astype(np.float32), color.astype(np.float32))


@dataclass(frozen=True, slots=True)
class Times:
    """Medians of a few runs, after one that compiles."""

    wall_s: float
    cpu_s: float
    """Of all threads together."""


def timed(work: Callable[[], Any], before: Callable[[], Any] = lambda: None) -> Times:
    """``before`` each run, something that does not count."""
    work()
    runs = []
    for _ in range(REPEATS):
        before()
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        runs.append((time.perf_counter() - wall, time.process_time() - cpu))
    return Times(*(statistics.median(column) for column in zip(*runs, strict=True)))


def parse(path: Path) -> int:
    with SplatFile(path) as file:
        return len(file.gaussians())


def window(path: Path) -> None:
    """The middle of the picture, from a file that was just opened."""
    with ss.open(path) as picture:
        picture.read(middle(picture))


def parsed_window_seconds(path: Path) -> float:
    """Processor time of the same from blocks that are parsed already, as when one pans across a picture."""
    elsewhere = np.ones(CACHE_BYTES, np.uint8)
    with ss.open(path) as picture:
        return timed(lambda: picture.read(middle(picture)), elsewhere.sum).cpu_s


def middle(picture: ss.SplatImage) -> Window:
    """At most ``WINDOW`` pixels each way."""
    width, height = min(WINDOW, picture.width), min(WINDOW, picture.height)
    return Window((picture.width - width) // 2, (picture.height - height) // 2, width, height)


def measure(path: Path, folder: Path) -> dict[str, float]:
    with SplatFile(path) as file:
        header, gaussians, size_bytes = file.header, file.gaussians(), file.size_bytes
    again: dict[str, Any] = dict(size=header.size, bits=header.bits, fineness=header.fineness)
    encoding, parsing = timed(lambda: encode(gaussians, **again)), timed(lambda: parse(path))
    out = folder / "out.npy"
    decoding = timed(lambda: ss.decode(path, out, overwrite=True))
    return {
        "gaussians": header.count,
        "megapixels": round(header.size.megapixels, 2),
        "ratio": round(header.size.pixels * header.channels * header.bits / 8 / size_bytes, 1),
        "bytes_per_gaussian": round(size_bytes / header.count, 3),
        "parse_million_per_s": round(header.count / parsing.cpu_s / 1e6, 3),
        "encode_million_per_s": round(header.count / encoding.cpu_s / 1e6, 3),
        "window_ms": round(1e3 * timed(lambda: window(path)).cpu_s, 2),
        "parsed_window_ms": round(1e3 * parsed_window_seconds(path), 2),
        "decode_cpu_s": round(decoding.cpu_s, 3),
        "decode_s": round(decoding.wall_s, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--json", type=Path, help="also write the table there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = given.file or Path(folder) / "drawn.ssplat"
        if given.file is None:
            write_atomic(path, encode(drawn(), size=SIZE, bits=8, fineness=FINENESS).parts)
        found = measure(path, Path(folder))
    for name, value in found.items():
        print(f"{name:24} {value:>12g}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
