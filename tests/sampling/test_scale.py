import numpy as np
import pytest
from scipy.spatial.distance import cdist

from smartsplat_large.sampling.scale import neighbor_scale


@pytest.mark.parametrize("neighbors", [1, 3, 16])
def test_mean_distance_to_the_nearest_other_points(neighbors: int) -> None:
    xy = np.random.default_rng(2).random((200, 2)) * 100
    rows = np.arange(150, 200)

    scale = neighbor_scale(xy, 150, neighbors, 1e-6)

    distances = np.sort(cdist(xy[rows], xy), axis=1)[:, 1 : neighbors + 1]
    np.testing.assert_allclose(scale, distances.mean(axis=1), rtol=1e-12)


def test_fewer_others_than_neighbors() -> None:
    xy = np.array([[0.0, 0.0], [3.0, 4.0]])

    assert neighbor_scale(xy, 0, 3, 1.0).tolist() == [5.0, 5.0]
    assert neighbor_scale(xy[:1], 0, 3, 2.0).tolist() == [6.0]


def test_points_in_one_place_keep_a_scale() -> None:
    xy = np.full((9, 2), 7.5)

    assert neighbor_scale(xy, 0, 3, 2.0).tolist() == [0.2] * 9
