"""What a fit will do, decided before a pixel is read: blocks, levels, steps at each level, and the memory it takes."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from smartsplat_large import columns, memory
from smartsplat_large.config import Device, FitConfig
from smartsplat_large.lattice import Size
from smartsplat_large.progress import Costs
from smartsplat_large.streaming.population import most_gaussians

BLOCK_HALO = 5
_CAP_SPACINGS = 6
"""Mean spacings of the Gaussians that a block of blocked mode sees beyond its core: few reach farther."""
_BLOCK_SIDES = (1024, 512, 256, 128)
_BLOCKS_WANTED = 12
_PIXELS_BETWEEN = 3.5
"""Pixels of the coarsest level between neighbouring Gaussians."""
_SMALLEST_SIDE = 64
"""Pixels that the coarsest level keeps at least on its shorter side."""
_BLOCK_PIXEL_ARRAYS = 4
"""float32 arrays of a block that live at once: rendered, target, gradient, and the loss's scratch (padded planes and
partials come to one channel's worth each, counted below)."""
_LOSS_SCRATCH_PLANES = 7
_PAYLOADS_AHEAD = 5
"""Visits, and results of visits, that wait, for every worker."""
_HELD_BYTES_PER_COLUMN = 52
"""Raw value and two moments (12), records and moments of the renderer (20), this and the best state (10), membership of
blocks (3), and columns of before that wait to be used again. These lie in files where memory does not hold them."""
_WORKING_BYTES_PER_COLUMN, _VISITING_BYTES_PER_COLUMN = 1, 6
"""What comes on top while budget is moved, and what blocked mode has on its way beside that. It is in memory."""
TASK_PIXELS = 1 << 22
"""A task that is sent elsewhere has blocks of at most so many pixels together, or one."""
_WITH_SSIM = 1.5
"""What a step costs with SSIM, one without it costing 1, for the time left: between its strides of 2 and of 1."""
BLOCKED_FROM = 2_000_000_000
"""Pixels of a level from which on blocks take several steps at a time, where the settings leave the choice. Exact steps take
little more than half the time, also from a disk; but their working copy is read at every step, and one of more pixels, of
2 to 3 bytes each, does not stay in the memory of a usual machine: a slow disk would be waited for."""
SMALLEST_BLOCKED = 1_000_000
"""Pixels below which a coarse level is swept whole in any case: it is read in no time."""
_USUAL_WORKERS = 8
"""The block side is chosen as if so many worked: then it, and the rounding of sums, do not depend on how many do."""


