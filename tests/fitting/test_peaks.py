"""The kernels of the search for peaks, against scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from smartsplat_large.fitting.peaks import blurred, maxima


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height).normal(size=(channels, height, width)).astype(np.float32)


@pytest.mark.parametrize("sigma", [0.7, 1.0, 1.7, 3.3, 9.0])
@pytest.mark.parametrize(("height", "width"), [(40, 57), (5, 70), (33, 4), (1, 1)])
def test_a_blur_is_that_of_scipy(sigma: float, height: int, width: int) -> None:
    planes = noise(height, width)
    wanted = [ndimage.gaussian_filter(plane.astype(float), sigma, mode="constant", truncate=3.0) for plane in planes]
    np.testing.assert_allclose(blurred(planes, sigma), wanted, atol=1e-6)


def test_a_blur_takes_a_view() -> None:
    planes = noise(30, 40)
    np.testing.assert_array_equal(blurred(planes[:, 3:20, ::2], 1.5), blurred(planes[:, 3:20, ::2].copy(), 1.5))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(40, 57), (2, 9), (9, 1), (1, 1)])
def test_maxima_are_those_of_scipy(channels: int, height: int, width: int) -> None:
    # Whole numbers, so that neighbours may be equal, and gains exact.
    planes = np.round(3 * noise(height, width, channels))
    gain = 2 * np.square(planes).sum(0)
    wanted = np.nonzero((gain == ndimage.maximum_filter(gain, size=3)) & (gain > 0))
    y, x, found = maxima(planes, 2.0)
    np.testing.assert_array_equal([y, x], wanted)
    np.testing.assert_array_equal(found, gain[wanted])


def test_nothing_has_no_maximum() -> None:
    assert not len(maxima(np.zeros((3, 8, 8), np.float32), 1.0)[0])
