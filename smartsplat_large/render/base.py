"""What every renderer can do, and how Gaussians look from a given zoom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Float64

from smartsplat_large.array_types import Planes
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Window


@dataclass(frozen=True, slots=True)
class Gradients:
    """Derivatives of a scalar loss by each column of a :class:`Gaussians`, same shapes, float64."""

    xy: Float64[np.ndarray, "n 2"]
    scale: Float64[np.ndarray, "n 2"]
    rotation: Float64[np.ndarray, n]
    color: Float64[np.ndarray, "n c"]


class Renderer(Protocol):
    """Sums Gaussians into a window of an image seen at ``pitch`` level-0 pixels per output pixel.

    The window is in output pixels: output pixel (0, 0) covers level-0 area ``[0, pitch) x [0, pitch)``. Level ``k`` of
    the pyramid is ``pitch = 2**k``; below 1 the picture is enlarged. Each Gaussian is convolved with the output pixel's
    box (variance + (pitch^2 - 1) / 12, amplitude rescaled so that energy is kept), so zooming out never aliases.
    """

    def forward(self, gaussians: Gaussians, window: Window, pitch: float = 1.0) -> Planes:
        """SmartSplat eq. 4 without the final clamp: ``(channels, height, width)`` float32."""
        ...

    def backward(self, gaussians: Gaussians, window: Window, d_planes: Planes, pitch: float = 1.0) -> Gradients:
        """Gradients of ``sum(d_planes * forward(...))``."""
        ...


def box_variance(pitch: float) -> float:
    """Variance, in level-0 pixels squared, that seeing at ``pitch`` adds to a Gaussian fitted at pitch 1."""
    return max(0.0, (pitch * pitch - 1) / 12)
