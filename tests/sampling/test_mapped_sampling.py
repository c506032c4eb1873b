"""Sampling with columns in mapped files: the same Gaussians, and memory that hardly grows with their number."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from smartsplat_large import columns
from smartsplat_large.config import SamplingConfig
from smartsplat_large.gaussians import COLUMNS
from smartsplat_large.lattice import Size, Window
from smartsplat_large.sampling import sample

COUNT = 150_000
"""So many that all columns are worth mapping, in three chunks."""


NOISE = np.random.default_rng(0).integers(0, 256, (700, 800, 3), dtype=np.uint8)


def read(window: Window) -> np.ndarray:
    return NOISE[window.slices(Window(0, 0, 800, 700))]


@pytest.mark.parametrize(
    "config",
    [SamplingConfig(tile=256), SamplingConfig(tile=256, means="random", scales="random", colors="random", overlap=1.5)],
)
def test_mapped_columns_hold_the_same(config: SamplingConfig, tmp_path: Path) -> None:
    how = (read, Size(800, 700), 3, np.dtype(np.uint8), COUNT, config, 3)
    expected = sample(*how, workers=2)
    with columns.mapped(tmp_path, resident=4 << 20):
        mapped = sample(*how, workers=2)
    for name in COLUMNS:
        ours = getattr(mapped, name)
        assert name == "rotation" or not ours.flags.owndata
        np.testing.assert_array_equal(ours, getattr(expected, name))


ANONYMOUS = """
import re, sys, threading
from contextlib import nullcontext
from pathlib import Path
import numpy as np
from smartsplat_large import columns
from smartsplat_large.config import SamplingConfig
from smartsplat_large.lattice import Size
from smartsplat_large.sampling import exclusion, sample, scale

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

def watch():
    global peak
    while not ended.wait(0.005):
        peak = max(peak, anonymous())

def read(window):
    return noise[window.slices(Size(1000, 1000).window)]

noise = np.random.default_rng(0).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)
exclusion.ROWS = scale.ROWS = 1 << 14
how = Size(1000, 1000), 3, noise.dtype
sample(read, *how, 1000, SamplingConfig(tile=256), 0, workers=1)
before = peak = anonymous()
ended = threading.Event()
thread = threading.Thread(target=watch)
thread.start()
with columns.mapped(Path(sys.argv[1]), resident=16 << 20) if len(sys.argv) > 1 else nullcontext():
    sample(read, *how, 250_000, SamplingConfig(tile=256), 0, workers=1)
ended.set()
thread.join()
print((peak - before) / 250_000)
"""


@pytest.mark.skipif(not columns._STATM.exists(), reason="only Linux tells how much is anonymous")
def test_little_memory_is_taken_beside_mapped_columns(tmp_path: Path) -> None:
    """Bytes a Gaussian: those of the kd-tree, and what some of the points take at a time."""
    run = subprocess.run([sys.executable, "-c", ANONYMOUS, str(tmp_path)], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 55
