"""Working copies: values, metadata, and what is left when the work fails."""

import json
import resource
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import dask
import numpy as np
import pytest
import pyvips
import zarr
from dask.callbacks import Callback
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from smartsplat_large.downsampling import level_count
from smartsplat_large.errors import DiskFullError, OutputExistsError, SourceError, UsageError
from smartsplat_large.lattice import Size, Window
from smartsplat_large.ome_zarr import shard_for_bands
from smartsplat_large.progress import Costs, Silent
from smartsplat_large.source import ArraySource, ImageSource, downsample, ingest, open_source, pyramid, working_copy

PIXELS = np.random.default_rng(6).integers(0, 256, (611, 1203, 3), np.uint8)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many shards in a small image."""
    monkeypatch.setattr("smartsplat_large.ome_zarr.SHARD", 512)


@given(
    st.sampled_from([np.uint8, np.uint16]).flatmap(
        lambda dtype: arrays(dtype, st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 4)))
    )
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_downsample_is_the_mean_of_the_pixels_that_exist(pixels: np.ndarray) -> None:
    out = downsample(pixels)
    assert out.dtype == pixels.dtype
    for y, x in np.ndindex(*out.shape[:2]):
        box = pixels[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].reshape(-1, pixels.shape[2]).astype(np.int64)
        np.testing.assert_array_equal(out[y, x], np.floor(box.mean(axis=0) + 0.5))
    assert out.shape[:2] == (-(-pixels.shape[0] // 2), -(-pixels.shape[1] // 2))


def _require_pyramid(source: ImageSource, levels: int) -> None:
    assert source.meta.levels == tuple(Size(1203, 611).at_level(k) for k in range(levels))
    expected = PIXELS
    for level, size in enumerate(source.meta.levels):
        np.testing.assert_array_equal(source.read(size.window, level), expected, f"level {level}")
        expected = downsample(expected)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("workers", [1, 3])
def test_ingest_by_shards(tmp_path: Path, workers: int) -> None:
    with ingest(ArraySource(PIXELS), tmp_path / "a.zarr", workers=workers) as source:
        _require_pyramid(source, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.usefixtures("small_shards")
def test_ingest_by_bands_gives_the_same_levels(tmp_path: Path) -> None:
    pyvips.Image.new_from_array(PIXELS).write_to_file(str(tmp_path / "a.png"))
    with ingest(open_source(tmp_path / "a.png"), tmp_path / "a.zarr") as source:
        _require_pyramid(source, 4)


@pytest.mark.usefixtures("small_shards")
def test_the_scheduler_that_is_set_gets_one_task_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(pyramid, "_TASKS_A_GRAPH", 4)
    watched = Callback(pretask=lambda key, *_: ran.append(key))
    with dask.config.set(scheduler="synchronous"), watched, ingest(ArraySource(PIXELS), tmp_path / "a.zarr") as source:
        _require_pyramid(source, 4)
    assert len(ran) == len(set(ran)) == 6 + 2 + 1 + 1


class _Adding(Silent):
    total = done = 0.0

    def start(self, stage: str, total: float, unit: str, costs: Costs = ()) -> None:
        self.total = total

    def advance(self, amount: float = 1, **facts: object) -> None:
        self.done += amount


def test_progress_reaches_its_total(tmp_path: Path) -> None:
    by_shards, by_bands = _Adding(), _Adding()
    ingest(ArraySource(PIXELS), tmp_path / "a.zarr", progress=by_shards)
    assert by_shards.done == pytest.approx(by_shards.total)
    pyvips.Image.new_from_array(PIXELS).write_to_file(str(tmp_path / "a.png"))
    ingest(open_source(tmp_path / "a.png"), tmp_path / "b.zarr", progress=by_bands)
    assert by_bands.done == pytest.approx(by_bands.total)


def test_number_of_levels(tmp_path: Path) -> None:
    assert [level_count(Size(*side)) for side in ((1, 1), (256, 256), (257, 1), (512, 512), (1, 100_000))] == [
        1,
        1,
        2,
        2,
        10,
    ]
    with ingest(ArraySource(PIXELS), tmp_path / "a.zarr", levels=2) as source:
        _require_pyramid(source, 2)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5000, 2), (5000, 1, 4)])
def test_extreme_sizes(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 65536, shape, np.uint16)
    with ingest(ArraySource(pixels), tmp_path / "a.zarr") as source:
        np.testing.assert_array_equal(source.read(source.meta.size.window), pixels)
        assert max(source.meta.levels[-1].width, source.meta.levels[-1].height) <= 256


def test_metadata_is_that_of_ome_zarr_0_5(tmp_path: Path) -> None:
    source = ArraySource(PIXELS, icc_profile=b"profile", pixels_per_cm=(50.0, 40.0))
    with ingest(source, tmp_path / "a.zarr") as copy:
        assert (copy.meta.icc_profile, copy.meta.pixels_per_cm) == (b"profile", (50.0, 40.0))
    root = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())
    assert (root["zarr_format"], root["node_type"]) == (3, "group")
    ome = root["attributes"]["ome"]
    multiscale = ome["multiscales"][0]
    assert ome["version"] == "0.5"
    assert [(axis["name"], axis["type"]) for axis in multiscale["axes"]] == [
        ("c", "channel"),
        ("y", "space"),
        ("x", "space"),
    ]
    for level, dataset in enumerate(multiscale["datasets"]):
        array = zarr.open_array(str(tmp_path / "a.zarr" / dataset["path"]), mode="r")
        size = Size(1203, 611).at_level(level)
        assert array.shape == (3, size.height, size.width)
        assert array.metadata.dimension_names == ("c", "y", "x")
        scale = dataset["coordinateTransformations"][0]["scale"]
        assert scale == pytest.approx([1, 2**level / 40, 2**level / 50])
    assert len(ome["omero"]["channels"]) == 3


def test_an_output_in_the_way(tmp_path: Path) -> None:
    source, output = ArraySource(PIXELS), tmp_path / "a.zarr"
    with pytest.raises(UsageError, match="no folder"):
        ingest(source, tmp_path / "missing" / "a.zarr")
    ingest(ArraySource(PIXELS[:9, :9]), output)
    with pytest.raises(OutputExistsError, match="exists already"):
        ingest(source, output)
    with ingest(source, output, overwrite=True) as copy:
        _require_pyramid(copy, 4)
    keepsake = tmp_path / "folder" / "keepsake"
    keepsake.parent.mkdir()
    keepsake.touch()
    with pytest.raises(OutputExistsError, match="folder"):
        ingest(source, keepsake.parent, overwrite=True)
    assert keepsake.exists()


class _Failing(ArraySource):
    """Fails at the third window."""

    def __init__(self, failure: BaseException, **options: object) -> None:
        super().__init__(PIXELS)
        self.failure, self.windows = failure, 0

    def read(self, window: Window, level: int = 0) -> np.ndarray:
        self.windows += 1
        if self.windows == 3:
            raise self.failure
        return super().read(window, level)


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("failure", [SourceError("x: torn"), KeyboardInterrupt(), ValueError("bug")], ids=repr)
def test_a_failure_leaves_nothing_and_keeps_the_old(tmp_path: Path, failure: BaseException) -> None:
    ingest(ArraySource(PIXELS[:9, :9]), tmp_path / "old.zarr")
    for name in ("new.zarr", "old.zarr"):
        with pytest.raises(type(failure)):
            ingest(_Failing(failure), tmp_path / name, overwrite=True, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["old.zarr"]
    with open_source(tmp_path / "old.zarr") as old:
        np.testing.assert_array_equal(old.read(old.meta.size.window), PIXELS[:9, :9])


@pytest.fixture
def tiny_disk() -> Iterator[None]:
    """No file of this process may pass 64 kB: the write fails as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("tiny_disk")
