"""Dialects of TIFF, and which bytes a window reads."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from smartsplat_large.errors import SourceError
from smartsplat_large.lattice import Size, Window
from smartsplat_large.source import downsample, ingest, open_source, tiff
from smartsplat_large.source.ranged_file import RangedFile
from smartsplat_large.source.tiff import TiffSource

PIXELS = np.random.default_rng(3).integers(0, 256, (90, 130, 3), np.uint8)


def _read(path: Path) -> np.ndarray:
    with open_source(path) as source:
        return source.read(source.meta.size.window)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """``(offset, count)`` of every read of pixels."""
    seen: list[tuple[int, int]] = []
    original = RangedFile.read

    def counting(self: RangedFile, offset: int, count: int) -> bytes:
        seen.append((offset, count))
        return original(self, offset, count)

    monkeypatch.setattr(RangedFile, "read", counting)
    return seen


def test_a_window_reads_only_the_tiles_it_touches(tmp_path: Path, reads: list[tuple[int, int]]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, tile=(32, 32), compression="zlib", photometric="rgb")
    with open_source(tmp_path / "a.tif") as source:
        source.read(Window(40, 40, 30, 10))
    page = tifffile.TiffFile(tmp_path / "a.tif").pages[0]
    page.parent.close()
    assert reads == [(page.dataoffsets[i], page.databytecounts[i]) for i in (6, 7)]


def test_a_tile_is_decoded_once_for_neighbouring_windows(tmp_path: Path, reads: list[tuple[int, int]]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, tile=(32, 32), compression="zlib", photometric="rgb")
    with open_source(tmp_path / "a.tif") as source:
        source.read(Window(0, 0, 10, 10))
        source.read(Window(10, 10, 10, 10))
    assert len(reads) == 1


@pytest.mark.parametrize("compression", ["zlib", None])
@pytest.mark.parametrize("tile", [(32, 32), None])
@pytest.mark.parametrize("cache_bytes", [20_000, 1 << 20])
def test_no_more_is_kept_than_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tile: tuple[int, int] | None,
    compression: str | None,
    cache_bytes: int,
) -> None:
    monkeypatch.setattr(tiff, "_CACHE_BYTES", cache_bytes)
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, tile=tile, rowsperstrip=16, compression=compression, photometric="rgb")
    with open_source(tmp_path / "a.tif") as source:
        assert isinstance(source, TiffSource)
        source.read(source.meta.size.window)
        kept = sum(pixels.nbytes for pixels in source._cache._held.values())
        assert source.meta.kept_bytes / 2 <= kept <= source.meta.kept_bytes


def test_no_tile_is_kept_once_all_are_copied(tmp_path: Path, reads: list[tuple[int, int]]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, tile=(32, 32), compression="zlib", photometric="rgb")
    with open_source(tmp_path / "a.tif") as source:
        ingest(source, tmp_path / "a.zarr").close()
        reads.clear()
        source.read(Window(0, 0, 10, 10))
    assert len(reads) == 1


def test_a_window_of_an_uncompressed_image_reads_its_own_bytes(tmp_path: Path, reads: list[tuple[int, int]]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="rgb")
    with open_source(tmp_path / "a.tif") as source:
        source.read(Window(40, 40, 30, 10))
    assert sum(count for _, count in reads) == 30 * 10 * 3


@pytest.mark.parametrize(
    "codec", ["zlib", "lzw", "zstd", "lzma", "packbits", "png", "webp", "lerc", "jpeg2000", "jpegxl", "jpegxr", "jpeg"]
)
@pytest.mark.parametrize("layout", [{"tile": (32, 32)}, {"rowsperstrip": 16}], ids=["tiles", "strips"])
def test_compressions(tmp_path: Path, codec: str, layout: dict[str, object]) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, compression=codec, photometric="rgb", **layout)
    np.testing.assert_array_equal(_read(tmp_path / "a.tif"), tifffile.imread(tmp_path / "a.tif"))


def test_jpeg_tiles_with_subsampled_colour(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(96), np.arange(128))[:, :, None] * np.array([1, 0.5, 0.7])
    smooth = smooth.astype(np.uint8)
    options = {"compression": "jpeg", "photometric": "rgb", "subsampling": (2, 2)}
    tifffile.imwrite(tmp_path / "a.tif", smooth, tile=(32, 32), **options)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        assert tif.pages[0].photometric.name == "YCBCR"
    assert np.abs(_read(tmp_path / "a.tif").astype(int) - smooth).max() <= 8


@pytest.mark.parametrize(
    ("axes", "shape", "expected"),
    [
        ("TZCYX", (2, 2, 3), PIXELS),
        ("CZYX", (3, 2), PIXELS),
        ("ZYX", (3,), PIXELS[:, :, :1]),
        ("TCYX", (1, 3), PIXELS),
    ],
)
def test_the_first_time_and_depth_of_an_ome_tiff(
    tmp_path: Path, axes: str, shape: tuple[int, ...], expected: np.ndarray
) -> None:
    planes = np.zeros((*shape, 90, 130), np.uint8)
    for channel in range(3):
        index = [slice(None) if axis == "C" else 0 for axis in axes[:-2]]
        if "C" in axes:
            index[axes.index("C")] = channel
        planes[tuple(index)] = PIXELS[:, :, channel if "C" in axes else 0]
    tifffile.imwrite(tmp_path / "a.ome.tif", planes, metadata={"axes": axes}, photometric="minisblack")
    np.testing.assert_array_equal(_read(tmp_path / "a.ome.tif"), expected)


def test_a_pyramid_that_shrinks_by_four_offers_its_full_size_only(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(PIXELS, subifds=1, photometric="rgb")
        writer.write(downsample(downsample(PIXELS)), subfiletype=1, photometric="rgb")
    with open_source(tmp_path / "a.tif") as source:
        assert source.meta.levels == (Size(130, 90),)


TURNED = {
    1: PIXELS,
    2: PIXELS[:, ::-1],
    3: PIXELS[::-1, ::-1],
    4: PIXELS[::-1],
    5: PIXELS.transpose(1, 0, 2),
    6: np.rot90(PIXELS, -1),
    7: np.rot90(PIXELS, 2).transpose(1, 0, 2),
    8: np.rot90(PIXELS, 1),
}


@pytest.mark.parametrize("orientation", TURNED)
def test_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", PIXELS, photometric="rgb", tile=(32, 32), extratags=[(274, "H", 1, orientation, True)]
    )
    expected = TURNED[orientation]
    with open_source(tmp_path / "a.tif") as source:
        assert source.meta.size == Size(expected.shape[1], expected.shape[0])
        np.testing.assert_array_equal(source.read(source.meta.size.window), expected)
        np.testing.assert_array_equal(source.read(Window(50, 20, 11, 33)), expected[20:53, 50:61])


def test_colours_are_those_a_viewer_shows(tmp_path: Path) -> None:
    grey = PIXELS[:, :, :1]
    tifffile.imwrite(tmp_path / "white.tif", 255 - grey[:, :, 0], photometric="miniswhite")
    np.testing.assert_array_equal(_read(tmp_path / "white.tif"), grey)
    tifffile.imwrite(tmp_path / "bits.tif", grey[:, :, 0] > 99, photometric="minisblack")
    np.testing.assert_array_equal(_read(tmp_path / "bits.tif"), np.where(grey > 99, 255, 0).astype(np.uint8))
    colours = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "palette.tif", grey[:, :, 0], photometric="palette", colormap=colours * 257)
    np.testing.assert_array_equal(_read(tmp_path / "palette.tif"), colours.T[grey[:, :, 0]])


def test_profile_and_resolution_are_carried(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        PIXELS,
        photometric="rgb",
        resolution=(254, 508),
        resolutionunit="INCH",
        iccprofile=b"profile",
    )
    with open_source(tmp_path / "a.tif") as source:
        assert source.meta.pixels_per_cm == pytest.approx((100, 200))
        assert source.meta.icc_profile == b"profile"


@pytest.mark.parametrize("shape", [(1, 1), (1, 20_000), (20_000, 1), (3, 5)])
def test_extreme_sizes(tmp_path: Path, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    np.testing.assert_array_equal(_read(tmp_path / "a.tif"), pixels)


def test_a_damaged_tile_is_an_error_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, tile=(32, 32), compression="zlib", photometric="rgb")
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[0].dataoffsets[6]
    damaged = bytearray(path.read_bytes())
    damaged[offset : offset + 40] = bytes(40)
    path.write_bytes(damaged)
    with open_source(path) as source:
        np.testing.assert_array_equal(source.read(Window(0, 0, 32, 32)), PIXELS[:32, :32])
        with pytest.raises(SourceError, match=f"byte {offset}"):
            source.read(Window(40, 40, 1, 1))


def test_a_file_that_shrinks_while_open_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, photometric="rgb")
    with open_source(path) as source:
        path.write_bytes(path.read_bytes()[:1000])
        with pytest.raises(SourceError, match="ends early"):
            source.read(source.meta.size.window)


def test_a_sparse_tile_is_black(tmp_path: Path) -> None:
    tiles = [None if index == 1 else np.full((32, 32, 3), 9, np.uint8) for index in range(2)]
    tifffile.imwrite(
        tmp_path / "a.tif", iter(tiles), shape=(32, 64, 3), dtype=np.uint8, tile=(32, 32), photometric="rgb",
        compression="zlib",
    )  # fmt: skip
    read = _read(tmp_path / "a.tif")
    assert (read[:, :32] == 9).all()
    assert (read[:, 32:] == 0).all()


def test_several_pages_or_planes_are_remarked_upon(tmp_path: Path) -> None:
    pages = np.zeros((3, 40, 50, 3), np.uint8)
    with tifffile.TiffWriter(tmp_path / "pages.tif") as writer:
        for page in pages:
            writer.write(page, photometric="rgb", metadata=None)
    tifffile.imwrite(tmp_path / "planes.ome.tif", pages[..., 0], metadata={"axes": "ZYX"})
    tifffile.imwrite(tmp_path / "one.tif", pages[0], photometric="rgb")
    remarks = []
    for name in ("pages.tif", "planes.ome.tif", "one.tif"):
        with open_source(tmp_path / name) as source:
            remarks.append(source.meta.remark)
    assert remarks[0] is not None
    assert "only the first" in remarks[0]
    assert "of 3" in remarks[0]
    assert remarks[1:] == ["only the first plane is read, of 3 along Z", None]
