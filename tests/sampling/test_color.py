import numpy as np
import pytest

from smartsplat_large.lattice import Size, Window
from smartsplat_large.sampling.color import REACH, color_block, median_colors


def naive_samples(pixels: np.ndarray, x: float, y: float, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Bilinear samples (81, c) and their weights."""
    reach = min(radius, REACH)
    height, width, _ = pixels.shape
    samples, weights = [], []
    for dy in np.linspace(-reach, reach, 9):
        for dx in np.linspace(-reach, reach, 9):
            u, v = np.clip(x + dx - 0.5, 0, width - 1), np.clip(y + dy - 0.5, 0, height - 1)
            i, j = int(v), int(u)
            i1, j1, fy, fx = min(i + 1, height - 1), min(j + 1, width - 1), v - i, u - j
            top = (1 - fx) * pixels[i, j] + fx * pixels[i, j1]
            bottom = (1 - fx) * pixels[i1, j] + fx * pixels[i1, j1]
            samples.append((1 - fy) * top + fy * bottom)
            weights.append(np.exp(-(dx**2 + dy**2) / (2 * radius**2)))
    return np.array(samples) / np.iinfo(pixels.dtype).max, np.array(weights)


def naive_median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), weights.sum() / 2)])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_no_other_colour_deviates_less(dtype: type, channels: int) -> None:
    rng = np.random.default_rng(channels)
    pixels = rng.integers(0, np.iinfo(dtype).max + 1, (40, 30, channels)).astype(dtype)
    xy = rng.random((60, 2)) * (30, 40)
    radius = np.concatenate([rng.random(50) * 8 + 0.01, rng.random(10) * 200 + 1])

    colors = median_colors(pixels, xy, radius)

    for point, r, color in zip(xy, radius, colors, strict=True):
        samples, weights = naive_samples(pixels, *point, r)
        for k in range(channels):
            best = naive_median(samples[:, k], weights)
            deviation = np.abs(samples[:, k, None] - [color[k], best]).T @ weights
            assert deviation[0] <= deviation[1] * (1 + 1e-5)
            assert np.abs(samples[:, k] - color[k]).min() < 1e-6


def test_a_minority_has_no_say() -> None:
    pixels = np.full((40, 40, 1), 200, np.uint8)
    pixels[:, :18] = 0

    assert median_colors(pixels, np.array([[20.0, 20.0]]), np.array([6.0])) == pytest.approx(200 / 255)
    assert median_colors(pixels, np.array([[16.0, 20.0]]), np.array([6.0])) == 0


def test_black_white_and_one_pixel() -> None:
    middle, radius = np.array([[0.5, 0.5]]), np.array([3.0])

    assert median_colors(np.zeros((1, 1, 3), np.uint8), middle, radius).tolist() == [[0, 0, 0]]
    assert median_colors(np.full((1, 1, 3), 65_535, np.uint16), middle, radius) == pytest.approx(1)


def test_far_weights_are_those_of_the_radius_not_of_the_reach() -> None:
    # 37 of the 81 samples are bright, the inner ones: most of the weight at radius 64, less than half at radius 1000.
    rows, columns = np.mgrid[:200, :200] - 99.5
    pixels = np.where(np.hypot(rows, columns) < 55, 255, 0).astype(np.uint8)[:, :, None]

    assert median_colors(pixels, np.array([[100.0, 100.0]]), np.array([64.0])) == 1
    assert median_colors(pixels, np.array([[100.0, 100.0]]), np.array([1000.0])) == 0


def test_blocks_only_decide_what_is_read_together() -> None:
    size = Size(90, 70)
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8)
    rng = np.random.default_rng(1)
    xy = rng.random((40, 2)) * (30, 70) + (30, 0)
    radius = rng.random(40) * 100

    def colors(block: Window) -> np.ndarray:
        return color_block(lambda window: image[window.slices(size.window)], size, block, xy, radius)

    np.testing.assert_array_equal(colors(Window(30, 0, 30, 70)), colors(size.window))
    np.testing.assert_array_equal(colors(size.window), median_colors(image, xy, radius))
