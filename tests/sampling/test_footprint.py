import subprocess
import sys

from smartsplat_large.config import SamplingConfig
from smartsplat_large.lattice import Size
from smartsplat_large.sampling.footprint import _TREE, column_bytes, footprint

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


TREE = """
import numpy as np
from smartsplat_large.reports import peak_rss_bytes
from smartsplat_large.sampling.neighbors import Neighbors

points = np.random.default_rng(0).random((1_000_000, 2))
Neighbors(points[:1000], 3)
before = peak_rss_bytes()
Neighbors(points, 3)
print(peak_rss_bytes() - before)
"""


def test_a_tree_takes_what_is_counted_for_each_point() -> None:
    run = subprocess.run([sys.executable, "-c", TREE], capture_output=True, text=True, timeout=100, check=True)
    assert _TREE / 2 < int(run.stdout) / 1_000_000 <= _TREE
