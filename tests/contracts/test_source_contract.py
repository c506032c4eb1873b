"""What every image source promises, whatever the format."""

import contextlib
import dataclasses
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
import zarr
from ranged_server import serving

from smartsplat_large.lattice import Size, Window
from smartsplat_large.source import ArraySource, ImageSource, bands, downsample, ingest, open_source
from smartsplat_large.source.base import read_planes

HEIGHT, WIDTH = 107, 150
PIXELS = np.random.default_rng(7).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
DEEP = np.random.default_rng(8).integers(0, 65536, (HEIGHT, WIDTH, 1), np.uint16)
Made = tuple[ImageSource, np.ndarray]


def _tiff(folder: Path, pixels: np.ndarray = PIXELS, **options: object) -> Made:
    tifffile.imwrite(folder / "image.tif", pixels, photometric="rgb" if pixels.shape[-1] == 3 else None, **options)
    return open_source(folder / "image.tif"), pixels


def _planes(folder: Path, **options: object) -> Made:
    tifffile.imwrite(folder / "image.tif", np.moveaxis(PIXELS, 2, 0).copy(), **options)
    return open_source(folder / "image.tif"), PIXELS


def _pyramid_tiff(folder: Path) -> Made:
    level, options = PIXELS, {"tile": (32, 32), "photometric": "rgb", "compression": "zlib"}
    with tifffile.TiffWriter(folder / "image.tif") as writer:
        writer.write(level, subifds=2, **options)
        for _ in range(2):
            level = downsample(level)
            writer.write(level, subfiletype=1, **options)
    return open_source(folder / "image.tif"), PIXELS


def _zarr(folder: Path, version: int, values: np.ndarray) -> Made:
    zarr.create_array(str(folder / "image"), data=values, chunks=(values.shape[0], 40, 40), zarr_format=version)
    return open_source(folder / "image"), PIXELS


def _ingested(folder: Path) -> Made:
    return ingest(ArraySource(PIXELS), folder / "image.zarr", levels=3), PIXELS


def _vips(folder: Path, extension: str, pixels: np.ndarray = PIXELS, **options: object) -> Made:
    image = pyvips.Image.new_from_array(pixels)
    space = {np.dtype(np.uint8): "srgb", np.dtype(np.uint16): "grey16"}[pixels.dtype]
    image.copy(interpretation=space).write_to_file(str(folder / f"image.{extension}"), **options)
    decoded = pyvips.Image.new_from_file(str(folder / f"image.{extension}")).numpy()
    return open_source(folder / f"image.{extension}"), decoded.reshape(pixels.shape)


def _npy(folder: Path, pixels: np.ndarray = PIXELS) -> Made:
    np.save(folder / "image.npy", pixels)
    return open_source(folder / "image.npy"), pixels


def _netpbm(folder: Path, pixels: np.ndarray = PIXELS) -> Made:
    kind, brightest = ("P6" if pixels.shape[2] == 3 else "P5"), np.iinfo(pixels.dtype).max
    head = f"{kind}\n# made by hand\n{WIDTH} {HEIGHT} #\n{brightest}\n".encode()
    (folder / "image.ppm").write_bytes(head + pixels.astype(pixels.dtype.newbyteorder(">")).tobytes())
    return open_source(folder / "image.ppm"), pixels


SOURCES: dict[str, Callable[[Path], Made]] = {
    "array": lambda _: (ArraySource(PIXELS, levels=3), PIXELS),
    "tiff-tiled": lambda folder: _tiff(folder, tile=(32, 48), compression="zlib", predictor=True),
    "tiff-tiled-raw": lambda folder: _tiff(folder, tile=(32, 48)),
    "tiff-strips": lambda folder: _tiff(folder, rowsperstrip=10, compression="lzw"),
    "tiff-strips-raw": lambda folder: _tiff(folder, rowsperstrip=10),
    "tiff-one-strip": lambda folder: _tiff(folder, rowsperstrip=HEIGHT, compression="zlib"),
    "tiff-contiguous": _tiff,
    "tiff-big-endian-16": lambda folder: _tiff(folder, DEEP, byteorder=">"),
    "bigtiff": lambda folder: _tiff(folder, bigtiff=True, tile=(64, 64), compression="zstd"),
    "tiff-separate": lambda folder: _planes(folder, photometric="rgb", planarconfig="separate"),
    "tiff-separate-tiled": lambda folder: _planes(folder, photometric="rgb", planarconfig="separate", tile=(32, 32)),
    "ome-tiff-pages": lambda folder: _planes(folder, photometric="minisblack", ome=True, metadata={"axes": "CYX"}),
    "tiff-pyramid": _pyramid_tiff,
    "zarr-2-channels-first": lambda folder: _zarr(folder, 2, np.moveaxis(PIXELS, 2, 0).copy()),
    "zarr-3-channels-last": lambda folder: _zarr(folder, 3, PIXELS),
    "ome-zarr": _ingested,
    "npy": _npy,
    "npy-grey-16": lambda folder: _npy(folder, DEEP),
    "ppm": _netpbm,
    "pgm-16": lambda folder: _netpbm(folder, DEEP),
    "png": lambda folder: _vips(folder, "png"),
    "png-grey-16": lambda folder: _vips(folder, "png", DEEP),
    "png-interlaced": lambda folder: _vips(folder, "png", interlace=True),
    "jpeg": lambda folder: _vips(folder, "jpg"),
    "jpeg-progressive": lambda folder: _vips(folder, "jpg", interlace=True),
    "webp": lambda folder: _vips(folder, "webp", lossless=True),
}
FAR = (
    "tiff-tiled", "tiff-strips-raw", "tiff-one-strip", "tiff-separate", "tiff-pyramid", "zarr-2-channels-first",
    "zarr-3-channels-last", "ome-zarr", "npy", "pgm-16", "png", "jpeg-progressive", "webp",
)  # fmt: skip
"""Read from a web server, too."""
STREAMED = {"png", "png-grey-16", "png-interlaced", "jpeg", "jpeg-progressive", "webp", "tiff-one-strip"}
WINDOWS = (
    Window(0, 0, WIDTH, HEIGHT),
    Window(0, 0, 1, 1),
    Window(WIDTH - 1, HEIGHT - 1, 1, 1),
    Window(31, 9, 2, 2),
    Window(17, 5, 83, 71),
    Window(0, HEIGHT - 1, WIDTH, 1),
    Window(WIDTH - 1, 0, 1, HEIGHT),
    Window(64, 64, 64, 43),
)


