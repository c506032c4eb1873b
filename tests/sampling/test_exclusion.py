import numpy as np
import pytest
from scipy.spatial.distance import cdist

from smartsplat_large.lattice import Size
from smartsplat_large.sampling.exclusion import exclusion_points

SIZE = Size(300, 200)


def taken(count: int) -> np.ndarray:
    return np.floor(np.random.default_rng(5).random((count, 2)) * (300, 200)) + 0.5


@pytest.mark.parametrize("radius", [0.0, 2.0, 9.0])
def test_points_keep_their_distance(radius: float) -> None:
    points, filled = exclusion_points(SIZE, 500, taken(200), radius, seed=1)

    assert (points.shape, filled) == ((500, 2), 0)
    assert cdist(points, taken(200)).min() > radius
    assert ((points >= 0) & (points < (300, 200))).all()
    assert len(np.unique(points, axis=0)) == 500


def test_free_places_are_filled_evenly() -> None:
    points, _ = exclusion_points(SIZE, 4_000, np.array([[75.0, 100.0]]), 50.0, seed=1)

    free_left = 150 * 200 - np.pi * 50**2
    expected = 4_000 * free_left / (free_left + 150 * 200)
    assert abs((points[:, 0] < 150).sum() - expected) < 5 * np.sqrt(1_000)


def test_where_there_is_no_place_the_quota_is_filled_and_said() -> None:
    points, filled = exclusion_points(SIZE, 300, taken(10), 1e6, seed=1)

    assert (points.shape, filled) == ((300, 2), 300)
    assert len(np.unique(points, axis=0)) == 300


def test_a_quota_met_in_part() -> None:
    grid = np.stack(np.meshgrid(np.arange(0, 301, 4.0), np.arange(0, 201, 4.0)), axis=-1).reshape(-1, 2)

    points, filled = exclusion_points(SIZE, 1_000, grid, 2.8, seed=1)

    assert 0 < filled < 1_000
    distances = cdist(points, grid).min(axis=1)
    assert (distances[: 1_000 - filled] > 2.8).all()


def test_no_points() -> None:
    points, filled = exclusion_points(SIZE, 0, taken(3), 1.0, seed=1)

    assert (points.shape, filled) == ((0, 2), 0)
