"""What a .ssplat file is read from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from smartsplat_large.errors import SplatFileError


class Readable(ABC):
    """Bytes at given offsets. Keeps no position, so that threads may share it."""

    path: Path | str
    size_bytes: int

    def error(self, message: str, hint: str | None = None) -> SplatFileError:
        """An error that names the file."""
        return SplatFileError(f"{self.path}: {message}", hint=hint)

    @abstractmethod
    def read(self, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; fewer only at the end of the file.

        Raises
        ------
        SplatFileError
            They cannot be had.
        ValueError
            The file is closed.
        """

    @abstractmethod
    def close(self) -> None:
        """Read no more. Harmless when repeated."""
