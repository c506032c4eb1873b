"""Where files lie: a path, or an address."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit, urlunsplit

Place: TypeAlias = Path | str
"""A path, or an address."""


def is_url(path: object) -> bool:
    """Whether ``path`` names a place outside the file system."""
    return isinstance(path, str) and "://" in path


def place_of(path: str | Path) -> Place:
    """An address as it is, anything else as a path."""
    return str(path) if is_url(path) else Path(path)


def shown(url: str) -> str:
    """What messages and files call an address: without what a signed one proves itself by."""
    if not is_http(url):
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def joined(place: Place, *names: str) -> Any:
    """The place of that name inside ``place``; of the same type."""
    if isinstance(place, Path):
        return place.joinpath(*names)
    tail = "".join(f"/{name}" for name in names)
    if not is_http(place):
        return place.rstrip("/") + tail
    parts = urlsplit(place)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + tail))


def is_http(url: str) -> bool:
    """Whether an address is a web server's."""
    return url.startswith(("http://", "https://"))
