"""The CUDA renderer: Triton kernels behind the protocol that the CPU renderer has; arrays come and go as numpy's.

Gaussians are projected, and moments turned into gradients, by the CPU renderer's own code: one definition of both, and
streaming, fitting and rounding need not know where a window is rendered.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from smartsplat_large import gpu
from smartsplat_large.array_types import Moments, Pixels, Planes
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Window
from smartsplat_large.render import records
from smartsplat_large.render.base import PointwiseLoss, Projection, box_variance
from smartsplat_large.render.cpu import CpuRenderer

if TYPE_CHECKING:
    from torch import Tensor

TURN = threading.RLock()
"""Held for the length of a pass: a GPU computes one at a time in any case, so its memory need hold no more; and Triton's
compiler is not made for threads."""
_SIDE = 2048


class CudaRenderer(CpuRenderer):
    """Implements :class:`~smartsplat_large.render.base.BlockRenderer` on a GPU; several threads may call it at once.

    Values are bit-identical for every split of an image into windows, and every number in every run. They agree with
    the CPU renderer's as well as both do with the reference, not to the bit.
    """

    side = _SIDE

    def __init__(self, background: tuple[float, ...] = (), device: str = "cuda") -> None:
        """Devices other than ``cuda`` are for tests, which run the kernels under ``TRITON_INTERPRET=1``.

        Raises
        ------
        MissingDependencyError
            There is no GPU here, or nothing to use it with.
        """
        super().__init__(background)
        self._device = device
        self._kept: dict[int, tuple[weakref.ref[np.ndarray], Tensor]] = {}
        if device == "cuda":
            gpu.require()

    def __reduce__(self) -> tuple[Any, ...]:
        # Made anew where it arrives: that may be a machine without a GPU, which then says so.
        return CudaRenderer, (self.background, self._device)

    def pixels(self, gaussians: Gaussians, window: Window, dtype: np.dtype[Any], pitch: float = 1.0) -> Pixels:
        import torch

        projection = self.project(gaussians, pitch)
        with TURN:
            planes = self.rendered(*self.uploaded(projection), window, None)
            # Product and sum are operations of their own, as they are on the CPU: fused, halves would round otherwise.
            levels = planes.clamp_(0, 1).mul_(float(np.iinfo(dtype).max)).add_(0.5)
            return self.received(levels.permute(1, 2, 0).to(getattr(torch, str(np.dtype(dtype)))))

    def render(self, projection: Projection, window: Window, base: Planes | None = None) -> Planes:
        with TURN:
            return self.received(self.rendered(*self.uploaded(projection), window, base))

    def correlate(self, projection: Projection, window: Window, d_planes: Planes) -> Moments:
        with TURN:
            return self.received(self.moments(*self.uploaded(projection), window, self._sent(d_planes)))

    def descend(
        self, projection: Projection, window: Window, loss: PointwiseLoss, base: Planes | None = None
    ) -> tuple[float, float, Moments]:
        import torch

        with TURN:
            gaussians, peaks = self.uploaded(projection)
            residual = self.rendered(gaussians, peaks, window, base).clamp_(0, 1)
            # White must be 1 to the bit, or overshoot there would have a sign.
            unit = 1 / float(np.iinfo(loss.target.dtype).max)
            residual -= (self.kept(loss.target).float() * unit).clamp_(max=1)
            sums = torch.stack([residual.abs().sum(dtype=torch.float64), residual.square().sum(dtype=torch.float64)])
            d_planes = residual.sign().mul_(loss.l1).add_(residual, alpha=loss.l2)
            moments = self.received(self.moments(gaussians, peaks, window, d_planes))
        absolute, squared = sums.tolist()
        return absolute, squared, moments

    def uploaded(self, projection: Projection) -> tuple[Tensor, Tensor]:
        """Records and peaks, on the device."""
        return self._sent(projection.records), self._sent(projection.peaks)

    def kept(self, array: np.ndarray) -> Tensor:
        """A copy on the device, which stays there as long as ``array`` is alive; that must not be changed."""
        found = self._kept.get(id(array))
        if found is not None and found[0]() is array:
            return found[1]
        copy = self._sent(array)
        self._keep(array, copy)
        return copy

    def received(self, tensor: Tensor) -> np.ndarray:
        """A copy in the host's memory. From a GPU it goes to locked pages, which torch keeps for the next: fresh are slow."""
        import torch

        room = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
        return room.copy_(tensor).numpy()

    def shared(self, tensor: Tensor) -> np.ndarray:
        """A copy in the host's memory that :meth:`kept` knows as ``tensor``; read-only, as a change would be missed here."""
        array = self.received(tensor)
        array.flags.writeable = False
        self._keep(array, tensor)
        return array

    def _keep(self, array: np.ndarray, copy: Tensor) -> None:
        key = id(array)
        self._kept[key] = (weakref.ref(array, lambda _: self._kept.pop(key, None)), copy)

    def projected(
        self, xy: Tensor, scale: Tensor, rotation: Tensor, color: Tensor, pitch: float
    ) -> tuple[Tensor, Tensor]:
        """Records and peaks of Gaussians that are on the device."""
        import torch

        kernels, (count, channels) = _kernels(), color.shape
        gaussians = xy.new_zeros((count, records.COLUMNS))
        peaks = torch.empty_like(color)
        seen = torch.tensor([pitch, box_variance(pitch)], dtype=torch.float64).to(xy.device)
        if count:
            kernels.project[(-(-count // kernels.LANES),)](
                xy, scale, rotation, color, seen, gaussians, peaks, count, channels=channels
            )
        return gaussians, peaks

    def rendered(self, gaussians: Tensor, peaks: Tensor, window: Window, base: Planes | None) -> Tensor:
        """The planes of a window, on the device."""
        kernels, channels = _kernels(), peaks.shape[1]
        values = self.background or (0.0,) * channels
        below = self._sent(np.array(values, np.float32) if base is None else base)
        column, row = window.x // kernels.TILE, window.y // kernels.TILE
        columns, rows = -(-window.x_end // kernels.TILE) - column, -(-window.y_end // kernels.TILE) - row
        starts, ids = _bucket(gaussians, kernels.TILE, column, row, columns, rows)
        out = peaks.new_empty((channels, *window.shape))
        kernels.forward[(columns * rows,)](
            gaussians, peaks, ids, starts, below, out, window.x, window.y, window.width, window.height,
            column, row, columns, channels=channels, based=base is not None, num_warps=kernels.WARPS,
        )  # fmt: skip
        return out

    def moments(self, gaussians: Tensor, peaks: Tensor, window: Window, d_planes: Tensor) -> Tensor:
        """What a gradient on a window means for each Gaussian, on the device."""
        kernels, (count, channels) = _kernels(), peaks.shape
        wide = records.moment_count(channels)
        moments = peaks.new_zeros((count, wide))
        if count:
            kernels.backward[(count,)](
                gaussians, peaks, d_planes, moments, window.x, window.y, window.width, window.height,
                channels=channels, wide=wide, num_warps=kernels.WARPS,
            )  # fmt: skip
        return moments

    def _sent(self, array: np.ndarray) -> Tensor:
        import torch

        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


def _bucket(gaussians: Tensor, side: int, column: int, row: int, columns: int, rows: int) -> tuple[Tensor, Tensor]:
    """Which Gaussians touch which raster tile, as :func:`.records.bucket` lists them: starts and ids."""
    import torch

    middle, reach = gaussians[:, records.MX : records.MY + 1], gaussians[:, records.REACH_X : records.REACH_Y + 1]
    first = torch.tensor([column, row], dtype=torch.float64, device=gaussians.device)
    count = torch.tensor([columns, rows], dtype=torch.float64, device=gaussians.device)
    # Clamped as floats: what lies far outside must not overflow an integer.
    begin = (((middle - reach) / side).floor() - first).clamp_(min=0).minimum(count)
    end = (((middle + reach) / side).floor() - first).clamp_(min=-1).minimum(count - 1)
    begin, spans = begin.long(), (end - begin + 1).clamp_(min=0).long()
    touched = spans[:, 0] * spans[:, 1]
    ends = touched.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    ids = torch.arange(len(gaussians), device=gaussians.device).repeat_interleave(touched, output_size=total)
    nth = torch.arange(total, device=gaussians.device) - (ends - touched)[ids]
    across = spans[ids, 0]
    tile = (begin[ids, 1] + nth // across) * columns + begin[ids, 0] + nth % across
    tile, order = tile.int().sort(stable=True)
    starts = torch.searchsorted(tile, torch.arange(columns * rows + 1, dtype=torch.int32, device=tile.device))
    return starts, ids[order]


def _kernels() -> Any:
    """Imported late, as it takes Triton, which is not there without a GPU."""
    from smartsplat_large.render import cuda_kernels

    return cuda_kernels