def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match="disk is full"):
        ingest(ArraySource(PIXELS), tmp_path / "a.zarr")
    assert list(tmp_path.iterdir()) == []


def test_a_working_copy_is_made_only_where_needed(tmp_path: Path) -> None:
    whole = ArraySource(PIXELS, levels=4)
    assert working_copy(whole, 0, tmp_path) is whole
    single = ArraySource(PIXELS)
    assert working_copy(single, 0, tmp_path, levels=1) is single
    _require_pyramid(working_copy(single, 4 * PIXELS.nbytes, tmp_path), 4)
    assert list(tmp_path.iterdir()) == []
    with working_copy(single, 1000, tmp_path) as copy:
        _require_pyramid(copy, 4)
        assert copy.meta.format == "ome-zarr"


def test_shards_of_a_wide_image_are_flat() -> None:
    assert shard_for_bands(1000, 3) == (2048, 2048)
    assert shard_for_bands(100_000, 3) == (256, 16384)
    for width in (1000, 30_000, 60_000, 170_000):
        height, _ = shard_for_bands(width, 3)
        assert height == 256 or height * width * 3 <= 128 << 20


class Noted(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


def test_a_large_working_copy_is_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    progress = Noted()
    single = ArraySource(PIXELS, name="scan")
    for place, least in (("a", PIXELS.nbytes * 2), ("b", PIXELS.nbytes)):
        monkeypatch.setattr(pyramid, "_WORTH_SAYING", least)
        folder = tmp_path / place
        folder.mkdir()
        with working_copy(single, 1000, folder, levels=2, progress=progress):
            written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    (note,) = progress.said
    assert note.startswith("scan: a working copy will take up to ")
    assert note.endswith(str(tmp_path / "b"))
    assert written <= PIXELS.nbytes * 1.3


def unread(*_: object) -> np.ndarray:
    pytest.fail("pixels were read")


def test_a_disk_without_room_is_told_before_pixels_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ArraySource(PIXELS, name="scan.png")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=1 << 40, free=PIXELS.nbytes // 10))
    monkeypatch.setattr(ArraySource, "read", unread)
    with pytest.raises(DiskFullError, match=r"scan\.png: a working copy will take up to .*; .* are free") as caught:
        working_copy(source, 1000, tmp_path, levels=2)
    assert str(tmp_path) in str(caught.value)
    assert "TMPDIR" in str(caught.value.hint)
    with pytest.raises(DiskFullError, match=r"a\.zarr: will take up to .*; .* are free") as caught:
        ingest(source, tmp_path / "a.zarr", levels=2)
    assert "another disk" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_with_perhaps_too_little_room_is_told_and_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    white = ArraySource(np.full_like(PIXELS, 255), name="scan.png")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=1 << 40, free=PIXELS.nbytes // 2))
    for make in (
        lambda progress: working_copy(white, 1000, tmp_path, levels=2, progress=progress),
        lambda progress: ingest(white, tmp_path / "a.zarr", levels=2, progress=progress),
    ):
        progress = Noted()
        make(progress).close()
        (note,) = progress.said
        assert "may not fit" in note
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < PIXELS.nbytes // 10


def test_a_working_copy_keeps_the_name_of_its_image(tmp_path: Path) -> None:
    single = ArraySource(PIXELS, name="picture.tif", levels=1)
    for limit in (0, 4 * PIXELS.nbytes):
        with working_copy(single, limit, tmp_path) as copy:
            assert copy.meta.name == "picture.tif"
