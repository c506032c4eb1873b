"""Integer geometry of images, windows, blocks and levels. No arrays, no pixels.

Coordinates are ``x`` to the right and ``y`` down, in pixels of the level they are named with. Level ``k`` is the
image shrunk by ``2**k``; its size is the ceiling of the quotient.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Size:
    """Width and height in pixels, both at least 1."""

    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"size {self.width} x {self.height}: both sides must be at least 1")

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def megapixels(self) -> float:
        return self.pixels / 1e6

    @property
    def window(self) -> Window:
        """The whole image as a window."""
        return Window(0, 0, self.width, self.height)

    def at_level(self, level: int) -> Size:
        """The size of pyramid level ``level``: ``ceil(side / 2**level)``."""
        return Size(-(-self.width >> level), -(-self.height >> level)) if level else self

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A rectangle of pixels ``[x, x + width) x [y, y + height)``; may be empty, may lie outside the image."""

    x: int
    y: int
    width: int
    height: int

    @property
    def x_end(self) -> int:
        return self.x + self.width

    @property
    def y_end(self) -> int:
        return self.y + self.height

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)``, the order of array axes."""
        return (self.height, self.width)

    @property
    def is_empty(self) -> bool:
        return self.width <= 0 or self.height <= 0

    def expanded(self, margin: int) -> Window:
        """Grown by ``margin`` pixels on all four sides."""
        return Window(self.x - margin, self.y - margin, self.width + 2 * margin, self.height + 2 * margin)

    def clipped(self, size: Size) -> Window:
        """The part inside the image; empty (width or height 0) where there is none."""
        return self.intersection(size.window)

    def intersection(self, other: Window) -> Window:
        """The common part; empty where there is none."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        return Window(x, y, max(0, min(self.x_end, other.x_end) - x), max(0, min(self.y_end, other.y_end) - y))

    def contains(self, other: Window) -> bool:
        return self.x <= other.x and self.y <= other.y and other.x_end <= self.x_end and other.y_end <= self.y_end

    def slices(self, origin: Window) -> tuple[slice, slice]:
        """Where this window lies in an array that holds ``origin``: ``array[rows, columns]``."""
        y, x = self.y - origin.y, self.x - origin.x
        return (slice(y, y + self.height), slice(x, x + self.width))

    def __str__(self) -> str:
        return f"{self.x},{self.y},{self.width},{self.height}"


@dataclass(frozen=True, slots=True)
class Block:
    """One unit of work: the pixels it owns (``core``) and those it must see (``outer``, core plus halo, clipped)."""

    index: int
    core: Window
    outer: Window


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """A partition of an image into square blocks, row by row; the ones at its edges may be smaller.

    The grid begins ``shift`` pixels above and to the left of the image, less than a block.
    """

    size: Size
    block: int
    halo: int = 0
    shift: int = 0

    def __post_init__(self) -> None:
        if self.block < 1 or self.halo < 0 or not 0 <= self.shift < self.block:
            raise ValueError(
                f"block {self.block} must be at least 1, halo {self.halo} at least 0, shift {self.shift} below a block"
            )

    @property
    def columns(self) -> int:
        return -(-(self.size.width + self.shift) // self.block)

    @property
    def rows(self) -> int:
        return -(-(self.size.height + self.shift) // self.block)

    def __len__(self) -> int:
        return self.columns * self.rows

    def __getitem__(self, index: int) -> Block:
        if not 0 <= index < len(self):
            raise IndexError(index)
        row, column = divmod(index, self.columns)
        x, y = column * self.block - self.shift, row * self.block - self.shift
        core = Window(x, y, self.block, self.block).clipped(self.size)
        return Block(index, core, core.expanded(self.halo).clipped(self.size))

    def __iter__(self) -> Iterator[Block]:
        return (self[i] for i in range(len(self)))

    def group(self, number: int) -> list[int]:
        """The blocks of one of the four colours of a checkerboard: none lies beside another, not even at a corner."""
        return [i for i in range(len(self)) if 2 * (i // self.columns % 2) + i % self.columns % 2 == number]
