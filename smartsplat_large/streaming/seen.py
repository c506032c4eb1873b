"""What one block sees of all Gaussians: a selection here, a copy of its rows elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from smartsplat_large.array_types import Index
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.render.base import BlockRenderer, Projection


@dataclass(frozen=True, slots=True)
class Seen:
    """Rows of a batch that one block sees. They are taken when they are used, or when this is pickled: it travels as the
    rows alone, which are projected anew where they arrive, to the same bits."""

    block: int
    renderer: BlockRenderer
    pitch: float
    rows: Index
    batch: Gaussians
    projected: Projection

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def gaussians(self) -> Gaussians:
        return self.batch.take(self.rows)

    @property
    def projection(self) -> Projection:
        everyone = len(self.rows) == len(self.batch)  # they ascend
        return self.projected if everyone else self.projected.take(self.rows)

    def __reduce__(self) -> tuple[Any, ...]:
        return Arrived, (self.block, self.renderer, self.pitch, self.gaussians)


@dataclass(frozen=True, slots=True)
class Arrived:
    """A :class:`Seen` that has travelled."""

    block: int
    renderer: BlockRenderer
    pitch: float
    gaussians: Gaussians

    def __len__(self) -> int:
        return len(self.gaussians)

    @property
    def projection(self) -> Projection:
        return self.renderer.project(self.gaussians, self.pitch)
