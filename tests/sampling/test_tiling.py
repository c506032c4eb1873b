import itertools

from hypothesis import given
from hypothesis import strategies as st

from smartsplat_large.lattice import Size, Window
from smartsplat_large.sampling.tiling import feature_tiles, tile_spans

lengths = st.integers(1, 60_000)
tiles = st.integers(1, 5_000)


@given(lengths, tiles)
def test_spans_cover_the_axis_and_stay_inside(length: int, tile: int) -> None:
    spans = tile_spans(length, tile)

    assert len(spans) == -(-length // tile)
    assert spans[0][0] == 0
    assert sum(spans[-1]) == length
    assert all(width == min(tile, length) for _, width in spans)
    assert all(a < b <= a + width for (a, width), (b, _) in itertools.pairwise(spans))


@given(st.integers(2, 40), st.integers(1, 1024))
def test_spans_are_those_of_the_paper_where_the_stride_is_whole(count: int, stride: int) -> None:
    tile = 1024
    length = tile + stride * (count - 1)
    n = -(-length // tile)
    if (length - tile) % max(n - 1, 1):
        return
    paper = [min(i * ((length - tile) // max(n - 1, 1)), length - tile) for i in range(n)]

    assert [start for start, _ in tile_spans(length, tile)] == paper


def test_the_paper_s_own_stride_would_leave_a_pixel_out() -> None:
    assert tile_spans(3001, 1024) == [(0, 1024), (988, 1024), (1977, 1024)]


def test_tiles_go_row_by_row() -> None:
    assert feature_tiles(Size(150, 90), 100) == [Window(0, 0, 100, 90), Window(50, 0, 100, 90)]
    assert feature_tiles(Size(90, 150), 100) == [Window(0, 0, 90, 100), Window(0, 50, 90, 100)]
    assert feature_tiles(Size(1, 1), 1024) == [Window(0, 0, 1, 1)]
