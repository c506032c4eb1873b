"""What each stage needs at its peak, in bytes, computed before it starts, and what disks hold. All sizes here are in bytes.

The constants count the arrays that are alive at once in the code they describe; a test holds measured peaks against them.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import re
import shutil
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from smartsplat_large.errors import DiskFullError, MemoryLimitError, UsageError

MiB = 1 << 20
GiB = 1 << 30

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
          "kib": 1 << 10, "mib": MiB, "gib": GiB, "tib": 1 << 40, "k": 1 << 10, "m": MiB, "g": GiB, "t": 1 << 40}  # fmt: skip


def parse_bytes(text: str) -> int:
    """``"4GiB"``, ``"500MB"`` or ``"65536"`` as a number of bytes.

    Raises
    ------
    UsageError
        The text is not a positive size.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*", text)
    unit = _UNITS.get(match[2].lower()) if match else None
    size = float(match[1]) * unit if match and unit else 0.0
    if not 1 <= size < math.inf:
        raise UsageError(f"{text!r} is not a size", hint="write for example 4GiB, 500MB or 65536")
    return int(size)


def format_bytes(size: float) -> str:
    """``1536`` as ``"1.5 KiB"``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1024 or unit == "TiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.2f} {unit}"
        size /= 1024
    raise AssertionError


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """A projected peak, by what it is spent on."""

    program: int
    """Interpreter, libraries, compiled kernels."""
    gaussians: int
    """State of all Gaussians in the driving process."""
    working: int
    """Arrays of the tasks that run at once."""
    decoder: int = 0
    """What the decoder of the image holds."""

    @property
    def total(self) -> int:
        return self.program + self.gaussians + self.working + self.decoder


PROGRAM = 512 * MiB
"""Resident size of the program with numba, dask, zarr and their kernels loaded, and the dashboard running, in a first run,
which compiles them: a fit of next to nothing takes 500 MiB then, and 240 ever after."""
ON_GPU = 1152 * MiB
"""What torch, Triton and CUDA's driver add to that where a GPU is used; a fit of four megapixels had 1079 MiB of them."""


def program_on(device: str) -> int:
    """Resident size of the program itself."""
    return PROGRAM + (ON_GPU if device == "cuda" else 0)


_HELD = (
    "a progressive JPEG, an interlaced PNG, a WebP, a turned image or a TIFF of one strip is held while it is decoded"
)


def require(footprint: Footprint, limit: int, what: str, *, hint: str | None = None) -> None:
    """Refuse a plan that does not fit; the usual hint is that of a fit. If the decoder does not, the hint says so.

    Raises
    ------
    MemoryLimitError
        Names the projection, the limit, and a way out.
    """
    if footprint.total > limit:
        enough = format_bytes(footprint.total * 1.05).replace(" ", "")
        if footprint.total - footprint.decoder <= limit:
            hint = f"--memory {enough}, or a tiled TIFF of the image: {_HELD}, here {format_bytes(footprint.decoder)}"
        raise MemoryLimitError(
            f"{what} needs {format_bytes(footprint.total)} of memory, the limit is {format_bytes(limit)}",
            hint=hint or f"--memory {enough}, fewer Gaussians (a higher --ratio), or fewer --workers",
        )


_BETWEEN_RETURNS_S = 2.0


@contextlib.contextmanager
def returned() -> Iterator[None]:
    """For the length of a ``with`` block, what is freed goes back to the system within two seconds.

    glibc would keep it, in a heap for each thread. To return every array at once, which it can do as well, costs more time: it
    has to be found and cleared again for the next. Other libraries of C are left alone.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is None:
        yield
        return
    ended = threading.Event()

    def look_after() -> None:
        while not ended.wait(_BETWEEN_RETURNS_S):
            trim(0)

    thread = threading.Thread(target=look_after, name="smartsplat-memory", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


_LEAST_SHARE = 0.1
"""Of its bytes uncompressed that an image can be hoped to take."""


def require_room(folder: str | Path, most_bytes: int, announced: str, *, hint: str) -> str:
    """Refuse an image that can hardly fit on the disk of ``folder``; otherwise return what :func:`doubt_of_room` says.

    ``most_bytes`` is its size uncompressed. Photographs take most of that, drawings and slides with an empty background much
    less, and a background alone next to nothing. How much cannot be told before the pixels are read, so only that is
    refused of which not even a tenth fits.

    Raises
    ------
    DiskFullError
        The message begins with ``announced``, a sentence that names the place and the size.
    """
    free = _free_bytes(folder)
    if free is not None and free < most_bytes * _LEAST_SHARE:
        raise DiskFullError(f"{announced}; {format_bytes(free)} are free, less than a tenth of that", hint=hint)
    return doubt_of_room(folder, most_bytes)


def doubt_of_room(folder: str | Path, most_bytes: int) -> str:
    """The end of a note of ``most_bytes`` that are going to ``folder``, where they may not fit; empty where they do."""
    free = _free_bytes(folder)
    return "" if free is None or free >= most_bytes else f"; {format_bytes(free)} are free, so it may not fit"


def _free_bytes(folder: str | Path) -> int | None:
    """None where nothing is known, as of an address; some network file systems say 0 of everything."""
    try:
        disk = shutil.disk_usage(folder)
    except OSError:
        return None
    return disk.free if disk.total else None
