"""What writing a working copy costs, and reading the windows of a step from it, by how its chunks are packed and unpacked.

    python pipelines/reading.py [--side 6144] [--json FILE]

Runs in the environment that pipelines/check.py sets up. The picture is the bundled photograph laid out mirrored. Windows are
those of a step, of 1024 pixels and a rim, one after the other in one thread; figures are processor milliseconds a megapixel.
"pixels" are read channels last and parted, "planes" as they lie there.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args
from unittest import mock

from reporting import fixed, guarded, note, parser, publish, table
from synthetic import write_mosaic

from smartsplat_large.fitting.ssim import HALO
from smartsplat_large.lattice import BlockGrid, Size
from smartsplat_large.ome_zarr import Codec
from smartsplat_large.pixels import to_whole_planes
from smartsplat_large.source import ImageSource, ingest, open_source
from smartsplat_large.source import zarr as zarr_source

BLOCK = 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One way."""

    codec: str
    by: str
    mb: float
    """Of all levels on disk."""
    write_ms: float
    pixels_ms: float
    planes_ms: float


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--side", type=int, default=6144)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="smartsplat-") as folder:
        rows = list(measured(Size(given.side, given.side), Path(folder)))
    headings = ("packed with", "unpacked by", "MB", "writing", "reading pixels", "reading planes")
    cells = [
        (row.codec, row.by, fixed(row.mb, 0), *(fixed(ms, 1) for ms in (row.write_ms, row.pixels_ms, row.planes_ms)))
        for row in rows
    ]
    publish(table(headings, cells), given.json, rows, side=given.side)


def measured(size: Size, folder: Path) -> Iterator[Row]:
    """A row for each codec and each reader."""
    write_mosaic(folder / "picture.tif", Size(BLOCK, BLOCK))
    written_copy(folder, folder / "first.zarr", "lz4")  # kernels are loaded
    note(f"{size}: picture")
    write_mosaic(folder / "picture.tif", size, overwrite=True)
    grid = BlockGrid(size, BLOCK, HALO)
    seen = sum(block.outer.pixels for block in grid) / 1e6
    for codec in get_args(Codec):
        note(codec)
        copy = folder / f"{codec}.zarr"
        written = spent_ms(partial(written_copy, folder, copy, codec))
        taken = sum(path.stat().st_size for path in copy.rglob("*") if path.is_file()) / 1e6
        for by, reader in (("zarr", by_zarr()), ("zarrs", nullcontext())):
            with reader, open_source(copy) as source:
                read(source, grid, pixels)  # kernels and files are loaded
                times = [spent_ms(partial(read, source, grid, how)) for how in (pixels, planes)]
            yield Row(codec, by, taken, written / size.megapixels, times[0] / seen, times[1] / seen)


def written_copy(folder: Path, copy: Path, codec: Codec) -> None:
    """Write the picture as a working copy is written."""
    with open_source(folder / "picture.tif") as source:
        ingest(source, copy, codec=codec, workers=1).close()


def by_zarr() -> AbstractContextManager[Any]:
    """zarr's own way of reading, for the length of a ``with`` block."""
    return mock.patch.object(zarr_source, "unpacked_by_zarrs", lambda array: array)


def pixels(source: ImageSource, block: Any) -> None:
    to_whole_planes(source.read(block.outer))


def planes(source: Any, block: Any) -> None:
    source.planes(block.outer)


def read(source: ImageSource, grid: BlockGrid, how: Callable[[Any, Any], None]) -> None:
    for block in grid:
        how(source, block)


def spent_ms(work: Callable[[], None]) -> float:
    """Processor milliseconds of all threads."""
    start = time.process_time()
    work()
    return 1000 * (time.process_time() - start)


if __name__ == "__main__":
    guarded(main)
