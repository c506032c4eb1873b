"""What every renderer can do, and how Gaussians look from a given zoom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float32, Float64, Int32

from smartsplat_large.array_types import Moments, Pixels, Planes, WholePlanes
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Window


@dataclass(frozen=True, slots=True)
class Gradients:
    """Derivatives of a scalar loss by each column of a :class:`Gaussians`, same shapes, float64."""

    xy: Float64[np.ndarray, "n 2"]
    scale: Float64[np.ndarray, "n 2"]
    rotation: Float64[np.ndarray, n]
    color: Float64[np.ndarray, "n c"]

    @staticmethod
    def empty(count: int, channels: int) -> Gradients:
        """Room for them, not initialised."""
        return Gradients(np.empty((count, 2)), np.empty((count, 2)), np.empty(count), np.empty((count, channels)))

    def first(self, count: int) -> Gradients:
        """Those of the first rows, as views."""
        return Gradients(self.xy[:count], self.scale[:count], self.rotation[:count], self.color[:count])


Room = Callable[[tuple[int, ...], Any], np.ndarray]
"""Room for an array of a shape and a type, as :func:`np.empty` makes it."""

Spread = Callable[[Callable[[slice], None], int], None]
"""Calls a function with slices that part ``range(count)``, perhaps in several threads."""


def at_once(function: Callable[[slice], None], count: int) -> None:
    """The plainest :data:`Spread`: one call."""
    function(slice(0, count))


class Renderer(Protocol):
    """Sums Gaussians into a window of an image seen at ``pitch`` level-0 pixels per output pixel.

    The window is in output pixels: output pixel (0, 0) covers level-0 area ``[0, pitch) x [0, pitch)``. Level ``k`` of
    the pyramid is ``pitch = 2**k``; below 1 the picture is enlarged. Each Gaussian is convolved with the output pixel's
    box (variance + (pitch^2 - 1) / 12, amplitude rescaled so that energy is kept), so zooming out never aliases.

    A ``base`` is planes of the window that are there already; the Gaussians are added to them. It is not changed. Without
    one, they are added to ``background``, one number a channel, or to black where that is empty.
    """

    background: tuple[float, ...]

    def forward(self, gaussians: Gaussians, window: Window, pitch: float = 1.0, base: Planes | None = None) -> Planes:
        """SmartSplat eq. 4 without the final clamp: ``(channels, height, width)`` float32."""
        ...

    def pixels(self, gaussians: Gaussians, window: Window, dtype: np.dtype[Any], pitch: float = 1.0) -> Pixels:
        """``to_pixels(forward(...), dtype)``, to the bit: clamped and rounded, ``(height, width, channels)``."""
        ...

    def backward(self, gaussians: Gaussians, window: Window, d_planes: Planes, pitch: float = 1.0) -> Gradients:
        """Gradients of ``sum(d_planes * forward(...))``."""
        ...


@dataclass(frozen=True, slots=True)
class Projection:
    """Gaussians seen at a pitch, ready for rasters: computed once a step, shared by all blocks."""

    records: Float64[np.ndarray, "n r"]
    peaks: Float32[np.ndarray, "n c"]
    """Colours at the centre, as they are at this pitch."""

    def take(self, index: Int32[np.ndarray, "m"]) -> Projection:
        """Those at ``index``, copied: what is near in the image is near in memory then."""
        return Projection(self.records.take(index, axis=0), self.peaks.take(index, axis=0))


@dataclass(frozen=True, slots=True)
class PointwiseLoss:
    """``l1 |r| + l2 r^2 / 2``, with the residual ``r`` of a clamped rendering from ``target``, the pixels of its window."""

    target: WholePlanes
    l1: float
    l2: float


class BlockRenderer(Renderer, Protocol):
    """A renderer whose passes can be taken apart, so that no block repeats what is the same for all of them.

    ``forward`` is ``render(project(...))``; ``backward`` is ``gradients`` of ``correlate(project(...))``. Moments of several
    windows add up to those of their union.
    """

    side: int
    """Pixels on a side of the smallest blocks that keep it busy; 0 where any do."""

    def project(
        self, gaussians: Gaussians, pitch: float, spread: Spread = at_once, room: Room = np.empty
    ) -> Projection:
        """The Gaussians as rasters want them. For all of a fit, ``spread`` and ``room`` are those of its columns."""
        ...

    def render(self, projection: Projection, window: Window, base: Planes | None = None) -> Planes: ...

    def correlate(self, projection: Projection, window: Window, d_planes: Planes) -> Moments: ...

    def descend(
        self, projection: Projection, window: Window, loss: PointwiseLoss, base: Planes | None = None
    ) -> tuple[float, float, Moments]:
        """All of a step where the loss is pointwise: sums of ``|r|`` and ``r^2``, and the moments of the gradient."""
        ...

    def gradients(
        self, gaussians: Gaussians, projection: Projection, moments: Moments, pitch: float, rows: slice, out: Gradients
    ) -> None:
        """Write the gradients of ``rows`` into ``out``, which has room for them alone; ``moments`` are those rows' too."""
        ...


def box_variance(pitch: float) -> float:
    """Variance, in level-0 pixels squared, that seeing at ``pitch`` adds to a Gaussian fitted at pitch 1."""
    return max(0.0, (pitch * pitch - 1) / 12)
