"""Writing: round trips, refusals before any work, and what is left when the work fails."""

import contextlib
import io
import os
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
from PIL import Image, ImageCms

from smartsplat_large.errors import DiskFullError, OutputExistsError, SmartSplatError, UsageError
from smartsplat_large.lattice import Size
from smartsplat_large.sink import band_height, check_output, vips, write_image
from smartsplat_large.sink.base import OutputSpec, rebanded
from smartsplat_large.source import downsample, open_source

LOSSLESS = (".tif", ".ome.tif", ".zarr", ".png", ".npy")
FORMATS = (*LOSSLESS, ".jpg")
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _image(height: int, width: int, channels: int, dtype: type = np.uint8) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    smooth = [np.sin(x / (9 + c)) * np.cos(y / 11) / 2.1 + 0.5 for c in range(channels)]
    return (np.stack(smooth, axis=2) * np.iinfo(dtype).max).astype(dtype)


def _bands(pixels: np.ndarray, height: int) -> Iterator[np.ndarray]:
    return (pixels[y : y + height] for y in range(0, len(pixels), height))


def _write(path: Path, pixels: np.ndarray, height: int | None = None, **options: object) -> None:
    size = Size(pixels.shape[1], pixels.shape[0])
    bands = _bands(pixels, height or band_height(path))
    write_image(path, size, pixels.shape[2], pixels.dtype, bands, **options)


def _read(path: Path) -> np.ndarray:
    with open_source(path) as source:
        return source.read(source.meta.size.window)


@pytest.mark.parametrize("extension", LOSSLESS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_lossless_formats_give_back_the_pixels(tmp_path: Path, extension: str, channels: int, dtype: type) -> None:
    pixels = _image(530, 603, channels, dtype)
    _write(tmp_path / f"a{extension}", pixels)
    read = _read(tmp_path / f"a{extension}")
    assert read.dtype == dtype
    np.testing.assert_array_equal(read, pixels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(2600, 17), (1, 900), (530, 603), (8, 8)])
def test_jpeg_bands_join_into_one_picture(tmp_path: Path, channels: int, height: int, width: int) -> None:
    pixels = _image(height, width, channels)
    _write(tmp_path / "a.jpg", pixels)
    assert np.abs(_read(tmp_path / "a.jpg").astype(int) - pixels).max() <= 8
    with Image.open(tmp_path / "a.jpg") as independent:
        decoded = np.asarray(independent).reshape(pixels.shape)
    assert np.abs(decoded.astype(int) - pixels).max() <= 8


def test_a_jpeg_has_the_coefficients_of_an_encoder_that_saw_it_whole(tmp_path: Path) -> None:
    pixels = _image(600, 40, 3)
    _write(tmp_path / "a.jpg", pixels)
    whole = io.BytesIO()
    Image.fromarray(pixels).save(whole, "JPEG", quality=95, subsampling=0)
    with Image.open(tmp_path / "a.jpg") as ours, Image.open(whole) as theirs:
        np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("height", [1, 100, 5000])
def test_bands_may_have_any_height(tmp_path: Path, extension: str, height: int) -> None:
    pixels = _image(601, 20, 3)
    _write(tmp_path / f"a{extension}", pixels)
    _write(tmp_path / f"b{extension}", pixels, height)
    np.testing.assert_array_equal(_read(tmp_path / f"a{extension}"), _read(tmp_path / f"b{extension}"))


@pytest.mark.parametrize("extension", FORMATS)
def test_extreme_sizes(tmp_path: Path, extension: str) -> None:
    for shape in ((1, 1), (1, 3000), (3000, 1)):
        pixels = np.full((*shape, 3), 7, np.uint8)
        _write(tmp_path / f"a{extension}", pixels, overwrite=True)
        np.testing.assert_array_equal(_read(tmp_path / f"a{extension}"), pixels)


