"""Puts a file in its place in one go, so that nobody ever finds half of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from smartsplat_large.atomic_output import part_file


def write_atomic(path: Path, parts: Iterable[bytes], *, overwrite: bool = False) -> int:
    """Write ``parts`` to ``path``; returns the number of bytes. On any error ``path`` is as it was.

    Raises
    ------
    OutputExistsError
        ``path`` exists and may not be overwritten, or is a folder.
    UsageError
        Its folder does not exist or may not be written to.
    DiskFullError
        The disk is full.
    """
    with part_file(Path(path), overwrite=overwrite) as part, part.open("wb") as file:
        return sum(file.write(piece) for piece in parts)
