import numpy as np
import pytest
from scipy import ndimage

from smartsplat_large.sampling.features import feature_maps, feature_weights


def naive_maps(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = pixels / np.iinfo(pixels.dtype).max
    gray = values.mean(axis=2)
    g = np.hypot(ndimage.sobel(gray, 0), ndimage.sobel(gray, 1))
    mean = ndimage.uniform_filter(values, (5, 5, 1))
    v = (ndimage.uniform_filter(values**2, (5, 5, 1)) - mean**2).mean(axis=2)
    return g[2:-2, 2:-2], v[2:-2, 2:-2]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_maps_equal_plain_convolutions(dtype: type, channels: int) -> None:
    rng = np.random.default_rng(channels)
    pixels = rng.integers(0, np.iinfo(dtype).max + 1, (23, 31, channels)).astype(dtype)

    g, v, g_max, v_max = feature_maps(pixels)

    expected_g, expected_v = naive_maps(pixels)
    assert g.shape == v.shape == (19, 27)
    np.testing.assert_allclose(g, expected_g, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(v, expected_v, rtol=1e-5, atol=1e-6)
    assert (g_max, v_max) == (g.max(), v.max())


def test_variance_does_not_cancel_on_bright_flat_ground() -> None:
    pixels = np.full((9, 9, 1), 65_534, np.uint16)
    pixels[4, 4] = 65_535

    _, v, _, _ = feature_maps(pixels)

    np.testing.assert_allclose(v, 24 / 625 / 65_535**2, rtol=1e-6)


def test_weights_mix_normalised_maps() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    g, v = naive_maps(pixels)

    for share in (0.0, 0.9, 1.0):
        expected = share * g / (g.max() + 1e-8) + (1 - share) * v / (v.max() + 1e-8)
        np.testing.assert_allclose(feature_weights(pixels, share), expected, atol=1e-5)


@pytest.mark.parametrize("value", [0, 1, 128, 255])
def test_a_flat_tile_weighs_nothing(value: int) -> None:
    assert not feature_weights(np.full((12, 9, 3), value, np.uint8)).any()


def test_one_pixel() -> None:
    assert feature_weights(np.full((5, 5, 3), 9, np.uint8)).tolist() == [[0.0]]
