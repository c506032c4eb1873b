"""What a saved fit belongs to: program, settings, image and plan; and what of that is different now."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from smartsplat_large.config import FitConfig
from smartsplat_large.errors import SourceError
from smartsplat_large.lattice import Size, Window
from smartsplat_large.memory import MiB
from smartsplat_large.places import Place, joined
from smartsplat_large.remote import RemoteFile
from smartsplat_large.remote_zarr import MARKERS
from smartsplat_large.source.base import ImageSource
from smartsplat_large.streaming.listing import Listing, list_address, list_folder
from smartsplat_large.streaming.plan import FitPlan

STATE_FORMAT = 4
"""Of what a saved fit holds. A change of it, or of the program's version, makes older ones unusable."""

Fingerprint: TypeAlias = dict[str, Any]
"""Plain values, as JSON takes and returns them."""

_PROBE = 64


def fingerprint(place: Place, source: ImageSource, config: FitConfig, plan: FitPlan) -> Fingerprint:
    """All that decides the bytes of the file, beside this very machine; the number of workers does not."""
    return {
        "version": importlib.metadata.version("smartsplat-large"),
        "state format": STATE_FORMAT,
        "image": image_identity(place, source),
        "settings": dict(_flat(config.to_dict())),
        "plan": {
            "Gaussians": plan.gaussians,
            "block": plan.block,
            "phases": [[phase.level, phase.steps, phase.ssim, phase.blocked] for phase in plan.phases],
        },
    }


def image_identity(place: Place, source: ImageSource) -> dict[str, Any]:
    """Cheap to find out even of a terabyte: sizes, the time of the last change, and a hash of some of the content.

    Of a zarr hierarchy, sizes and times are those of all its files. Of an image at an address, the store's own mark of this
    version stands for the time; a hierarchy on a web server, which lists no files, has those of its metadata alone.

    Raises
    ------
    SourceError
        The image cannot be read.
    """
    meta = source.meta
    found, samples = _on_disk(place) if isinstance(place, Path) else _elsewhere(place)
    digest = hashlib.blake2b(digest_size=16)
    for part in samples:
        digest.update(part)
    if meta.cheap_windows:
        for window in _probes(meta.size):
            digest.update(source.read(window).tobytes())
    return {
        "size": str(meta.size), "channels": meta.channels, "type of pixels": str(meta.dtype), **found,
        "content": digest.hexdigest(),
    }  # fmt: skip


def _on_disk(path: Path) -> tuple[dict[str, Any], Iterator[bytes]]:
    if path.is_dir():
        return _of_files(list_folder(path), "times"), _samples(path)
    found = path.stat()
    return {"bytes": found.st_size, "time of change": found.st_mtime_ns}, _samples(path)


def _of_files(listing: Listing, stamps: str) -> dict[str, Any]:
    return {
        "bytes": listing.total_bytes,
        "list of files": f"{listing.count} (names, sizes and {stamps}: {listing.digest})",
    }


def _samples(path: Path) -> Iterator[bytes]:
    """The first and the last MiB of a file, or the metadata of a zarr folder."""
    if path.is_dir():
        yield from ((path / name).read_bytes() for name in MARKERS if (path / name).is_file())
        return
    with path.open("rb") as file:
        yield file.read(MiB)
        file.seek(max(0, path.stat().st_size - MiB))
        yield file.read(MiB)


def _elsewhere(url: str) -> tuple[dict[str, Any], Iterator[bytes]]:
    """The same of a file, or of a zarr hierarchy, at an address."""
    files: list[RemoteFile] = []
    listing = None
    try:
        files.append(RemoteFile(url, SourceError))
    except SourceError:
        listing = list_address(url)
        for name in MARKERS:
            with contextlib.suppress(SourceError):
                files.append(RemoteFile(joined(url, name), SourceError))
    found = _of_files(listing, "marks") if listing else {
        "bytes": sum(file.size_bytes for file in files),
        "mark in the store": " ".join(file.stamp for file in files),
    }  # fmt: skip
    return found, (
        part for file in files for part in (file.read(0, MiB), file.read(max(0, file.size_bytes - MiB), MiB))
    )


def _probes(size: Size) -> Iterator[Window]:
    """Nine small windows: corners, middles of the sides, and the centre."""
    width, height = min(_PROBE, size.width), min(_PROBE, size.height)
    for y in (0, (size.height - height) // 2, size.height - height):
        for x in (0, (size.width - width) // 2, size.width - width):
            yield Window(x, y, width, height)


def differences(before: Fingerprint, now: Fingerprint) -> list[str]:
    """One phrase for everything that has changed, what explains most first; empty where nothing has."""
    if any(before.get(name) != now[name] for name in ("version", "state format")):
        return [f"written by version {before.get('version')}, this is {now['version']}"]
    changed = [
        f"the image has changed: its {name} was {old}, is {new}" for name, old, new in _changes(before, now, "image")
    ]
    changed += [f"setting {name} was {old}, is {new}" for name, old, new in _changes(before, now, "settings")]
    if not changed:  # The plan follows from both and, beside them, from the memory limit.
        changed = [
            f"the memory limit leads to another plan: {name} was {old}, is {new}"
            for name, old, new in _changes(before, now, "plan")
        ]
    return changed


def _changes(before: Fingerprint, now: Fingerprint, part: str) -> Iterator[tuple[str, Any, Any]]:
    old, new = before.get(part, {}), now[part]
    for name in [*new, *(name for name in old if name not in new)]:
        if old.get(name) != new.get(name):
            yield name, old.get(name, "not set"), new.get(name, "not set")


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
