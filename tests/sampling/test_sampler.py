import dataclasses
import functools
import math
import pickle
import shutil

import dask
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from smartsplat_large.array_types import Pixels
from smartsplat_large.config import SamplingConfig
from smartsplat_large.errors import UsageError
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import BlockGrid, Size, Window
from smartsplat_large.progress import Costs
from smartsplat_large.sampling import budget, sample
from smartsplat_large.sampling.color import REACH, color_block
from smartsplat_large.sampling.schedule import Call, run_calls
from smartsplat_large.sampling.tiling import feature_tiles
from smartsplat_large.sampling.variational import draw_tile, tile_quotas

SMALL_TILES = SamplingConfig(tile=64)


def picture(width: int, height: int, channels: int = 3, dtype: type = np.uint8) -> Pixels:
    """A flat left half, a textured right half, a bright disc on both."""
    rng = np.random.default_rng(width * height)
    rows, columns = np.mgrid[:height, :width]
    values = np.where(columns < width / 2, 0.3, rng.random((height, width)))
    values[np.hypot(rows - height / 2, columns - width / 2) < min(width, height) / 5] = 0.9
    return (values[:, :, None] * np.linspace(1, 0.5, channels) * np.iinfo(dtype).max).astype(dtype)


def read_array(image: Pixels, window: Window) -> Pixels:
    size = Size(image.shape[1], image.shape[0])
    assert not window.is_empty
    assert size.window.contains(window)
    return image[window.slices(size.window)]


def sample_array(
    image: Pixels, count: int, config: SamplingConfig = SMALL_TILES, seed: int = 0, **how: object
) -> Gaussians:
    height, width, channels = image.shape
    read = functools.partial(read_array, image)
    return sample(read, Size(width, height), channels, image.dtype, count, config, seed, **how)  # type: ignore[arg-type]


def columns(gaussians: Gaussians) -> list[np.ndarray]:
    return [gaussians.xy, gaussians.scale, gaussians.rotation, gaussians.color]


def assert_same(a: Gaussians, b: Gaussians) -> None:
    for ours, theirs in zip(columns(a), columns(b), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def assert_sound(gaussians: Gaussians, width: int, height: int) -> None:
    assert [c.dtype for c in columns(gaussians)] == [np.float64, np.float32, np.float32, np.float32]
    assert ((gaussians.xy >= 0) & (gaussians.xy < (width, height))).all()
    assert (np.isfinite(gaussians.scale) & (gaussians.scale > 0)).all()
    assert not gaussians.rotation.any()
    assert ((gaussians.color >= 0) & (gaussians.color <= 1)).all()


class Recorder:
    def __init__(self) -> None:
        self.stages: list[list[object]] = []
        self.notes: list[str] = []

    def start(self, stage: str, total: float, unit: str, costs: Costs = ()) -> None:
        self.stages.append([stage, total, 0.0])

    def advance(self, amount: float = 1, **facts: object) -> None:
        self.stages[-1][2] += amount  # type: ignore[operator]

    def note(self, message: str) -> None:
        self.notes.append(message)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize(
    ("width", "height", "channels", "count"),
    [
        (1, 1, 3, 1), (1, 1, 1, 40), (1, 5000, 1, 333), (5000, 1, 4, 7), (10, 10, 2, 1000),
        (300, 200, 3, 1), (300, 200, 3, 2), (301, 199, 3, 997),
    ],
)  # fmt: skip
def test_the_number_is_exact(width: int, height: int, channels: int, count: int, dtype: type) -> None:
    gaussians = sample_array(picture(width, height, channels, dtype), count)

    assert (len(gaussians), gaussians.channels) == (count, channels)
    assert_sound(gaussians, width, height)


def test_the_longest_line() -> None:
    gaussians = sample_array(picture(100_000, 1), 500, SamplingConfig())

    assert len(gaussians) == 500
    assert_sound(gaussians, 100_000, 1)


@pytest.mark.parametrize("value", [0, 77, 255])
def test_a_picture_of_one_colour(value: int) -> None:
    gaussians = sample_array(np.full((150, 140, 3), value, np.uint8), 600)

    assert len(gaussians) == 600
    assert_sound(gaussians, 140, 150)
    np.testing.assert_allclose(gaussians.color, value / 255, rtol=1e-6)


def test_the_seed_alone_decides() -> None:
    image = picture(300, 200)

    one = sample_array(image, 700, seed=5, workers=1)
    assert_same(one, sample_array(image, 700, seed=5, workers=2))
    assert_same(one, sample_array(image, 700, seed=5, workers=4))
    with dask.config.set(scheduler="synchronous"):
        assert_same(one, sample_array(image, 700, seed=5))
    assert not np.array_equal(one.xy, sample_array(image, 700, seed=6).xy)


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="KeOps needs a C++ compiler")
def test_the_backend_decides_nothing() -> None:
    image = picture(300, 200)

    keops = dataclasses.replace(SMALL_TILES, neighbor_search="keops")
    assert_same(sample_array(image, 900), sample_array(image, 900, keops))


