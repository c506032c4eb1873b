"""Where all randomness of the initialisation comes from: independent streams named by (seed, purpose, index).

A stream depends on nothing but its name, so draws are the same for any number of workers and any order of tiles.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """What a stream is for. The numbers decide every drawn point: never renumber."""

    TILE = 1
    UNIFORM = 2
    FILL = 3
    SCALE = 4
    COLOR = 5


def generator(seed: int, stream: Stream, index: int = 0) -> np.random.Generator:
    """The counter-based generator of one stream; ``index`` tells tiles or rounds of one purpose apart."""
    key = np.array([seed % 2**64, (int(stream) << 56) + index], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))