@pytest.mark.parametrize("extension", [e for e in FORMATS if e != ".npy"])
def test_profile_and_resolution_are_kept(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"a{extension}"
    _write(path, _image(20, 20, 3), icc_profile=SRGB, pixels_per_cm=(100.0, 50.0))
    with open_source(path) as source:
        assert source.meta.pixels_per_cm == pytest.approx((100, 50), rel=1e-3)
        assert source.meta.icc_profile == SRGB
    if extension in (".png", ".jpg"):
        with Image.open(path) as independent:
            assert independent.info["icc_profile"] == SRGB
            assert independent.info["dpi"][0] == pytest.approx(254, rel=1e-3)


def test_no_resolution_is_made_up(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        _write(tmp_path / name, _image(20, 20, 3))
    with open_source(tmp_path / "a.png") as source:
        assert source.meta.pixels_per_cm is None
    with Image.open(tmp_path / "a.jpg") as independent:
        assert not {"dpi", "exif", "jfif_density"} & independent.info.keys()


@pytest.mark.parametrize("extension", [".png", ".jpg"])
def test_a_file_grows_while_the_bands_are_made(tmp_path: Path, extension: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 500, 3), np.uint8)
    bytes_there = []

    def bands() -> Iterator[np.ndarray]:
        for _ in range(20):
            bytes_there.append(next(tmp_path.glob(f"a{extension}.*.part")).stat().st_size)
            yield noise

    write_image(tmp_path / f"a{extension}", Size(500, 20 * 256), 3, np.uint8, bands())
    assert bytes_there[-1] > 0.7 * (tmp_path / f"a{extension}").stat().st_size


@pytest.mark.skipif(os.name == "nt", reason="descriptors are counted where there are some")
@pytest.mark.parametrize("extension", [".png", ".jpg"])
def test_neither_pipes_nor_threads_stay_behind(tmp_path: Path, extension: str) -> None:
    pixels = _image(600, 500, 3)
    _write(tmp_path / f"a{extension}", pixels)
    before = psutil.Process().num_fds()
    for rows in (600, 599, 1, 0):
        with contextlib.suppress(ValueError):
            write_image(tmp_path / f"b{extension}", Size(500, 600), 3, np.uint8, [pixels[:rows]], overwrite=True)
    # libvips's own threads may each hold a wake-up pipe of theirs.
    assert psutil.Process().num_fds() <= before + 1
    assert "libvips" not in {thread.name for thread in threading.enumerate()}


def test_what_the_library_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    too_wide = OutputSpec(size=Size(vips.LARGEST_JPEG_SIDE + 1, 1), channels=1, dtype=np.dtype(np.uint8))
    band = np.zeros((1, vips.LARGEST_JPEG_SIDE + 1, 1), np.uint8)
    with pytest.raises(SmartSplatError, match=f"a.jpg: .* {vips.LARGEST_JPEG_SIDE} pixels") as caught:
        vips.write_jpeg(tmp_path / "a.jpg", too_wide, iter([band]))
    assert "\n" not in str(caught.value)


def test_a_tiff_is_a_tiled_bigtiff_others_read(tmp_path: Path) -> None:
    pixels = _image(530, 603, 4)
    _write(tmp_path / "a.tif", pixels)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        page = tif.pages[0]
        assert tif.is_bigtiff
        assert (page.tilelength, page.tilewidth) == (512, 512)
        assert page.extrasamples == (2,)
        np.testing.assert_array_equal(page.asarray(), pixels)


def test_an_ome_tiff_says_so(tmp_path: Path) -> None:
    _write(tmp_path / "a.ome.tif", _image(20, 30, 3), pixels_per_cm=(100.0, 50.0))
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        assert tif.is_ome
        assert 'PhysicalSizeX="100.0"' in tif.ome_metadata
        assert tif.series[0].axes == "YXS"


def test_a_zarr_has_all_its_levels(tmp_path: Path) -> None:
    pixels = _image(530, 603, 3)
    _write(tmp_path / "a.zarr", pixels)
    with open_source(tmp_path / "a.zarr") as source:
        assert len(source.meta.levels) == 3
        np.testing.assert_array_equal(source.read(source.meta.levels[2].window, 2), downsample(downsample(pixels)))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_another_reader_sees_the_same_png(tmp_path: Path, mode: str) -> None:
    pixels = _image(150, 70, 1 if mode == "I;16" else len(mode), np.uint16 if mode == "I;16" else np.uint8)
    _write(tmp_path / "a.png", pixels)
    with Image.open(tmp_path / "a.png") as independent:
        assert independent.mode == mode
        np.testing.assert_array_equal(np.asarray(independent).reshape(pixels.shape), pixels)


REFUSED = {
    "unknown extension": ("a.bmp", Size(5, 5), 3, np.uint8, "no output format"),
    "no extension": ("a", Size(5, 5), 3, np.uint8, "no extension"),
    "no folder": ("missing/a.png", Size(5, 5), 3, np.uint8, "no folder"),
    "jpeg too large": ("a.jpg", Size(65501, 5), 3, np.uint8, "65500"),
    "jpeg 16-bit": ("a.jpg", Size(5, 5), 3, np.uint16, "uint16"),
    "jpeg alpha": ("a.jpeg", Size(5, 5), 4, np.uint8, "4 channels"),
    "png too large": ("a.png", Size(100_000_001, 5), 3, np.uint8, "100000000"),
    "float": ("a.tif", Size(5, 5), 3, np.float32, "float32"),
    "five channels": ("a.tif", Size(5, 5), 5, np.uint8, "5 channels"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_written_is_refused_before_any_band_is_made(tmp_path: Path, case: str) -> None:
    name, size, channels, dtype, said = REFUSED[case]

    def bands() -> Iterator[np.ndarray]:
        pytest.fail("a band was asked for")
        yield

    for attempt in (
        lambda: check_output(tmp_path / name, size, channels, dtype),
        lambda: write_image(tmp_path / name, size, channels, dtype, bands()),
    ):
        with pytest.raises(UsageError, match=said) as caught:
            attempt()
        assert str(tmp_path) in str(caught.value)
        assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_an_array_larger_than_the_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match="left on the disk"):
        check_output(tmp_path / "a.npy", Size(2**30, 2**30), 4, np.uint16)


@pytest.mark.parametrize("extension", FORMATS)
def test_an_output_in_the_way(tmp_path: Path, extension: str) -> None:
    path, pixels = tmp_path / f"a{extension}", np.full((9, 9, 3), 50, np.uint8)
    _write(path, pixels)
    with pytest.raises(OutputExistsError, match="exists already"):
        _write(path, pixels + 1)
    np.testing.assert_array_equal(_read(path), pixels)
    _write(path, pixels + 1, overwrite=True)
    np.testing.assert_array_equal(_read(path), pixels + 1)
    folder = tmp_path / f"folder{extension}"
    folder.mkdir()
    (folder / "keepsake").touch()
    with pytest.raises(OutputExistsError, match="is a folder"):
        _write(folder, pixels, overwrite=True)
    assert (folder / "keepsake").exists()


@pytest.mark.parametrize("extension", FORMATS)
@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ValueError("bug"), OSError("torn")], ids=repr)
def test_a_failure_leaves_nothing_and_keeps_the_old(tmp_path: Path, extension: str, failure: BaseException) -> None:
    path, pixels = tmp_path / f"old{extension}", np.full((9, 9, 3), 50, np.uint8)
    _write(path, pixels)

    def bands() -> Iterator[np.ndarray]:
        yield np.zeros((600, 30, 3), np.uint8)
        raise failure

    for name in ("new", "old"):
        with pytest.raises(type(failure)):
            write_image(tmp_path / f"{name}{extension}", Size(30, 1200), 3, np.uint8, bands(), overwrite=True)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    np.testing.assert_array_equal(_read(path), pixels)


