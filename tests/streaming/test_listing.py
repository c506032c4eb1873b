"""A zarr hierarchy of which any file is replaced is another image; nothing else makes it one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr
from cut_fits import CONFIG

from smartsplat_large.places import Place
from smartsplat_large.remote_zarr import zarr_store
from smartsplat_large.source import open_source
from smartsplat_large.streaming.fingerprint import Fingerprint, differences, fingerprint
from smartsplat_large.streaming.listing import list_address, list_folder
from smartsplat_large.streaming.plan import plan_fit


def write_image(place: Place, version: int) -> None:
    """A group of one array of 1024 x 1024 pixels in 64 chunks, all as long as any others would be."""
    group = zarr.open_group(zarr_store(place, read_only=False), mode="w", zarr_format=version)
    group.create_array(
        "0",
        data=np.ones((1024, 1024), np.uint8),
        chunks=(128, 128),
        compressors=None,
        fill_value=0,
    )


def rewrite_pixels(place: Place) -> None:
    """Between the windows that are looked at."""
    zarr.open_group(zarr_store(place, read_only=False), mode="r+")["0"][200:250, 200:250] = 7


def found(place: Place) -> Fingerprint:
    with open_source(place) as source:
        plan = plan_fit(source.meta.size, 1, 1, 90, CONFIG, memory_bytes=1 << 40, workers=1)
        return fingerprint(place, source, CONFIG, plan)


def age(folder: Path) -> None:
    """Make all files older than what is written from now on, however coarse the clock of the file system."""
    for path in folder.rglob("*"):
        os.utime(path, ns=(10**18, 10**18))


@pytest.fixture
def store() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/far", recursive=True)


@pytest.mark.parametrize("version", [2, 3])
def test_pixels_rewritten_in_place_are_named(version: int, tmp_path: Path) -> None:
    image = tmp_path / "a.zarr"
    write_image(image, version)
    age(image)
    before = found(image)
    assert before["image"]["bytes"] == sum(path.stat().st_size for path in image.rglob("*") if path.is_file())
    assert differences(before, found(image)) == []
    rewrite_pixels(image)
    (changed,) = differences(before, found(image))
    assert changed.startswith("the image has changed: its list of files was ")
    assert " (names, sizes and times: " in changed


@pytest.mark.parametrize("version", [2, 3])
def test_pixels_rewritten_in_a_store_are_named(version: int, store: Any) -> None:
    write_image("memory://far/a.zarr", version)
    before = found("memory://far/a.zarr")
    assert before["image"]["bytes"] == store.du("/far/a.zarr")
    assert differences(before, found("memory://far/a.zarr")) == []
    rewrite_pixels("memory://far/a.zarr")
    (changed,) = differences(before, found("memory://far/a.zarr"))
    assert changed.startswith("the image has changed: its list of files was ")


def test_a_store_that_does_not_list_is_known_by_its_metadata(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image("memory://far/a.zarr", 3)

    def forbidden(self: object, path: str, detail: bool = True, **kwargs: object) -> list[Any]:
        raise PermissionError(path)

    monkeypatch.setattr(type(store), "ls", forbidden)
    with open_source("memory://far/a.zarr/0") as source:
        plan = plan_fit(source.meta.size, 1, 1, 90, CONFIG, memory_bytes=1 << 40, workers=1)
        image = fingerprint("memory://far/a.zarr/0", source, CONFIG, plan)["image"]
    assert image["mark in the store"]
    assert "list of files" not in image
    assert image["bytes"] == store.info("/far/a.zarr/0/zarr.json")["size"]


LEFT = (
    "a.ssplat", "a.ssplat.12-0.part", "a.ssplat.state/commit.json", "a.ssplat.state/b/xy/c/0", ".DS_Store", "0/.nfs0001",
    "smartsplat-x_1abcde/working-copy.zarr/zarr.json", "0/smartsplat-0123456789ab/begun",
)  # fmt: skip
"""By fits, and by those who show folders."""


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_in_a_folder_does_not_count(name: str, tmp_path: Path) -> None:
    write(tmp_path / "0/c/0")
    before = list_folder(tmp_path)
    write(tmp_path / name)
    assert list_folder(tmp_path) == before
    write(tmp_path / "0/c/1")
    assert list_folder(tmp_path).count == before.count + 1 == 2


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_in_a_store_does_not_count(name: str, store: Any) -> None:
    store.pipe_file("/far/a.zarr/0/c/0", b"12")
    before = list_address("memory://far/a.zarr")
    store.pipe_file(f"/far/a.zarr/{name}", b"12")
    assert before is not None
    assert list_address("memory://far/a.zarr") == before
    assert before.count == 1


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere/c/0")
    image = tmp_path / "a"
    image.mkdir()
    (image / "0").symlink_to(tmp_path / "elsewhere")
    (image / "nowhere").symlink_to(tmp_path / "nothing")
    (image / "self").symlink_to(image)
    (tmp_path / "elsewhere" / "back").symlink_to(image)
    before = list_folder(image)
    assert before.count == 2, "the chunk, and the link that leads nowhere"
    write(tmp_path / "elsewhere/c/0", b"123")
    assert list_folder(image).digest != before.digest


def test_a_store_replaced_under_cached_listings_is_seen(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As plug-ins of object stores keep them."""
    kept: dict[str, list[Any]] = {}
    ls = type(store).ls

    def cached(self: object, path: str, detail: bool = True, **kwargs: object) -> list[Any]:
        return kept.setdefault(path, ls(self, path, detail=True))

    monkeypatch.setattr(type(store), "ls", cached)
    monkeypatch.setattr(type(store), "invalidate_cache", lambda self, path=None: kept.clear())
    store.pipe_file("/far/a.zarr/0/c/0", b"12")
    kept["/far/a.zarr"] = []
    before = list_address("memory://far/a.zarr")
    assert before is not None
    assert (before.count, kept) == (1, {})


def write(path: Path, content: bytes = b"12") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