@pytest.fixture(params=[*SOURCES, *(f"far {kind}" for kind in FAR)])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Made]:
    kind = request.param.removeprefix("far ")
    source, expected = SOURCES[kind](tmp_path)
    with source, serving(tmp_path) if kind != request.param else contextlib.nullcontext() as server:
        if server is None:
            yield source, expected
            return
        (name,) = (path.name for path in tmp_path.iterdir())
        with open_source(f"{server.url}/{name}") as far:
            # What is held of a stream, compressed, is not known beforehand.
            held = far.meta.held_bytes
            assert far.meta == dataclasses.replace(source.meta, name=far.meta.name, held_bytes=held)
            yield far, expected


def test_meta_describes_the_pixels(made: Made, request: pytest.FixtureRequest) -> None:
    source, expected = made
    assert source.meta.size == Size(WIDTH, HEIGHT)
    assert (source.meta.dtype, source.meta.channels) == (expected.dtype, expected.shape[2])
    assert source.meta.raw_bytes == expected.nbytes
    assert source.meta.levels == tuple(source.meta.size.at_level(k) for k in range(len(source.meta.levels)))
    assert source.meta.cheap_windows == (request.node.callspec.params["made"].removeprefix("far ") not in STREAMED)


def test_every_window_has_the_pixels_of_the_image(made: Made) -> None:
    source, expected = made
    for window in WINDOWS:
        read = source.read(window)
        assert read.dtype == expected.dtype
        np.testing.assert_array_equal(read, expected[window.slices(source.meta.size.window)], str(window))


def test_planes_are_the_pixels_channel_by_channel(made: Made) -> None:
    source, pixels = made
    for window in WINDOWS:
        planes = read_planes(source, window, 0)
        assert planes.dtype == source.meta.dtype
        np.testing.assert_array_equal(planes, np.moveaxis(pixels[window.slices(source.meta.size.window)], 2, 0))


def test_the_caller_owns_what_was_read(made: Made) -> None:
    source, expected = made
    for window in (WINDOWS[0], WINDOWS[4]):
        read = source.read(window)
        read[:] = 0
        np.testing.assert_array_equal(source.read(window), expected[window.slices(source.meta.size.window)])


def test_coarser_levels_are_box_means(made: Made) -> None:
    source, expected = made
    for level in range(1, len(source.meta.levels)):
        expected = downsample(expected)
        size = source.meta.levels[level]
        np.testing.assert_array_equal(source.read(size.window, level), expected)
        corner = Window(size.width - 2, size.height - 2, 2, 2)
        np.testing.assert_array_equal(source.read(corner, level), expected[-2:, -2:])


@pytest.mark.parametrize(
    "window",
    [Window(0, 0, 0, 1), Window(-1, 0, 2, 2), Window(WIDTH, 0, 1, 1), Window(0, HEIGHT - 1, 1, 2), Window(5, 5, -1, 1)],
    ids=str,
)
def test_a_window_outside_is_refused(made: Made, window: Window) -> None:
    with pytest.raises(ValueError, match="window"):
        made[0].read(window)


def test_a_level_that_is_not_there_is_refused(made: Made) -> None:
    for level in (-1, len(made[0].meta.levels)):
        with pytest.raises(ValueError, match="level"):
            made[0].read(Window(0, 0, 1, 1), level)


def test_threads_read_at_once(made: Made) -> None:
    source, expected = made
    windows = [Window(x, y, 37, 29) for y in (0, 30, 78) for x in (0, 20, 60, 113)]
    with ThreadPoolExecutor(6) as pool:
        for window, read in zip(windows, pool.map(source.read, windows), strict=True):
            np.testing.assert_array_equal(read, expected[window.slices(source.meta.size.window)])


def test_a_pickled_copy_reads_the_same(made: Made) -> None:
    source, expected = made
    with pickle.loads(pickle.dumps(source)) as copy:
        assert copy.meta == source.meta
        np.testing.assert_array_equal(copy.read(WINDOWS[4]), expected[WINDOWS[4].slices(source.meta.size.window)])


def test_bands_partition_the_image_from_the_top(made: Made) -> None:
    source, expected = made
    parts = list(bands(source, 33))
    assert [window for window, _ in parts] == [Window(0, y, WIDTH, min(33, HEIGHT - y)) for y in range(0, HEIGHT, 33)]
    np.testing.assert_array_equal(np.concatenate([pixels for _, pixels in parts]), expected)
