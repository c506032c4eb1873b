"""What every renderer owes: the values and gradients of the float64 reference, for every shape of Gaussian and window."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cuda_here import CUDA, INTERPRETED, Kind

from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Window
from smartsplat_large.pixels import to_pixels
from smartsplat_large.render.base import BlockRenderer, PointwiseLoss, Renderer
from smartsplat_large.render.cpu import CpuRenderer
from smartsplat_large.render.reference import ReferenceRenderer

KINDS: list[Kind] = [CpuRenderer, *([CUDA] if CUDA else [])]
RENDERERS = [kind() for kind in KINDS]
REFERENCE = ReferenceRenderer()


def batch(xy, scale, rotation, channels: int = 3, seed: int = 0) -> Gaussians:
    n = len(xy)
    color = np.random.default_rng(seed).normal(0.3, 0.5, (n, channels)).astype(np.float32)
    return Gaussians(np.asarray(xy, float), np.asarray(scale, np.float32), np.asarray(rotation, np.float32), color)


def scattered(n: int, window: Window, pitch: float, smallest: float, largest: float, channels: int) -> Gaussians:
    rng = np.random.default_rng(n)
    low = np.array([window.x, window.y]) * pitch - 15
    high = np.array([window.x_end, window.y_end]) * pitch + 15
    scale = np.exp(rng.uniform(np.log(smallest), np.log(largest), (n, 2)))
    return batch(rng.uniform(low, high, (n, 2)), scale, rng.uniform(-7, 7, n), channels)


WINDOW = Window(37, 21, 75, 50)
FAR = Window(100_003, 90_001, 70, 40)
CASES = {
    "mixed": (scattered(60, WINDOW, 1, 0.3, 20, 3), WINDOW, 1.0),
    "tiny": (scattered(200, WINDOW, 1, 0.3, 0.6, 3), WINDOW, 1.0),
    "huge": (batch([[60, 40], [-900, 3000]], [[2000, 2000], [2000, 700]], [0, 1]), WINDOW, 1.0),
    "needles": (
        batch([[60, 40], [70.3, 30.2], [50, 50], [80, 35]], [[500, 0.5], [2, 2000], [1000, 1], [0.3, 300]],
              [0.78, 0.1, 1.5708, 3]),
        WINDOW, 1.0,
    ),
    "far outside": (batch([[1e5, 40], [-5000, -5000], [60, 1e6]], [[3, 3], [1700, 2], [50, 9]], [0, 0.785, 0]), WINDOW, 1.0),
    "far from the origin": (scattered(40, FAR, 1, 0.3, 30, 3), FAR, 1.0),
    "one pixel": (scattered(20, Window(64, 32, 1, 1), 1, 0.5, 20, 3), Window(64, 32, 1, 1), 1.0),
    "one row": (scattered(20, Window(0, 31, 200, 1), 1, 0.5, 20, 3), Window(0, 31, 200, 1), 1.0),
    "grey": (scattered(40, WINDOW, 1, 0.3, 40, 1), WINDOW, 1.0),
    "grey and alpha": (scattered(40, WINDOW, 1, 0.3, 40, 2), WINDOW, 1.0),
    "four channels": (scattered(40, WINDOW, 1, 0.3, 40, 4), WINDOW, 1.0),
    "level 2": (scattered(80, WINDOW, 4, 0.3, 60, 3), WINDOW, 4.0),
    "enlarged": (scattered(40, WINDOW, 0.37, 0.3, 20, 3), WINDOW, 0.37),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", ["mixed", "grey", "four channels", "level 2", "one row"])
def test_gaussians_are_added_to_the_background(kind: Kind, case: str) -> None:
    gaussians, window, pitch = CASES[case]
    background = tuple(np.linspace(0.2, 0.9, gaussians.channels).tolist())
    ours, expected = kind(background), ReferenceRenderer(background).forward(gaussians, window, pitch)
    np.testing.assert_allclose(ours.forward(gaussians, window, pitch), expected, rtol=0, atol=1e-5)
    nothing = gaussians.take(np.zeros(0, np.int64))
    assert (ours.forward(nothing, window, pitch) == np.float32(background)[:, None, None]).all()
    base = np.full((gaussians.channels, *window.shape), 0.25, np.float32)
    black = kind().forward(gaussians, window, pitch, base)
    np.testing.assert_array_equal(ours.forward(gaussians, window, pitch, base), black)
    target = np.full(base.shape, 100, np.uint8)
    projection = ours.project(gaussians, pitch)
    _, squared, _ = ours.descend(projection, window, PointwiseLoss(target, 0.0, 1.0))
    wanted = np.square(expected.clip(0, 1).astype(np.float64) - 100 / 255).sum()
    assert squared == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("renderer", RENDERERS, ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("case", CASES)
def test_pixels_are_the_planes_clamped_and_rounded(renderer: Renderer, dtype: type, case: str) -> None:
    gaussians, window, pitch = CASES[case]
    expected = to_pixels(renderer.forward(gaussians, window, pitch), np.dtype(dtype))
    np.testing.assert_array_equal(renderer.pixels(gaussians, window, np.dtype(dtype), pitch), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_halves_round_as_those_of_planes(kind: Kind) -> None:
    halves = np.nextafter(
        (np.arange(255, dtype=np.float32) + np.float32(0.5)) / np.float32(255), np.float32([[-1], [2]])
    )
    nothing = batch(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0))
    for level in [*halves.ravel().tolist(), -0.5, 0.0, 1.0, 1.5]:
        ours = kind((level, level / 2, 1 - level))
        expected = to_pixels(ours.forward(nothing, WINDOW), np.dtype(np.uint8))
        np.testing.assert_array_equal(ours.pixels(nothing, WINDOW, np.dtype(np.uint8)), expected)


@pytest.mark.parametrize("renderer", RENDERERS, ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_reference(renderer: Renderer, case: str) -> None:
    gaussians, window, pitch = CASES[case]
    expected = REFERENCE.forward(gaussians, window, pitch)
    np.testing.assert_allclose(renderer.forward(gaussians, window, pitch), expected, rtol=0, atol=1e-5)

    d_planes = np.random.default_rng(1).normal(size=expected.shape).astype(np.float32)
    got = renderer.backward(gaussians, window, d_planes, pitch)
    want = REFERENCE.backward(gaussians, window, d_planes, pitch)
    for column in ("xy", "scale", "rotation", "color"):
        a, b = getattr(got, column), getattr(want, column)
        # Relative to the Gaussian's own gradient, with a floor for the ones that cancel to nothing.
        size = np.abs(b) + 1e-3 * np.abs(b).max() + 1e-12
        assert np.max(np.abs(a - b) / size) < 1e-3, column
        assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(b) + 1e-12, column


@pytest.mark.parametrize("renderer", RENDERERS, ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("case", CASES)
def test_gaussians_are_added_to_a_base(renderer: Renderer, case: str) -> None:
    gaussians, window, pitch = CASES[case]
    base = np.random.default_rng(3).normal(0.5, 0.5, (gaussians.channels, *window.shape)).astype(np.float32)
    before = base.copy()
    expected = REFERENCE.forward(gaussians, window, pitch, base)
    np.testing.assert_allclose(expected, REFERENCE.forward(gaussians, window, pitch) + base, rtol=0, atol=1e-5)
    np.testing.assert_allclose(renderer.forward(gaussians, window, pitch, base), expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(base, before)
    empty = Gaussians.empty(gaussians.channels)
    np.testing.assert_array_equal(renderer.forward(empty, window, pitch, base), base)


@pytest.mark.parametrize("renderer", RENDERERS, ids=lambda r: type(r).__name__)
def test_no_gaussians_render_to_black(renderer: Renderer) -> None:
    assert not renderer.forward(Gaussians.empty(3), WINDOW).any()
    assert renderer.backward(Gaussians.empty(3), WINDOW, np.ones((3, *WINDOW.shape), np.float32)).xy.shape == (0, 2)


@pytest.mark.parametrize("renderer", RENDERERS, ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("pitch", [1.0, 2.0])
def test_any_split_into_windows_gives_the_same_bits(renderer: Renderer, pitch: float) -> None:
    whole = Window(0, 0, 150, 100)
    gaussians = scattered(150, whole, pitch, 0.3, 60, 3)
    expected = renderer.forward(gaussians, whole, pitch)
    for window in (Window(0, 0, 64, 32), Window(63, 31, 2, 2), Window(17, 40, 100, 60), Window(149, 99, 1, 1)):
        rows, columns = window.slices(whole)
        np.testing.assert_array_equal(renderer.forward(gaussians, window, pitch), expected[:, rows, columns])


@pytest.mark.parametrize("renderer", RENDERERS, ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_level_is_the_box_mean_of_the_full_size(renderer: Renderer, level: int) -> None:
    """Zooming out never aliases: each pixel of a level is close to the mean of the pixels it covers."""
    side = 1 << level
    full, reduced = Window(0, 0, 160, 128), Window(0, 0, 160 // side, 128 // side)
    gaussians = scattered(100, full, 1, 1.2, 12, 3)
    pixels = renderer.forward(gaussians, full)
    mean = pixels.reshape(3, reduced.height, side, reduced.width, side).mean((2, 4))
    error = np.sqrt(np.mean((renderer.forward(gaussians, reduced, float(side)) - mean) ** 2))
    sampled = pixels[:, side // 2 :: side, side // 2 :: side]
    aliased = np.sqrt(np.mean((sampled - mean) ** 2))
    assert error < 0.015 * np.abs(pixels).max()
    assert error < aliased / 5


@pytest.mark.parametrize("renderer", RENDERERS[:1] if INTERPRETED else RENDERERS, ids=lambda r: type(r).__name__)
@pytest.mark.parametrize("callers", [1, 2, 3, 4])
def test_concurrent_callers_get_the_same_bits(renderer: BlockRenderer, callers: int) -> None:
    """Every case with all that a renderer gives, different cases at the same time."""

    def everything(case: str) -> list[np.ndarray]:
        gaussians, window, pitch = CASES[case]
        planes = renderer.forward(gaussians, window, pitch)
        d_planes = np.random.default_rng(1).normal(size=planes.shape).astype(np.float32)
        gradient = renderer.backward(gaussians, window, d_planes, pitch)
        target = np.random.default_rng(2).integers(0, 255, planes.shape, np.uint8)
        loss = PointwiseLoss(target, 0.3, 0.7)
        *sums, moments = renderer.descend(renderer.project(gaussians, pitch), window, loss)
        return [planes, gradient.xy, gradient.scale, gradient.rotation, gradient.color, np.array(sums), moments]

    expected = {case: everything(case) for case in CASES}
    asked = [*CASES, *reversed(CASES)] * 2
    with ThreadPoolExecutor(callers) as threads:
        for case, got in zip(asked, threads.map(everything, asked), strict=True):
            for ours, alone in zip(got, expected[case], strict=True):
                np.testing.assert_array_equal(ours, alone, err_msg=case)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("based", [False, True])
@pytest.mark.parametrize("renderer", RENDERERS, ids=lambda r: type(r).__name__)
def test_descent_is_forward_loss_and_backward_in_one(
    renderer: BlockRenderer, channels: int, dtype: type, based: bool
) -> None:
    """On a window whose edges cut tiles and strips, with overshoot on both sides of the range."""
    gaussians = scattered(60, WINDOW, 1, 0.3, 20, channels)
    projection = renderer.project(gaussians, 1.0)
    peak = np.iinfo(dtype).max
    # Between the ends of the range, where a clamped residual of nothing would have a sign by rounding.
    target = np.random.default_rng(2).integers(1, peak, (channels, *WINDOW.shape), dtype)
    noise = np.random.default_rng(3).normal(0.2, 0.5, target.shape).astype(np.float32)
    base = noise if based else None
    absolute, squared, moments = renderer.descend(projection, WINDOW, PointwiseLoss(target, 0.3, 0.7), base)
    r = renderer.forward(gaussians, WINDOW, 1.0, base).clip(0, 1) - target / peak
    assert absolute == pytest.approx(np.abs(r).sum(), rel=1e-5)
    assert squared == pytest.approx(np.square(r).sum(), rel=1e-5)
    wanted = renderer.correlate(projection, WINDOW, (0.3 * np.sign(r) + 0.7 * r).astype(np.float32))
    np.testing.assert_allclose(moments, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())