@pytest.mark.parametrize("rows", [0, 9, 11])
@pytest.mark.parametrize("extension", FORMATS)
def test_bands_that_do_not_make_up_the_image(tmp_path: Path, extension: str, rows: int) -> None:
    with pytest.raises(ValueError, match="rows"):
        write_image(tmp_path / f"a{extension}", Size(5, 10), 3, np.uint8, [np.zeros((rows, 5, 3), np.uint8)])
    assert list(tmp_path.iterdir()) == []


def test_bands_of_another_kind(tmp_path: Path) -> None:
    for band in (np.zeros((10, 4, 3), np.uint8), np.zeros((10, 5, 1), np.uint8), np.zeros((10, 5, 3), np.uint16)):
        with pytest.raises(ValueError, match="a band of"):
            write_image(tmp_path / "a.png", Size(5, 10), 3, np.uint8, [band])


@pytest.fixture
def tiny_disk() -> Iterator[None]:
    """No file of this process may pass 64 kB: the write fails as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("extension", FORMATS)
def test_a_full_disk_is_named(tmp_path: Path, extension: str, tiny_disk: None) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)
    with pytest.raises(DiskFullError, match=f"a{extension}") as caught:
        _write(tmp_path / f"a{extension}", noise)
    assert caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []


def test_bands_of_the_wanted_height_are_passed_on_contiguous() -> None:
    pixels = _image(20, 30, 3)
    spec = OutputSpec(size=Size(15, 20), channels=3, dtype=np.dtype(np.uint8))
    whole, sliced = np.ascontiguousarray(pixels[:8, :15]), pixels[8:16, :15]
    found = list(rebanded([whole, sliced, pixels[16:, :15]], spec, 8))
    assert found[0] is whole
    assert all(band.flags.c_contiguous for band in found)
    np.testing.assert_array_equal(np.concatenate(found), pixels[:, :15])
