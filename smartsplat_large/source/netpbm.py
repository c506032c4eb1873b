"""Binary PGM and PPM, of 8 or 16 bits: the plainest format that programs write to a pipe."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np

from smartsplat_large.errors import SourceError
from smartsplat_large.lattice import Size
from smartsplat_large.source.raw import RawLayout

_KINDS = {b"P5": ("pgm", 1), b"P6": ("ppm", 3)}
_STORED: dict[int, np.dtype[Any]] = {255: np.dtype(np.uint8), 65535: np.dtype(">u2")}
_MOST_DIGITS = 9
_LONGEST_COMMENT = 1 << 16


def netpbm_header(file: BinaryIO, name: str) -> RawLayout:
    """Read the header.

    Raises
    ------
    SourceError
        It is damaged, or its brightest value is not that of 8 or 16 bits.
    """
    kind, channels = _KINDS[file.read(2)]
    width, height, brightest = (_number(file, name) for _ in range(3))
    if not width or not height:
        raise SourceError(f"{name}: {width} x {height} pixels are no image", hint="write it again")
    if brightest not in _STORED:
        raise SourceError(
            f"{name}: its brightest value is {brightest}; 255 and 65535 are supported",
            hint="convert it to full 8 or 16 bits first",
        )
    return RawLayout(format=kind, size=Size(width, height), channels=channels, stored=_STORED[brightest])


def _number(file: BinaryIO, name: str) -> int:
    """The next number of the header, read up to and with the one white space that ends it."""
    word = b""
    while len(word) <= _MOST_DIGITS and (byte := file.read(1)):
        if byte == b"#":
            byte = file.readline(_LONGEST_COMMENT)[-1:]
        if not byte.isspace():
            word += byte
        elif word:
            break
    if not word.isdigit() or len(word) > _MOST_DIGITS:
        raise SourceError(f"{name}: not a readable PGM or PPM: {word!r} is no number", hint="write it again")
    return int(word)
