"""Opening by content, and everything that is refused."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
import zarr

from smartsplat_large.codec.container import MAGIC
from smartsplat_large.errors import SourceError
from smartsplat_large.source import ArraySource, open_source

PIXELS = np.random.default_rng(5).integers(0, 256, (64, 80, 3), np.uint8)


def _vips(path: Path, pixels: np.ndarray = PIXELS, space: str = "srgb") -> None:
    pyvips.Image.new_from_array(pixels).copy(interpretation=space).write_to_file(str(path))


def _whole(folder: Path, kind: str) -> Path:
    path = folder / f"whole.{kind}"
    if kind == "tif":
        tifffile.imwrite(path, PIXELS, tile=(32, 32), compression="zlib", photometric="rgb")
    elif kind == "npy":
        np.save(path, PIXELS)
    else:
        _vips(path)
    return path


@pytest.mark.parametrize("kind", ["tif", "npy", "png", "jpg", "webp"])
def test_a_wrong_extension_does_not_matter(tmp_path: Path, kind: str) -> None:
    path = _whole(tmp_path, kind).rename(tmp_path / "mislabelled.xyz")
    with open_source(path) as source:
        assert source.read(source.meta.size.window).shape == PIXELS.shape


@pytest.mark.parametrize("kind", ["tif", "npy", "png", "jpg", "webp"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.97])
def test_a_truncated_file_is_never_read_in_silence(tmp_path: Path, kind: str, share: float) -> None:
    path = _whole(tmp_path, kind)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(SourceError, match=str(path)) as caught, open_source(path) as source:
        source.read(source.meta.size.window)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def _float(path: Path) -> None:
    tifffile.imwrite(path, PIXELS.astype(np.float32), photometric="rgb")


def _int32(path: Path) -> None:
    tifffile.imwrite(path, PIXELS[:, :, 0].astype(np.int32))


def _five(path: Path) -> None:
    np.save(path.with_suffix(".npy"), np.zeros((8, 8, 5), np.uint8))
    path.with_suffix(".npy").rename(path)


def _fortran(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.asfortranarray(PIXELS[:, :, 0]))


def _one_axis(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(9, np.uint8))


def _objects(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([[None]]), allow_pickle=True)


def _cmyk_tiff(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((8, 8, 4), np.uint8), photometric="separated", planarconfig="contig")


def _cmyk_jpeg(path: Path) -> None:
    _vips(path.with_suffix(".jpg"), np.zeros((8, 8, 4), np.uint8), "cmyk")
    path.with_suffix(".jpg").rename(path)


def _twelve_bits(path: Path) -> None:
    tifffile.imwrite(path, PIXELS[:, :, 0].astype(np.uint16), bitspersample=12)


def _plain_folder(path: Path) -> None:
    path.mkdir()


def _volume(path: Path) -> None:
    zarr.create_array(str(path), data=np.zeros((2, 3, 4, 5), np.uint8))


def _group(path: Path) -> None:
    group = zarr.create_group(str(path))
    for name in "ab":
        group.create_array(name, data=PIXELS)


def _damaged_zarr(path: Path) -> None:
    path.mkdir()
    (path / "zarr.json").write_text("{")


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "no such file"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "text": (lambda path: path.write_text("hello, this is no image"), "not an image"),
    "gif": (lambda path: path.write_bytes(b"GIF89a" + bytes(40)), "is a GIF"),
    "heif": (lambda path: path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(40)), "HEIF"),
    "zip": (lambda path: path.write_bytes(b"PK\3\4" + bytes(40)), "zip"),
    "folder": (_plain_folder, "folder"),
    "float": (_float, "float32"),
    "int32": (_int32, "int32"),
    "12-bit": (_twelve_bits, "12-bit"),
    "cmyk-tiff": (_cmyk_tiff, "SEPARATED"),
    "cmyk-jpeg": (_cmyk_jpeg, "cmyk"),
    "five-channels": (_five, "5 channels"),
    "column-order": (_fortran, "column order"),
    "one-axis": (_one_axis, r"shape \(9,\)"),
    "pickled-objects": (_objects, "object"),
    "volume": (_volume, r"\(2, 3, 4, 5\)"),
    "group-of-arrays": (_group, "2 arrays"),
    "damaged-zarr": (_damaged_zarr, "zarr"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_named_in_one_line_with_a_hint(tmp_path: Path, kind: str) -> None:
    make, said = BAD[kind]
    path = tmp_path / "input"
    make(path)
    with pytest.raises(SourceError, match=said) as caught:
        open_source(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    assert caught.value.exit_code == 3


def test_a_compressed_file_is_known_as_such(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(MAGIC + bytes(40))
    with pytest.raises(SourceError, match=r"is a \.ssplat file") as caught:
        open_source(tmp_path / "a.png")
    assert "decode" in str(caught.value.hint)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_an_unreadable_file(tmp_path: Path) -> None:
    path = _whole(tmp_path, "tif")
    path.chmod(0)
    with pytest.raises(SourceError, match="Permission denied"):
        open_source(path)


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2, 5), np.uint8), np.zeros((2, 2)), np.zeros((0, 2), np.uint8)], ids=str
)
def test_arrays_that_are_no_image(array: np.ndarray) -> None:
    with pytest.raises(SourceError):
        ArraySource(array)


def test_arrays_that_are_not_levels_of_each_other() -> None:
    with pytest.raises(SourceError, match="shrink"):
        ArraySource([PIXELS, PIXELS])
