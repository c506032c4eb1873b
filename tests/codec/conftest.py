"""Gaussians as a fit leaves them, made up: clustered centres, log-normal sizes, colours of both signs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from smartsplat_large.codec import SplatFile, encode, write_atomic
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Size

MakeBatch = Callable[..., Gaussians]


@pytest.fixture
def batch() -> MakeBatch:
    def make(count: int, size: Size, channels: int = 3, seed: int = 0) -> Gaussians:
        rng = np.random.default_rng(seed)
        spacing = np.sqrt(size.pixels / count)
        mean = np.log(0.6 * spacing) + rng.normal(0, 0.45, count)
        aspect = rng.gamma(1.5, 0.4, count)
        scale = np.exp(np.stack([mean + aspect / 2, mean - aspect / 2], axis=1)).astype(np.float32)
        color = rng.laplace(0.1, 0.2, (count, 1)) + rng.laplace(0, 0.04, (count, channels))
        xy = rng.random((count, 2)) * (size.width, size.height)
        crowd = count // 2
        xy[:crowd] = xy[rng.integers(crowd, count, crowd) // 8 * 8] + rng.normal(0, 3 * spacing, (crowd, 2))
        rotation = rng.uniform(-1.5, 1.5, count).astype(np.float32)
        return Gaussians(xy, scale, rotation, color.astype(np.float32))

    return make


@pytest.fixture
def reopened(tmp_path: Path) -> Callable[..., SplatFile]:
    """Encodes into a file, and opens it."""

    def make(gaussians: Gaussians, size: Size, **settings: object) -> SplatFile:
        path = tmp_path / "picture.ssplat"
        write_atomic(path, encode(gaussians, size=size, bits=8, **settings).parts, overwrite=True)  # type: ignore[arg-type]
        return SplatFile(path)

    return make
