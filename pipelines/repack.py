"""What the symbols of .ssplat files take in the version that is written now.

    python pipelines/repack.py FILE... [--json FILE]

Runs in the environment that pipelines/check.py sets up. The files may be of any version that is read; both sizes are
those of whole files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from reporting import guarded, parser, publish, table

from smartsplat_large.codec import SplatFile
from smartsplat_large.codec.models import models_to_bytes
from smartsplat_large.codec.quantize import Symbols, SymbolTable
from smartsplat_large.codec.writer import Extras, pack


@dataclass(frozen=True, slots=True)
class Row:
    """A file, as it is and as it would be written now."""

    file: str
    gaussians: int
    models: int
    bytes: int
    models_now: int
    bytes_now: int
    change: float


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("files", nargs="+", type=Path)
    given = arguments.parse_args()
    rows = [measure(path) for path in given.files]
    lines: list[Sequence[object]] = [
        (r.file, r.gaussians, r.models, r.bytes, r.models_now, r.bytes_now, f"{100 * r.change:+.2f} %") for r in rows
    ]
    mean = sum(row.change for row in rows) / len(rows)
    lines.append(("mean", "", "", "", "", "", f"{100 * mean:+.2f} %"))
    publish(
        table(("file", "Gaussians", "models", "bytes", "models now", "bytes now", "change"), lines), given.json, rows
    )


def measure(path: Path) -> Row:
    """Pack the symbols of a file once more."""
    with SplatFile(path) as file:
        symbols = Symbols.concatenate([part for _, part in file.payloads()])
        header, models = file.header, file.ledger()["models"]
        extras = Extras(
            metadata=header.metadata, icc_profile=header.icc_profile, pixels_per_cm=header.pixels_per_cm,
            background=tuple(round(level * ((1 << header.bits) - 1)) for level in header.background),
        )  # fmt: skip
        now = pack(SymbolTable.of(symbols), file.layout, header.bits, file.step_index, extras)
        size = file.size_bytes
    assert now.models is not None
    models_now = len(models_to_bytes(now.models, header.channels))
    return Row(path.name, len(symbols), models, size, models_now, now.size_bytes, now.size_bytes / size - 1)


if __name__ == "__main__":
    guarded(main)
