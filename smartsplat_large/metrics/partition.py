"""Which part of every MS-SSIM scale a core window scores, and which pixels that takes. Integers only.

Scale 0 is the picture; each further scale halves it as pytorch-msssim does: a side of odd length gets one zero in
front, so output ``i`` averages inputs ``2 i - side % 2`` and the one after it. An SSIM value at ``i`` sees inputs
``i`` to ``i + 10``. Both rules hold for rows and columns alike, so everything here is about one axis.
"""

from __future__ import annotations

from dataclasses import dataclass

from smartsplat_large.lattice import BlockGrid, Size, Window

WINDOW = 11
"""Taps of the Gaussian window of SSIM."""
SCALES = 5
"""Scales of MS-SSIM."""
REACH = WINDOW - 1
"""Inputs that an SSIM value sees beyond its own index."""


@dataclass(frozen=True, slots=True)
class Span:
    """Indices ``[start, stop)`` of one axis of one scale."""

    start: int
    stop: int

    def __len__(self) -> int:
        return max(0, self.stop - self.start)

    def hull(self, other: Span) -> Span:
        """The smallest span around both; an empty one does not count."""
        if not len(other):
            return self
        return Span(min(self.start, other.start), max(self.stop, other.stop)) if len(self) else other


@dataclass(frozen=True, slots=True)
class AxisScale:
    """One axis of one scale: its whole length, the inputs that must be held, the SSIM values that are scored."""

    side: int
    held: Span
    scored: Span

    @property
    def odd(self) -> int:
        """1 where halving puts a zero in front."""
        return self.side % 2


def scales_defined(size: Size) -> int:
    """5 where MS-SSIM is defined (both sides above 160), 1 where only SSIM is (both at least 11), else 0."""
    shorter = min(size.width, size.height)
    if shorter > REACH << (SCALES - 1):
        return SCALES
    return 1 if shorter >= WINDOW else 0


def axis_scales(core: Span, side: int, scales: int) -> list[AxisScale]:
    """One entry a scale, finest first, for the part ``core`` of an axis of ``side`` pixels.

    Over the parts of any partition of the axis, the scored spans of each scale partition the ``side_k - 10`` SSIM
    values of that scale. ``scales`` of 0 gives one entry that scores nothing.
    """
    sides = [side]
    for _ in range(scales - 1):
        sides.append(-(-sides[-1] // 2))
    found: list[AxisScale] = []
    wanted = Span(0, 0)
    for scale in reversed(range(len(sides))):
        length = sides[scale]
        valid = length - REACH if scales else 0
        scored = Span(min(core.start >> scale, valid), min(core.stop >> scale, valid))
        if len(wanted):
            wanted = Span(max(0, 2 * wanted.start - length % 2), 2 * wanted.stop - length % 2)
        if len(scored):
            wanted = wanted.hull(Span(scored.start, scored.stop + REACH))
        held = wanted if scale else wanted.hull(core)
        found.append(AxisScale(length, held, scored))
    return found[::-1]


def window_scales(core: Window, size: Size) -> list[tuple[AxisScale, AxisScale]]:
    """Rows and columns of every scale for one core window, finest first.

    Raises
    ------
    ValueError
        ``core`` is empty or not inside the picture.
    """
    if core.is_empty or not size.window.contains(core):
        raise ValueError(f"core window {core} is not inside the picture of {size}")
    scales = scales_defined(size)
    rows = axis_scales(Span(core.y, core.y_end), size.height, scales)
    columns = axis_scales(Span(core.x, core.x_end), size.width, scales)
    return list(zip(rows, columns, strict=True))


def core_windows(size: Size, block: int = 1024) -> list[Window]:
    """A partition of the picture into square windows of ``block`` pixels, row by row; the last ones may be smaller."""
    return [part.core for part in BlockGrid(size, block)]


def halo_window(core: Window, size: Size) -> Window:
    """The pixels that scoring ``core`` takes: itself, up to 30 before and up to 160 after it, inside the picture."""
    rows, columns = window_scales(core, size)[0]
    return Window(columns.held.start, rows.held.start, len(columns.held), len(rows.held))
