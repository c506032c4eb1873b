"""Axes and metadata of zarr images written by others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from smartsplat_large.errors import SourceError
from smartsplat_large.lattice import Size
from smartsplat_large.source import open_source

PIXELS = np.random.default_rng(4).integers(0, 65536, (50, 61, 2), np.uint16)


def _ome(folder: Path, axes: Any, levels: list[np.ndarray], version: str) -> None:
    group = zarr.create_group(str(folder), zarr_format=2 if version == "0.4" else 3)
    for number, values in enumerate(levels):
        group.create_array(f"s{number}", data=values, chunks=(1,) * (values.ndim - 2) + (32, 32))
    multiscales = [{"axes": axes, "datasets": [{"path": f"s{number}"} for number in range(len(levels))]}]
    group.attrs.update(
        {"multiscales": multiscales} if version == "0.4" else {"ome": {"version": version, "multiscales": multiscales}}
    )


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_of_five_axes(tmp_path: Path, version: str) -> None:
    full = np.zeros((2, 2, 3, 50, 61), np.uint16)
    full[0, :, 0] = np.moveaxis(PIXELS, 2, 0)
    half = full[..., ::2, ::2]
    _ome(tmp_path / "a", [{"name": name} for name in "tczyx"], [full, half], version)
    with open_source(tmp_path / "a") as source:
        assert source.meta.format == "ome-zarr"
        assert source.meta.levels == (Size(61, 50), Size(31, 25))
        np.testing.assert_array_equal(source.read(source.meta.size.window), PIXELS)
        np.testing.assert_array_equal(source.read(Size(31, 25).window, 1), PIXELS[::2, ::2])


def test_levels_that_round_down_are_left_out(tmp_path: Path) -> None:
    _ome(tmp_path / "a", ["y", "x"], [PIXELS[:, :, 0], PIXELS[:-1:2, :-1:2, 0]], "0.4")
    with open_source(tmp_path / "a") as source:
        assert source.meta.levels == (Size(61, 50),)


@pytest.mark.parametrize("version", [2, 3])
def test_plain_arrays(tmp_path: Path, version: int) -> None:
    for name, values, expected in (
        ("grey", PIXELS[:, :, 0], PIXELS[:, :, :1]),
        ("last", PIXELS, PIXELS),
        ("first", np.moveaxis(PIXELS, 2, 0), PIXELS),
        ("big-endian", PIXELS.astype(">u2"), PIXELS),
    ):
        zarr.create_array(str(tmp_path / name), data=values.copy(), zarr_format=version)
        with open_source(tmp_path / name) as source:
            read = source.read(source.meta.size.window)
        assert read.dtype == np.uint16
        np.testing.assert_array_equal(read, expected, name)


def test_named_axes_decide(tmp_path: Path) -> None:
    tiny = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    zarr.create_array(str(tmp_path / "a"), data=tiny, dimension_names=("c", "y", "x"))
    with open_source(tmp_path / "a") as source:
        np.testing.assert_array_equal(source.read(source.meta.size.window), np.moveaxis(tiny, 0, 2))


def test_a_damaged_chunk_is_an_error(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "a"), data=PIXELS, chunks=(50, 61, 2))
    chunk = next(path for path in (tmp_path / "a" / "c").rglob("*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:100])
    with open_source(tmp_path / "a") as source, pytest.raises(SourceError, match="level 0"):
        source.read(source.meta.size.window)


def test_one_huge_chunk_is_not_cheap(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "a"), shape=(5000, 5000), chunks=(5000, 5000), dtype=np.uint8)
    with open_source(tmp_path / "a") as source:
        assert not source.meta.cheap_windows
