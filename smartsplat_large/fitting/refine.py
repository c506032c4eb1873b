"""Matching pursuit: where one more Gaussian would gain most, and which one would be missed least.

With the residual ``r`` and a kernel ``G``, the best amplitude is ``<r, G> / <G, G>`` and lowers the squared error by
``<r, G>^2 / <G, G>``. Taking a Gaussian of colour ``c`` away costs about ``|c|^2 <G, G>``, with ``<G, G> = pi s_x s_y``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64

from smartsplat_large.array_types import Color, Planes, Scale, Xy
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Block

PROFIT = 0.05
"""A proposal is taken if it gains this share of what the removal costs: neighbours make up for most of what goes, and the new
one settles where it gains more than its first guess."""
WIDTHS = (0.3, 0.6)
"""Standard deviations tried, as shares of the Gaussians' mean spacing."""


@dataclass(frozen=True, slots=True)
class Proposals:
    """Gaussians that one block would add, with what each gains in squared error at full size."""

    xy: Xy
    scale: Scale
    color: Color
    gain: Float64[np.ndarray, "n"]

    @staticmethod
    def concatenate(parts: list[Proposals]) -> Proposals:
        return Proposals(
            np.concatenate([p.xy for p in parts]),
            np.concatenate([p.scale for p in parts]),
            np.concatenate([p.color for p in parts]),
            np.concatenate([p.gain for p in parts]),
        )

    def best(self, count: int) -> Proposals:
        """The ``count`` with the largest gains, best first; equal gains in order of position."""
        order = np.lexsort((self.xy[:, 0], self.xy[:, 1], -self.gain))[:count]
        return Proposals(self.xy[order], self.scale[order], self.color[order], self.gain[order])

    def gaussians(self) -> Gaussians:
        return Gaussians(self.xy, self.scale, np.zeros(len(self.xy), np.float32), self.color)


def removal_cost(gaussians: Gaussians) -> Float64[np.ndarray, "n"]:
    """Squared error, summed over pixels and channels, that taking each Gaussian away would add."""
    energy = np.square(gaussians.color, dtype=np.float64).sum(1)
    cost: Float64[np.ndarray, "n"] = energy * np.pi * gaussians.scale.prod(1, dtype=np.float64)
    return cost


def propose(residual: Planes, block: Block, pitch: float, spacing: float, count: int) -> Proposals:
    """The ``count`` best additions to a block, at local maxima of the gain.

    Parameters
    ----------
    residual
        Target minus rendering over ``block.outer``, at ``pitch`` level-0 pixels per pixel.
    spacing
        Mean distance of Gaussians in level-0 pixels.
    """
    # Imported late: 0.15 s, which decoding, and the first step of a fit, need not wait for.
    from scipy import ndimage

    widths = np.array([max(w * spacing / pitch, 0.5) for w in WIDTHS])
    blurred = np.stack([[ndimage.gaussian_filter(plane, w, mode="constant") for plane in residual] for w in widths])
    gains = 4 * np.pi * widths[:, None, None] ** 2 * np.square(blurred).sum(1)
    choice = gains.argmax(0)
    gain: Float32[np.ndarray, "h w"] = gains.max(0)
    peaks = gain == ndimage.maximum_filter(gain, size=2 * int(np.ceil(widths[0])) + 1)
    rows, columns = block.core.slices(block.outer)
    inside = np.zeros_like(peaks)
    inside[rows, columns] = True
    y, x = np.nonzero(peaks & inside & (gain > 0))
    order = np.argsort(-gain[y, x], kind="stable")[:count]
    y, x = y[order], x[order]
    width = widths[choice[y, x]]
    xy = (np.stack([x + block.outer.x, y + block.outer.y], axis=1) + 0.5) * pitch
    scale = np.repeat((width * pitch)[:, None], 2, axis=1).astype(np.float32)
    color = 2 * blurred[choice[y, x], :, y, x]
    return Proposals(xy, scale, color.astype(np.float32), gain[y, x].astype(np.float64) * pitch**2)


def exchange(gaussians: Gaussians, proposals: Proposals, limit: int) -> tuple[np.ndarray, Proposals]:
    """Which Gaussians to give up for which proposals: the cheapest for the most gainful, while there is a profit.

    Returns
    -------
    index, accepted
        Rows to replace and, of the same length, what to put there; at most ``limit`` of them.
    """
    accepted = proposals.best(limit)
    cost = removal_cost(gaussians)
    index = np.argsort(cost, kind="stable")[: len(accepted.gain)]
    profitable = int(np.count_nonzero(accepted.gain > PROFIT * cost[index]))
    return index[:profitable], accepted.best(profitable)
