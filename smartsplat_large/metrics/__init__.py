"""How good a picture is against another: PSNR, SSIM and MS-SSIM, streamed over windows and merged."""

from smartsplat_large.metrics.partition import core_windows, halo_window
from smartsplat_large.metrics.score import (
    Mapper,
    PlaneReader,
    Score,
    evaluate_streams,
    merge_scores,
    score_window,
)

__all__ = [
    "Mapper",
    "PlaneReader",
    "Score",
    "core_windows",
    "evaluate_streams",
    "halo_window",
    "merge_scores",
    "score_window",
]
