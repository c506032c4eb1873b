"""Puts a file in its place in one go, so that nobody ever finds half of it."""

from __future__ import annotations

from collections.abc import Iterable

from smartsplat_large.atomic_output import part_file
from smartsplat_large.places import Place
from smartsplat_large.remote_output import check_address, put


def write_atomic(place: Place, parts: Iterable[bytes | memoryview], *, overwrite: bool = False) -> int:
    """Write ``parts`` to a path or an address; returns the number of bytes. On any error what was there is as it was.

    Raises
    ------
    OutputExistsError
        ``place`` exists and may not be overwritten, or is a folder.
    UsageError
        Its folder does not exist or may not be written to, or the address may not.
    DiskFullError
        The disk is full.
    """
    if isinstance(place, str):
        check_address(place, overwrite=overwrite)
        data = b"".join(parts)
        put(place, data)
        return len(data)
    with part_file(place, overwrite=overwrite) as part, part.open("wb") as file:
        return sum(file.write(piece) for piece in parts)