@dataclass(frozen=True, slots=True)
class Phase:
    """Steps taken at one pyramid level."""

    level: int
    steps: int
    ssim: bool = True
    """Whether the loss has its SSIM term."""
    blocked: bool = False
    """Whether blocks take several steps at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPlan:
    """Everything :mod:`~smartsplat_large.streaming.fit` needs to know beside the image and the settings."""

    size: Size
    channels: int
    gaussians: int
    block: int
    phases: tuple[Phase, ...]
    footprint: memory.Footprint
    task_bytes: int
    """What one task takes at its peak, whose blocks may be several."""
    column_bytes: int
    """What the columns of all Gaussians take."""
    with_files: bool = True
    """Whether they lie in files as far as memory does not hold them. The footprint has what must be in memory of them."""

    @property
    def coarsest(self) -> int:
        return max(phase.level for phase in self.phases)

    def costs(self, taken: int) -> Costs:
        """What the steps after ``taken`` cost, each about; a step at full size without SSIM costs 1."""
        left = []
        for phase in self.phases:
            share = self.size.at_level(phase.level).pixels / self.size.pixels
            left.append((max(0, phase.steps - taken), share * (_WITH_SSIM if phase.ssim else 1)))
            taken = max(0, taken - phase.steps)
        return left


def plan_fit(
    size: Size, channels: int, itemsize: int, gaussians: int, config: FitConfig, *, memory_bytes: int, workers: int,
    with_files: bool = True, source_bytes: int = 0,
) -> FitPlan:  # fmt: skip
    """Choose the block side and the levels for a fit of ``gaussians`` Gaussians, beside a source that keeps so many bytes.

    The block side follows from the image and the memory limit, so that results do not depend on the number of workers, nor
    on where the columns of the Gaussians lie: ``with_files``, in files as far as memory does not hold them.

    Raises
    ------
    MemoryLimitError
        Not even the smallest block fits.
    """
    side = next(
        (b for b in _BLOCK_SIDES if -(-size.width // b) * -(-size.height // b) >= _BLOCKS_WANTED), _BLOCK_SIDES[-1]
    )
    sides = [b for b in _BLOCK_SIDES if b <= side]
    steps = phases(size, gaussians, config)
    most = most_gaussians(gaussians, config)
    about = (size, channels, itemsize, most)
    visited = {phase.level for phase in steps if phase.blocked}
    fits = (
        b
        for b in sides
        if project(*about, b, _USUAL_WORKERS, visited=visited, device=config.device).total + source_bytes
        <= memory_bytes
    )
    block = next(fits, sides[-1])
    footprint = project(*about, block, workers, visited=visited, device=config.device, with_files=with_files)
    footprint = replace(footprint, working=footprint.working + source_bytes)
    memory.require(footprint, memory_bytes, f"fitting {gaussians} Gaussians to {size} pixels")
    return FitPlan(
        size=size, channels=channels, gaussians=gaussians, block=block, phases=steps, footprint=footprint,
        task_bytes=task_bytes(*about, block, visited=visited),
        column_bytes=column_bytes(most, channels), with_files=with_files,
    )  # fmt: skip


def cap(block: int, spacing: float) -> int:
    """Pixels beyond its core that a block sees at most in blocked mode; Gaussians that reach farther stand still there.

    At most half a block: so, blocks of one colour of a checkerboard see nothing in common.
    """
    return min(block // 2, math.ceil(_CAP_SPACINGS * spacing))


def project(
    size: Size, channels: int, itemsize: int, gaussians: int, block: int, workers: int, *,
    visited: Collection[int] = (), device: Device = "cpu", with_files: bool = True,
) -> memory.Footprint:  # fmt: skip
    """Bytes at the peak of a fit, the least, where columns may lie in files; ``visited`` levels are in blocked mode."""
    pixels, local = _of_a_block(size, channels, itemsize, gaussians, block, visited)
    held = column_bytes(gaussians, channels)
    beside = _VISITING_BYTES_PER_COLUMN if visited else _WORKING_BYTES_PER_COLUMN
    if any(min(size.at_level(level).width, size.at_level(level).height) <= block for level in visited):
        beside *= 2  # one of the four colours of a strip of blocks has half of all
    return memory.Footprint(
        program=memory.program_on(device),
        gaussians=gaussians * (5 + channels) * beside + (in_use(held) if with_files else held),
        working=(workers + 2) * (pixels + 2 * local),
    )


def column_bytes(gaussians: int, channels: int) -> int:
    """What the columns of all Gaussians take."""
    return gaussians * (5 + channels) * _HELD_BYTES_PER_COLUMN


def in_use(held: int) -> int:
    """What columns of so many bytes take of memory at least, where they may lie in files."""
    return min(held, columns.RESIDENT + columns.UNSEEN)


def task_bytes(
    size: Size, channels: int, itemsize: int, gaussians: int, block: int, *, visited: Collection[int] = ()
) -> int:
    """Bytes at the peak of a task that may have several blocks, one after the other, and the rows of all of them."""
    pixels, local = _of_a_block(size, channels, itemsize, gaussians, block, visited)
    blocks = -(-size.width // block) * -(-size.height // block)
    return pixels + 2 * local * max(1, min(TASK_PIXELS // block**2, blocks))


def _of_a_block(
    size: Size, channels: int, itemsize: int, gaussians: int, block: int, visited: Collection[int]
) -> tuple[int, int]:
    """Bytes that a block takes for its pixels, and for its Gaussians."""
    columns, side = 5 + channels, block + 2 * BLOCK_HALO
    outer = min(side, size.width) * min(side, size.height)
    pixels = outer * (channels * (itemsize + 4 * _BLOCK_PIXEL_ARRAYS) + 4 * _LOSS_SCRATCH_PLANES)
    # Gradients of a block in float64, its records, and what waits to be merged.
    local = int(outer * gaussians / size.pixels * 1.5) * (8 * 3 * columns + 64)
    for level in visited:
        seen = size.at_level(level)
        side = block + 2 * (BLOCK_HALO + cap(block, math.sqrt(seen.pixels / gaussians)))
        outer = min(side, seen.width) * min(side, seen.height)
        # A visit keeps its base, too; copies of the state while it walks, and what is on its way to and from the tasks.
        at_sight = outer * (channels * (itemsize + 4 * (_BLOCK_PIXEL_ARRAYS + 1)) + 4 * _LOSS_SCRATCH_PLANES)
        there = int(outer * gaussians / seen.pixels * 1.5) * ((24 + 16 * (2 + _PAYLOADS_AHEAD)) * columns + 64)
        pixels, local = max(pixels, at_sight), max(local, there)
    return pixels, local


def phases(size: Size, gaussians: int, config: FitConfig) -> tuple[Phase, ...]:
    """Coarse levels first. A level serves while Gaussians are 3.5 of its pixels apart, or more."""
    spacing = math.sqrt(size.pixels / gaussians)
    shorter = min(size.width, size.height)
    coarsest = min(_halvings(spacing / _PIXELS_BETWEEN), _halvings(shorter / _SMALLEST_SIDE))
    coarse = round(config.steps * config.coarse_share) if coarsest else 0
    split = [coarse * (i + 1) // coarsest - coarse * i // coarsest for i in range(coarsest)] if coarsest else []
    levels = [Phase(coarsest - i, steps) for i, steps in enumerate(split) if steps]
    parts = _split_by_loss([*levels, Phase(0, config.steps - coarse)], round(config.loss.ssim_from * config.steps))
    return tuple(replace(part, blocked=is_blocked(size, part.level, config)) for part in parts)


def is_blocked(size: Size, level: int, config: FitConfig) -> bool:
    """Whether the steps of a level are taken block by block."""
    pixels = size.at_level(level).pixels
    if config.mode == "blocked":
        return level == 0 or pixels >= SMALLEST_BLOCKED
    return config.mode == "auto" and pixels >= BLOCKED_FROM


def _split_by_loss(levels: list[Phase], without: int) -> tuple[Phase, ...]:
    """The same steps, the first ``without`` of them in phases that leave SSIM out."""
    parts = []
    for phase in levels:
        early = min(without, phase.steps)
        without -= early
        if early:
            parts.append(Phase(phase.level, early, ssim=False))
        if phase.steps > early or not phase.steps:
            parts.append(Phase(phase.level, phase.steps - early))
    return tuple(parts)


def _halvings(factor: float) -> int:
    """How often ``factor`` can be halved before it falls below 1."""
    return max(0, math.floor(math.log2(factor))) if factor >= 1 else 0
