"""The whole initialisation: from pixels, read tile by tile, to a given number of Gaussians."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Float64

from smartsplat_large import columns
from smartsplat_large.array_types import Color, PixelReader, Scale, Xy
from smartsplat_large.config import SamplingConfig
from smartsplat_large.errors import UsageError
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import BlockGrid, Size
from smartsplat_large.ordering import by_cell
from smartsplat_large.progress import Progress, Silent
from smartsplat_large.sampling.color import color_block
from smartsplat_large.sampling.exclusion import exclusion_points, uniform_points
from smartsplat_large.sampling.scale import neighbor_scale
from smartsplat_large.sampling.schedule import Call, run_calls
from smartsplat_large.sampling.streams import Stream, generator
from smartsplat_large.sampling.tiling import feature_tiles
from smartsplat_large.sampling.variational import base_scale, draw_tile, feature_scale, tile_quotas


def budget(size: Size, ratio: float, *, channels: int = 3, itemsize: int = 1) -> int:
    """How many Gaussians make a file of raw / ``ratio`` bytes if each takes 7; SmartSplat eq. 5.

    ``floor(raw / (7 ratio))`` with ``raw = H W channels itemsize``: the paper's ``3 H W`` for other images than RGB of
    8 bits.

    Raises
    ------
    UsageError
        The ratio is not above 0 and finite, or leaves not one Gaussian.
    """
    if not (math.isfinite(ratio) and ratio > 0):
        raise UsageError(f"ratio {ratio} is out of range", hint="it takes a finite number above 0")
    raw_bytes = size.pixels * channels * itemsize
    count = math.floor(Fraction(raw_bytes) / (7 * Fraction(ratio)))
    if count < 1:
        raise UsageError(
            f"ratio {ratio:g} leaves not one Gaussian of an image of {size} ({raw_bytes} bytes)",
            hint=f"take a ratio of at most {raw_bytes / 7:g}",
        )
    return count


def sample(
    read: PixelReader,
    size: Size,
    channels: int,
    dtype: np.dtype[np.generic],
    count: int,
    config: SamplingConfig,
    seed: int,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Gaussians:
    """Exactly ``count`` Gaussians that start a fit of the image; SmartSplat section "feature-smart sampling".

    Runs one dask task a tile, each reading its own pixels by ``read``: on the active distributed client where there is
    one (``read`` must then be picklable), else on threads. Memory beside the points is that of the tiles in work.

    Parameters
    ----------
    read
        Reads a window of level 0, ``(h, w, channels)`` of ``dtype`` (uint8 or uint16); called from several threads.
    seed
        The same seed gives the same Gaussians for any ``workers``, search for neighbours and order of tiles.
    workers
        Threads at a time; None for one a processor. A distributed client has its own number.

    Returns
    -------
    Gaussians
        The points drawn by features first, tile by tile, then the uniform ones. All scales are above 0 and finite,
        all rotations 0, all colours in [0, 1]. What the ablation's settings do instead:

        - ``means="random"``: all points are uniform over the image, so eq. 17 gives all scales;
        - ``scales="random"``: each axis uniform over [0.5, 1.5) pixels, as GaussianImage starts;
        - ``colors="random"``: each channel uniform over [0, 1), as GaussianImage starts.

    Raises
    ------
    UsageError
        ``count`` or ``workers`` below 1, or a ``dtype`` other than uint8 and uint16.
    """
    if np.dtype(dtype) not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        raise UsageError(f"pixels of {dtype} cannot be sampled", hint="convert the image to uint8 or uint16")
    for name, value in (("count", count), ("workers", 1 if workers is None else workers)):
        if value < 1:
            raise UsageError(f"{name} = {value} is out of range", hint="it takes 1 or more")
    job = _Job(read, size, channels, count, config, seed, workers, Silent() if progress is None else progress)
    xy, radius = _place(job)
    scale, radius = _random_scales(job) if config.scales == "random" else (_both_axes(radius, config.overlap), radius)
    color = _random_colors(job) if config.colors == "random" else _median_colors(job, xy, radius)
    return Gaussians(xy, scale, columns.zeros(count, np.float32), color)


@dataclass(frozen=True, slots=True)
class _Job:
    read: PixelReader
    size: Size
    channels: int
    count: int
    config: SamplingConfig
    seed: int
    workers: int | None
    progress: Progress


def _place(job: _Job) -> tuple[Xy, Float64[np.ndarray, " n"]]:
    """Positions and isotropic scales of all points; SmartSplat eqs. 9-17 and 21."""
    xy, radius = columns.empty((job.count, 2)), columns.empty(job.count)
    base = base_scale(job.size, job.count)
    drawn = _draw_by_features(job, base, xy, radius)
    xy[drawn:] = _spread(job, job.count - drawn, xy[:drawn], max(base, _median(radius[:drawn])))
    if job.config.scales == "random":
        return xy, radius
    job.progress.start("measuring distances", job.count - drawn, "points")
    radius[drawn:] = neighbor_scale(
        xy, drawn, job.config.neighbors, base, backend=job.config.neighbor_search, workers=job.workers or -1
    )
    job.progress.advance(job.count - drawn)
    return xy, radius


def _median(column: Float64[np.ndarray, " n"]) -> float:
    return float(np.median(columns.copied(column), overwrite_input=True)) if len(column) else 0.0


def _draw_by_features(job: _Job, base: float, xy: Xy, radius: Float64[np.ndarray, " n"]) -> int:
    """Fill the first rows with the share of the points that features place, and their scales; returns how many.

    Fewer than the settings say where tiles have too few pixels.
    """
    config = job.config
    # 0.7 has no exact binary form: without the slack, products that are whole may be floored to one less.
    wanted = 0 if config.means == "random" else math.floor(config.variational_share * job.count + 1e-9)
    if wanted == 0:
        return 0
    tiles = feature_tiles(job.size, config.tile)
    job.progress.start("drawing points", len(tiles), "tiles")
    calls = (
        Call(draw_tile, (job.read, job.size, tile, k, quota, config.gradient_weight, job.seed), weight=1)
        for k, (tile, quota) in enumerate(zip(tiles, tile_quotas(wanted, len(tiles)), strict=True))
    )
    drawn = 0
    for points, weights in run_calls(calls, job.workers, job.progress):
        rows = slice(drawn, drawn + len(points))
        xy[rows], radius[rows] = points, feature_scale(weights, base)
        drawn = rows.stop
    return drawn


def _spread(job: _Job, count: int, taken: Xy, radius: float) -> Xy:
    """``count`` points for what features left, away from those ``taken``."""
    if not len(taken):
        return uniform_points(job.size, count, generator(job.seed, Stream.UNIFORM))
    points, filled = exclusion_points(
        job.size, count, taken, radius, job.seed, backend=job.config.neighbor_search, workers=job.workers or -1
    )
    if filled:
        job.progress.note(f"{filled} of {count} uniform points found no free place and lie closer than {radius:.2f} px")
    return points


def _both_axes(radius: Float64[np.ndarray, " n"], overlap: float) -> Scale:
    scale = columns.empty((len(radius), 2), np.float32)
    for rows in columns.chunks(len(radius)):
        scale[rows] = (radius[rows] * overlap)[:, None]
    return scale


def _random_scales(job: _Job) -> tuple[Scale, Float64[np.ndarray, " n"]]:
    """Scales, and the mean of both axes without the overlap."""
    scale, radius = columns.empty((job.count, 2), np.float32), columns.empty(job.count)
    rng = generator(job.seed, Stream.SCALE)
    for rows in columns.chunks(job.count):
        drawn = rng.uniform(0.5, 1.5, (rows.stop - rows.start, 2))
        scale[rows], radius[rows] = drawn * job.config.overlap, drawn.mean(axis=1)
    return scale, radius


def _random_colors(job: _Job) -> Color:
    color: Color = columns.empty((job.count, job.channels), np.float32)
    generator(job.seed, Stream.COLOR).random(dtype=np.float32, out=color)
    return color


def _median_colors(job: _Job, xy: Xy, radius: Float64[np.ndarray, " n"]) -> Color:
    """Colours of all points, read block by block; blocks without points are not read."""
    blocks = BlockGrid(job.size, job.config.tile)
    block_of = columns.empty(job.count, np.int64)
    for chunk in columns.chunks(job.count):
        column, row = (xy[chunk] // blocks.block).astype(np.int64).T
        block_of[chunk] = row * blocks.columns + column
    start, rows_of = by_cell(block_of, len(blocks))
    used = np.flatnonzero(np.diff(start)).tolist()
    groups = [slice(start[block], start[block + 1]) for block in used]
    job.progress.start("choosing colours", len(used), "tiles")

    def calls() -> Iterator[Call]:
        for block, group in zip(used, groups, strict=True):
            rows = rows_of[group]
            arguments = (job.read, job.size, blocks[block].core, xy[rows], radius[rows])
            yield Call(color_block, arguments, weight=1 + len(rows) // 2000)

    colors = columns.empty((job.count, job.channels), np.float32)
    for group, part in zip(groups, run_calls(calls(), job.workers, job.progress), strict=True):
        colors[rows_of[group]] = part
    return colors
