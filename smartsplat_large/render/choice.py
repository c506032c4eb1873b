"""The renderer of a device."""

from __future__ import annotations

from smartsplat_large.config import Device
from smartsplat_large.render.base import BlockRenderer
from smartsplat_large.render.cpu import CpuRenderer
from smartsplat_large.render.cuda import CudaRenderer


def renderer_on(device: Device, background: tuple[float, ...]) -> BlockRenderer:
    """A renderer that adds Gaussians to ``background``; ``auto`` is the processor.

    Raises
    ------
    MissingDependencyError
        ``cuda`` is asked for, and there is no GPU here, or nothing to use it with.
    """
    return CudaRenderer(background) if device == "cuda" else CpuRenderer(background)
