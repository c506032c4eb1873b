"""The slow, plain renderer that every other is held against: float64, every pixel against every Gaussian, autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from smartsplat_large.array_types import Pixels, Planes
from smartsplat_large.gaussians import CUTOFF, Gaussians
from smartsplat_large.lattice import Window
from smartsplat_large.pixels import to_pixels
from smartsplat_large.render.base import Gradients, box_variance

if TYPE_CHECKING:
    import torch


class ReferenceRenderer:
    """Implements :class:`~smartsplat_large.render.base.Renderer` in torch float64; for tests, up to about 10^8 terms."""

    background: tuple[float, ...] = ()

    def __init__(self, background: tuple[float, ...] = ()) -> None:
        self.background = background

    def forward(self, gaussians: Gaussians, window: Window, pitch: float = 1.0, base: Planes | None = None) -> Planes:
        planes = _render(_leaves(gaussians, grad=False), window, pitch).numpy()
        below = np.array(self.background or [0.0])[:, None, None] if base is None else base
        total: Planes = (planes + below).astype(np.float32)
        return total

    def pixels(self, gaussians: Gaussians, window: Window, dtype: np.dtype[Any], pitch: float = 1.0) -> Pixels:
        return to_pixels(self.forward(gaussians, window, pitch), dtype)

    def backward(self, gaussians: Gaussians, window: Window, d_planes: Planes, pitch: float = 1.0) -> Gradients:
        import torch

        leaves = _leaves(gaussians, grad=True)
        planes = _render(leaves, window, pitch)
        planes.backward(torch.from_numpy(d_planes.astype(np.float64)))  # type: ignore[no-untyped-call]
        return Gradients(*(leaf.grad.numpy() if leaf.grad is not None else np.zeros(leaf.shape) for leaf in leaves))


def _leaves(gaussians: Gaussians, grad: bool) -> list[torch.Tensor]:
    import torch

    columns = (gaussians.xy, gaussians.scale, gaussians.rotation, gaussians.color)
    return [torch.from_numpy(np.array(c, dtype=np.float64)).requires_grad_(grad) for c in columns]


def _render(leaves: list[torch.Tensor], window: Window, pitch: float) -> torch.Tensor:
    """Eqs. 1, 3, 4 with the kernel of :data:`~smartsplat_large.gaussians.CUTOFF`, term by term."""
    import torch

    xy, scale, rotation, color = leaves
    seen = torch.sqrt(scale**2 + box_variance(pitch)) / pitch
    amplitude = scale.prod(1) / (seen.prod(1) * pitch**2)
    x = torch.arange(window.x, window.x_end, dtype=torch.float64) + 0.5
    y = torch.arange(window.y, window.y_end, dtype=torch.float64) + 0.5
    dx = x[None, None, :] - (xy[:, 0] / pitch)[:, None, None]
    dy = y[None, :, None] - (xy[:, 1] / pitch)[:, None, None]
    c, s = torch.cos(rotation)[:, None, None], torch.sin(rotation)[:, None, None]
    along, across = c * dx + s * dy, c * dy - s * dx
    e = ((along / seen[:, 0, None, None]) ** 2 + (across / seen[:, 1, None, None]) ** 2) / 2
    floor = np.exp(-CUTOFF)
    kernel = torch.where(e < CUTOFF, (torch.exp(-e) - floor) / (1 - floor), torch.zeros_like(e))
    return torch.einsum("nhw,nc->chw", kernel, color * amplitude[:, None])
