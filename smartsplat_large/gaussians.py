"""A batch of 2-D Gaussians as columns, and the algebra between its parametrisations.

``C(p) = sum_i c_i G_i(p)`` (SmartSplat eq. 4) with ``G_i`` of covariance ``R S S^T R^T`` (eqs. 3, 6, 7).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from smartsplat_large import columns
from smartsplat_large.array_types import Color, Index, Rotation, Scale, Xy

CUTOFF = 5.541263545158426
"""ln 255. Where the exponent ``d^T Sigma^-1 d / 2`` reaches this, a Gaussian has ended.

The kernel is ``(exp(-e) - 1/255) / (1 - 1/255)`` for ``e < ln 255`` and 0 beyond: the paper drops terms below 1/255, which
leaves a rim one grey level high around large Gaussians; subtracting it makes the kernel continuous and its gradient exact.
It is part of the file format: see docs/decisions/0002-kernel.md.
"""


COLUMNS = ("xy", "scale", "rotation", "color")


@dataclass(frozen=True, slots=True)
class Gaussians:
    """N Gaussians of C channels. Columns are never resized in place; new batches are made instead."""

    xy: Xy
    scale: Scale
    rotation: Rotation
    color: Color

    def __post_init__(self) -> None:
        n = len(self.xy)
        if self.xy.shape != (n, 2) or self.scale.shape != (n, 2) or self.rotation.shape != (n,) or len(self.color) != n:
            raise ValueError(
                f"columns disagree: xy {self.xy.shape}, scale {self.scale.shape}, "
                f"rotation {self.rotation.shape}, color {self.color.shape}"
            )

    def __len__(self) -> int:
        return len(self.xy)

    @property
    def channels(self) -> int:
        return int(self.color.shape[1])

    @property
    def is_finite(self) -> bool:
        """Whether every number of every Gaussian is one."""
        # The sum of a column is not finite as soon as one of it is not, and needs no memory.
        return all(bool(np.isfinite(column.sum(dtype=np.float64))) for column in self._columns)

    def take(self, index: Index) -> Gaussians:
        """The Gaussians at ``index``, copied."""
        # numpy's take is up to twenty times as fast as its brackets where rows are short.
        return Gaussians(*(column.take(index, axis=0) for column in self._columns))

    def chosen(self, index: Index) -> Gaussians:
        """As :meth:`take`, for nearly all of them: as columns, which need not be in memory."""
        return Gaussians(*(columns.taken(column, index) for column in self._columns))

    def part(self, rows: slice) -> Gaussians:
        """Some rows, as views."""
        return Gaussians(*(column[rows] for column in self._columns))

    def put(self, rows: Index | slice, part: Gaussians) -> None:
        """Let some rows be those of ``part``."""
        for column, theirs in zip(self._columns, part._columns, strict=True):
            column[rows] = theirs

    @property
    def _columns(self) -> tuple[np.ndarray, ...]:
        return self.xy, self.scale, self.rotation, self.color

    @staticmethod
    def room(count: int, channels: int) -> Gaussians:
        """Room for ``count`` of them, as columns, not initialised."""
        f32 = np.float32
        return Gaussians(
            columns.empty((count, 2)), columns.empty((count, 2), f32), columns.empty(count, f32),
            columns.empty((count, channels), f32),
        )  # fmt: skip

    @staticmethod
    def empty(channels: int) -> Gaussians:
        """A batch of none."""
        return Gaussians.room(0, channels)

    @staticmethod
    def concatenate(parts: list[Gaussians]) -> Gaussians:
        """All parts in order; ``parts`` must not be empty."""
        return Gaussians(*(np.concatenate(column) for column in zip(*(p._columns for p in parts), strict=True)))


def scale_rotation_to_covariance(scale: Scale, rotation: Rotation) -> Float64[np.ndarray, "n 3"]:
    """``(xx, xy, yy)`` of ``R S S^T R^T``, SmartSplat eqs. 3, 6, 7, in float64."""
    c, s = np.cos(rotation, dtype=np.float64), np.sin(rotation, dtype=np.float64)
    vx, vy = np.square(scale[:, 0], dtype=np.float64), np.square(scale[:, 1], dtype=np.float64)
    return np.stack([c * c * vx + s * s * vy, c * s * (vx - vy), s * s * vx + c * c * vy], axis=1)


def covariance_to_scale_rotation(covariance: Float64[np.ndarray, "n 3"]) -> tuple[Scale, Rotation]:
    """Inverse of :func:`scale_rotation_to_covariance`, with the longer axis first and rotation in (-pi/2, pi/2]."""
    xx, xy, yy = covariance.T
    mean, half = (xx + yy) / 2, (xx - yy) / 2
    spread = np.hypot(half, xy)
    rotation = np.arctan2(xy, half) / 2
    # The smaller eigenvalue from the determinant: mean - spread would cancel for needles.
    large = mean + spread
    small = (xx * yy - xy * xy) / large
    scale = np.sqrt(np.stack([large, np.maximum(small, 0)], axis=1))
    return scale.astype(np.float32), rotation.astype(np.float32)


def covariance_to_conic(covariance: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
    """Upper triangle ``(A, B, C)`` of the inverse covariance."""
    xx, xy, yy = covariance.T
    conic: Float64[np.ndarray, "n 3"] = np.stack([yy, -xy, xx], axis=1) / (xx * yy - xy * xy)[:, None]
    return conic


def half_extent(scale: Scale, rotation: Rotation) -> Float64[np.ndarray, "n 2"]:
    """Half width and half height, in pixels, of the box in which each Gaussian is not zero (tighter than eq. 8)."""
    covariance = scale_rotation_to_covariance(scale, rotation)
    extent: Float64[np.ndarray, "n 2"] = np.sqrt(2 * CUTOFF * covariance[:, [0, 2]])
    return extent
