"""What the numbers of a Gaussian that were decoded before say of the next: contexts, and what values count from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import vectorize

from smartsplat_large.codec.tokens import MAX_CONTEXT, SECTORS, Ints

QUARTERS = 4
COLOR_CONTEXTS = QUARTERS * (MAX_CONTEXT + 1)
"""More than any component has."""


@vectorize(cache=True)
def chroma1_context(octave: Any, luma: Any) -> Any:
    """Octave, and how much of it luma takes, in quarters. Of arrays, and of numbers in compiled code."""
    octave = min(octave, MAX_CONTEXT)
    return QUARTERS * octave + min((QUARTERS * abs(luma)) >> octave, QUARTERS - 1)


@vectorize(cache=True)
def chroma2_context(octave: Any, chroma1: Any) -> Any:
    """Bit length of the first chroma, and how far it is below the octave. Of arrays, and of numbers in compiled code."""
    magnitude, bits = abs(chroma1), 0
    while magnitude:
        magnitude >>= 1
        bits += 1
    bits = min(bits, MAX_CONTEXT)
    return QUARTERS * bits + min(max(min(octave, MAX_CONTEXT) - bits, 0), QUARTERS - 1)


def usual_mean(octave: Ints, leaf: int) -> Ints:
    """The mean scale of a leaf cell's side, as a symbol: what means are told as differences from."""
    return np.asarray((leaf * 473 << octave) >> 10)


def turn_sectors(turns: Ints, turn: Ints) -> Ints:
    """The turn itself where there are few, otherwise the sector that it lies in."""
    return np.asarray(np.where(turns <= SECTORS, turn, (2 * SECTORS * turn + turns) // (2 * turns) % SECTORS))


def turn_contexts(turns: Ints) -> Ints:
    """Half their number; one more for all those with sectors."""
    return np.asarray(np.minimum(turns >> 1, SECTORS // 2 + 1))


def sector_turns(turns: Ints, sector: Ints) -> tuple[Ints, Ints]:
    """The first turn of a sector, which may be below 0 for those at the circle's end, and how many there are."""
    first = -((1 - 2 * sector) * turns // (2 * SECTORS))
    end = -(-(2 * sector + 1) * turns // (2 * SECTORS))
    few = turns <= SECTORS
    return np.where(few, sector, first), np.where(few, 1, end - first)
