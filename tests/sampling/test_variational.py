import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartsplat_large.lattice import Size, Window
from smartsplat_large.sampling.features import HALO, feature_weights
from smartsplat_large.sampling.variational import base_scale, draw_pixels, draw_tile, feature_scale, tile_quotas


def sets_drawn_one_by_one(weights: list[float], count: int) -> dict[tuple[int, ...], float]:
    """Exact probability of each set of pixels under drawing without replacement."""
    probabilities: dict[tuple[int, ...], float] = {}
    for order in itertools.permutations(range(len(weights)), count):
        p, left = 1.0, sum(weights)
        for i in order:
            p *= weights[i] / left
            left -= weights[i]
        key = tuple(sorted(order))
        probabilities[key] = probabilities.get(key, 0) + p
    return probabilities


@pytest.mark.parametrize("count", [1, 2, 3])
def test_draws_follow_the_exact_probabilities(count: int) -> None:
    weights = [0.05, 0.9, 0.3, 0.0, 0.6, 0.15]
    expected = {k: p for k, p in sets_drawn_one_by_one(weights, count).items() if p > 0}
    keys = np.random.default_rng(1).integers(0, 2**63, 20_000).tolist()
    tile = np.array(weights, np.float32).reshape(2, 3)

    counts = dict.fromkeys(expected, 0)
    for key in keys:
        counts[tuple(draw_pixels(tile, count, key).tolist())] += 1

    for chosen, p in expected.items():
        deviation = math.sqrt(p * (1 - p) * len(keys))
        assert abs(counts[chosen] - p * len(keys)) < 4.5 * deviation, chosen


def test_pixels_of_one_draw_are_independent() -> None:
    weights = np.ones((400, 500), np.float32)
    weights[:, 250:] = 3

    rows, columns = np.divmod(draw_pixels(weights, 20_000, 7), 500)

    # Far fewer points than pixels: the heavy half gets about three quarters, and each of 8 bands an eighth.
    inside = (columns >= 250).sum()
    assert abs(inside - 20_000 * 0.7429) < 5 * math.sqrt(20_000 * 0.75 * 0.25)
    bands = np.bincount(rows // 50, minlength=8)
    assert (abs(bands - 2_500) < 5 * math.sqrt(2_500)).all()


def test_weightless_pixels_come_last_and_uniformly() -> None:
    weights = np.zeros((40, 50), np.float32)
    weights[3, 4:9] = 1e-30

    chosen = draw_pixels(weights, 1_000, 3)

    assert set(range(154, 159)) <= set(chosen.tolist())
    assert len(set(chosen.tolist())) == 1_000
    halves = np.bincount(chosen // 1_000, minlength=2)
    assert abs(halves[0] - 500) < 5 * math.sqrt(250)


@given(st.integers(1, 8), st.integers(1, 8), st.integers(-1, 70), st.integers(0, 2**64 - 1))
def test_as_many_as_asked_for_or_all(height: int, width: int, count: int, key: int) -> None:
    weights = np.random.default_rng(0).random((height, width), dtype=np.float32)

    chosen = draw_pixels(weights, count, key)

    assert len(chosen) == max(0, min(count, height * width))
    assert (np.diff(chosen) > 0).all()
    assert ((chosen >= 0) & (chosen < height * width)).all()


@given(st.integers(0, 10_000), st.integers(1, 300))
def test_quotas(count: int, tiles: int) -> None:
    quotas = tile_quotas(count, tiles)

    assert sum(quotas) == count
    assert quotas == [count // tiles + (k < count % tiles) for k in range(tiles)]


def test_tile_reads_its_halo_and_returns_pixel_centres() -> None:
    size = Size(40, 30)
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    tile = Window(10, 5, 20, 15)

    xy, w = draw_tile(lambda window: image[window.slices(size.window)], size, tile, 3, 50, 0.9, seed=1)

    assert xy.shape == (50, 2)
    assert ((xy - 0.5) == np.floor(xy)).all()
    columns, rows = (xy - 0.5).astype(int).T
    assert (columns.min() >= 10, columns.max() < 30, rows.min() >= 5, rows.max() < 20) == (True,) * 4
    weights = feature_weights(image[5 - HALO : 20 + HALO, 10 - HALO : 30 + HALO], 0.9)
    np.testing.assert_array_equal(w, weights[rows - 5, columns - 10])


def test_scales() -> None:
    base = base_scale(Size(300, 200), 100)

    assert base == pytest.approx(math.sqrt(300 * 200 / (math.pi * 100)) / 3)
    weights = np.array([0, 0.5, 1], np.float32)
    np.testing.assert_allclose(feature_scale(weights, base), base * np.exp([0, -0.25, -0.5]))
