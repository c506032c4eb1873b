"""The renderer as one would write it in PyTorch: dense, every Gaussian on every pixel, and by tiles. To be compared with."""

from __future__ import annotations

import time

import numpy as np
import torch

from smartsplat_large.gaussians import CUTOFF, Gaussians, half_extent

TILE = 64


def tiled_seconds(gaussians: Gaussians, side: int) -> float:
    """Forward and backward of the ``side x side`` pixels in the corner, tile by tile, by autograd."""
    boxes = np.concatenate(
        [gaussians.xy - (e := half_extent(gaussians.scale, gaussians.rotation)), gaussians.xy + e], 1
    )
    leaves = _leaves(gaussians)

    def step() -> None:
        for y in range(0, side, TILE):
            for x in range(0, side, TILE):
                near = (boxes[:, :2] < (x + TILE, y + TILE)).all(1) & (boxes[:, 2:] > (x, y)).all(1)
                members = torch.from_numpy(np.flatnonzero(near))
                _render([leaf[members] for leaf in leaves], x, y, TILE).square().sum().backward()  # type: ignore[no-untyped-call]

    return _seconds(step)


def dense_seconds(gaussians: Gaussians, side: int) -> float:
    """The same with every Gaussian on every pixel; memory grows with their product."""
    leaves = _leaves(gaussians)
    return _seconds(lambda: _render(leaves, 0, 0, side).square().sum().backward())  # type: ignore[no-untyped-call]


def _leaves(gaussians: Gaussians) -> list[torch.Tensor]:
    columns = (gaussians.xy, gaussians.scale, gaussians.rotation, gaussians.color)
    return [torch.from_numpy(np.array(column, np.float32)).requires_grad_() for column in columns]


def _render(leaves: list[torch.Tensor], x: int, y: int, side: int) -> torch.Tensor:
    xy, scale, rotation, color = leaves
    at = torch.arange(side, dtype=torch.float32) + 0.5
    dx, dy = x + at[None, None, :] - xy[:, 0, None, None], y + at[None, :, None] - xy[:, 1, None, None]
    c, s = torch.cos(rotation)[:, None, None], torch.sin(rotation)[:, None, None]
    e = (((c * dx + s * dy) / scale[:, 0, None, None]) ** 2 + ((c * dy - s * dx) / scale[:, 1, None, None]) ** 2) / 2
    kernel = torch.where(e < CUTOFF, torch.exp(-e), torch.zeros(()))
    return torch.einsum("nhw,nc->chw", kernel, color)


def _seconds(step: object) -> float:
    """The better of two calls."""
    best = float("inf")
    for _ in range(2):
        began = time.perf_counter()
        step()  # type: ignore[operator]
        best = min(best, time.perf_counter() - began)
    return best