def test_tiles_in_any_order_give_the_same() -> None:
    image, size = picture(300, 200), Size(300, 200)
    read = functools.partial(read_array, image)
    expected = sample_array(image, 700, seed=5)

    tiles = feature_tiles(size, 64)
    quotas = tile_quotas(490, len(tiles))
    parts = {k: draw_tile(read, size, tiles[k], k, quotas[k], 0.9, 5)[0] for k in reversed(range(len(tiles)))}
    np.testing.assert_array_equal(np.concatenate([parts[k] for k in range(len(tiles))]), expected.xy[:490])

    for block in reversed(list(BlockGrid(size, 64))):
        x, y = expected.xy.T
        inside = (x >= block.core.x) & (x < block.core.x_end) & (y >= block.core.y) & (y < block.core.y_end)
        radius = expected.scale[inside, 0].astype(np.float64)
        colors = color_block(read, size, block.core, expected.xy[inside], radius)
        # The radius went through float32 here, so a sample may differ in its last digits.
        np.testing.assert_allclose(colors, expected.color[inside], atol=2e-3)


def test_points_go_where_the_detail_is() -> None:
    gaussians = sample_array(picture(600, 300), 1000, SamplingConfig())
    drawn, spread = gaussians.xy[:700], gaussians.xy[700:]

    assert (drawn[:, 0] > 300).mean() > 0.9
    assert abs((spread[:, 0] > 300).mean() - 0.5) < 0.15
    base = math.sqrt(600 * 300 / (math.pi * 1000)) / 3
    assert cdist(spread, drawn).min() > base
    assert ((gaussians.scale[:700] <= base * 1.000001) & (gaussians.scale[:700] >= base * 0.606)).all()
    others = np.sort(cdist(spread, gaussians.xy), axis=1)[:, 1:4].mean(axis=1)
    np.testing.assert_allclose(gaussians.scale[700:, 0], others, rtol=1e-6)


def test_random_means() -> None:
    gaussians = sample_array(picture(600, 300), 1000, SamplingConfig(means="random"))

    assert abs((gaussians.xy[:, 0] > 300).sum() - 500) < 5 * math.sqrt(250)
    others = np.sort(cdist(gaussians.xy, gaussians.xy), axis=1)[:, 1:4].mean(axis=1)
    np.testing.assert_allclose(gaussians.scale[:, 1], others, rtol=1e-6)


def test_random_scales() -> None:
    image = picture(300, 200)
    gaussians = sample_array(image, 1000, SamplingConfig(scales="random"))

    assert ((gaussians.scale >= 0.5) & (gaussians.scale < 1.5)).all()
    assert gaussians.scale.std(axis=0) == pytest.approx(math.sqrt(1 / 12), rel=0.1)
    assert abs(np.corrcoef(gaussians.scale.T)[0, 1]) < 0.2
    np.testing.assert_array_equal(gaussians.xy, sample_array(image, 1000, SamplingConfig()).xy)


