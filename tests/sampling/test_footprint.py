import subprocess
import sys

from smartsplat_large.config import SamplingConfig
from smartsplat_large.lattice import Size
from smartsplat_large.sampling.footprint import column_bytes, footprint

RUN = """
import sys
import numpy as np
from smartsplat_large.config import SamplingConfig
from smartsplat_large.lattice import Size
from smartsplat_large.reports import peak_rss_bytes
from smartsplat_large.sampling import sample

side, count = map(int, sys.argv[1:])
noise = np.random.default_rng(0).integers(0, 256, (2048, 2048, 3), dtype=np.uint8)
read = lambda w: np.take(np.take(noise, range(w.y, w.y_end), 0, mode="wrap"), range(w.x, w.x_end), 1, mode="wrap")
sample(read, Size(side, side), 3, noise.dtype, count, SamplingConfig(), 1, workers=2)
print(peak_rss_bytes())
"""


def test_measured_peak_stays_within_the_projection() -> None:
    run = subprocess.run(
        [sys.executable, "-c", RUN, "2048", "400000"], capture_output=True, text=True, timeout=100, check=True
    )

    held = column_bytes(400_000, 3)
    projected = footprint(Size(2048, 2048), 3, 1, 400_000, SamplingConfig(), 2, held_bytes=held).total
    assert projected / 3 < int(run.stdout) <= projected
