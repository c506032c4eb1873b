"""What a fit is allowed, and what is counted for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from smartsplat_large.config import preset
from smartsplat_large.lattice import Size
from smartsplat_large.memory import GiB, MiB
from smartsplat_large.source import ImageMeta
from smartsplat_large.streaming.allowance import allow, footprints

META = ImageMeta(
    name="a.tif", format="tiff", levels=(Size(3000, 2000),), dtype=np.dtype(np.uint8), channels=3, tile=(256, 256),
    cheap_windows=True,
)  # fmt: skip


@pytest.mark.parametrize(("ratio", "counted"), [(8.0, 17 * MiB), (400.0, 0)])
def test_what_a_source_keeps_is_counted_where_it_is_read_itself(ratio: float, counted: int) -> None:
    """At the higher ratio, there are coarse levels: so a copy is made, and read instead."""
    config, keeping = preset("fast").replace(ratio=ratio), replace(META, kept_bytes=17 * MiB)
    plain, kept = (allow(meta, config, GiB, 2) for meta in (META, keeping))
    assert plain.plan.block == kept.plan.block
    before, after = (footprints(a, config, b.plan, 2) for a, b in ((META, plain), (keeping, kept)))
    more = {what.split()[0]: after[what].total - before[what].total for what in before}
    assert more == {"copying": 0, "sampling": counted, "fitting": counted, "verifying": counted}
    assert kept.task_bytes == plain.task_bytes + counted
