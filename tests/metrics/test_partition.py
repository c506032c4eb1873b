from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartsplat_large.lattice import Size, Window
from smartsplat_large.metrics import core_windows, halo_window
from smartsplat_large.metrics.partition import Span, axis_scales, scales_defined, window_scales

sides = st.integers(1, 700)


@given(sides, st.integers(1, 300))
def test_scored_spans_of_every_scale_partition_its_valid_positions(side: int, block: int) -> None:
    scales = scales_defined(Size(side, side))
    parts = [axis_scales(Span(x, min(x + block, side)), side, scales) for x in range(0, side, block)]
    length = side
    for scale in range(scales):
        scored = [i for part in parts for i in range(part[scale].scored.start, part[scale].scored.stop)]
        assert scored == list(range(length - 10))
        length = -(-length // 2)


@given(sides, sides, st.integers(16, 300), st.data())
def test_what_is_held_suffices_for_what_is_scored(width: int, height: int, block: int, data: st.DataObject) -> None:
    size = Size(width, height)
    core = data.draw(st.sampled_from(core_windows(size, block)))
    scales = window_scales(core, size)
    for level, axes in enumerate(scales):
        for axis, (scale, side) in enumerate(zip(axes, (height, width), strict=True)):
            assert scale.side == -(-side // 2**level)
            assert 0 <= scale.held.start <= scale.held.stop <= scale.side
            needed = set(range(scale.scored.start, scale.scored.stop + 10)) if len(scale.scored) else set()
            if level + 1 < len(scales):
                coarse = scales[level + 1][axis].held
                needed |= {2 * i - scale.side % 2 + k for i in range(coarse.start, coarse.stop) for k in (0, 1)}
            assert needed - {-1} <= set(range(scale.held.start, scale.held.stop))


@given(sides, sides, st.integers(1, 300))
def test_a_halo_window_holds_its_core_inside_the_picture(width: int, height: int, block: int) -> None:
    size = Size(width, height)
    for core in core_windows(size, max(block, 40)):
        held = halo_window(core, size)
        assert size.window.contains(held)
        assert held.contains(core)
        assert core.x - held.x <= 30
        assert core.y - held.y <= 30
        assert held.x_end - core.x_end <= 160
        assert held.y_end - core.y_end <= 160


@pytest.mark.parametrize(
    ("size", "scales"),
    [(Size(161, 161), 5), (Size(160, 4000), 1), (Size(11, 11), 1), (Size(10, 4000), 0), (Size(1, 1), 0)],
)
def test_scales_are_those_that_pytorch_msssim_defines(size: Size, scales: int) -> None:
    assert scales_defined(size) == scales


@pytest.mark.parametrize("core", [Window(0, 0, 0, 5), Window(-1, 0, 5, 5), Window(196, 0, 5, 5)])
def test_a_core_outside_the_picture_is_refused(core: Window) -> None:
    with pytest.raises(ValueError, match="not inside the picture of 200x180"):
        window_scales(core, Size(200, 180))