def test_random_colors() -> None:
    image = picture(300, 200)
    gaussians = sample_array(image, 1000, SamplingConfig(colors="random"))

    assert gaussians.color.mean(axis=0) == pytest.approx(0.5, abs=0.05)
    assert gaussians.color.std(axis=0) == pytest.approx(math.sqrt(1 / 12), rel=0.1)
    np.testing.assert_array_equal(gaussians.scale, sample_array(image, 1000, SamplingConfig()).scale)


def test_overlap_widens_all_and_recolours_none() -> None:
    image = picture(300, 200)
    plain = sample_array(image, 500, SamplingConfig())
    wide = sample_array(image, 500, SamplingConfig(overlap=1.8))

    np.testing.assert_allclose(wide.scale, plain.scale * 1.8, rtol=1e-6)
    np.testing.assert_array_equal(wide.color, plain.color)


def test_no_read_is_larger_than_a_tile_and_what_it_must_see() -> None:
    image, asked = picture(700, 500), []

    def read(window: Window) -> Pixels:
        asked.append(window)
        return read_array(image, window)

    sample(read, Size(700, 500), 3, image.dtype, 3000, SamplingConfig(tile=128), 0, workers=2)

    assert max(max(w.shape) for w in asked) <= 128 + 2 * (REACH + 1)
    assert len(asked) == 2 * 6 * 4


def test_progress_ends_at_the_total_of_each_stage() -> None:
    progress = Recorder()

    sample_array(picture(300, 200), 700, progress=progress)

    assert [stage for stage, _, _ in progress.stages] == ["drawing points", "measuring distances", "choosing colours"]
    assert all(total == done for _, total, done in progress.stages)
    assert progress.notes == []


def test_a_quota_filled_another_way_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    progress = Recorder()
    monkeypatch.setattr("smartsplat_large.sampling.sampler.base_scale", lambda size, count: 1e4)

    assert len(sample_array(picture(100, 100), 50, progress=progress)) == 50
    assert progress.notes == ["15 of 15 uniform points found no free place and lie closer than 10000.00 px"]


def test_tasks_travel() -> None:
    image = picture(90, 80)
    call = Call(draw_tile, (functools.partial(read_array, image), Size(90, 80), Window(0, 0, 64, 64), 0, 9, 0.9, 1), 1)

    there = pickle.loads(pickle.dumps(call))

    for ours, theirs in zip(call.function(*call.arguments), there.function(*there.arguments), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_calls_are_made_graph_by_graph_and_answered_in_order() -> None:
    made: list[int] = []
    progress = Recorder()
    progress.start("squares", 40, "numbers")

    def calls():  # type: ignore[no-untyped-def]
        for i in range(40):
            made.append(i)
            yield Call(pow, (i, 2), weight=1)

    results = run_calls(calls(), 1, progress)

    assert next(results) == 0
    assert len(made) < 40
    assert [0, *results] == [i * i for i in range(40)]
    assert progress.stages[0][2] == 40


def test_errors_of_a_reader_come_through() -> None:
    def read(window: Window) -> Pixels:
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        sample(read, Size(50, 50), 3, np.dtype(np.uint8), 10, SMALL_TILES, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, "count = 0"),
        ({"workers": 0}, "workers = 0"),
        ({"dtype": np.dtype(np.float32)}, "float32"),
    ],
)
def test_settings_that_cannot_be_meant(change: dict[str, object], message: str) -> None:
    image = picture(20, 20)
    settings = {"dtype": image.dtype, "count": 10, "config": SMALL_TILES, "seed": 0} | change

    with pytest.raises(UsageError, match=message):
        sample(functools.partial(read_array, image), Size(20, 20), 3, **settings)  # type: ignore[arg-type]


def test_budget_is_that_of_the_paper() -> None:
    assert budget(Size(5436, 5880), 50) == 3 * 5436 * 5880 // 350
    assert budget(Size(70, 10), 1.5) == 200
    assert budget(Size(70, 10), 1.5, channels=1, itemsize=2) == 133
    assert budget(Size(7, 1), 3) == 1


@pytest.mark.parametrize("ratio", [0, -1, math.nan, math.inf, 301])
def test_budget_refuses_what_leaves_nothing(ratio: float) -> None:
    with pytest.raises(UsageError):
        budget(Size(70, 10), ratio)
