"""Images at addresses: few requests, one line for whatever goes wrong, and no more of an address than may be told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import tifffile
from ranged_server import RangedServer, serving

from smartsplat_large import remote
from smartsplat_large.errors import MissingDependencyError, SmartSplatError, SourceError
from smartsplat_large.lattice import Window
from smartsplat_large.places import joined, shown
from smartsplat_large.source import ArraySource, bands, ingest, open_source

PIXELS = np.random.default_rng(3).integers(0, 256, (600, 800, 3), np.uint8)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangedServer]:
    monkeypatch.setattr(remote, "PAUSE_S", 0.0)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(tmp_path) as found:
        yield found


def test_what_lies_close_together_comes_in_one_request(server: RangedServer, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, tile=(64, 64), compression="zlib", photometric="rgb")
    np.save(tmp_path / "a.npy", PIXELS)
    for name in ("a.tif", "a.npy"):
        with open_source(f"{server.url}/{name}") as source:
            opened = len(server.asked)
            np.testing.assert_array_equal(source.read(Window(100, 200, 300, 300)), PIXELS[200:500, 100:400])
            assert len(server.asked) == opened + 1


def test_distant_rows_come_apart_and_wide_ones_in_bands(
    server: RangedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smartsplat_large.source.ranged_file._WORTH_A_REQUEST_BYTES", 100)
    np.save(tmp_path / "wide.npy", PIXELS[:4].reshape(2, -1, 3).repeat(8, axis=1))
    with open_source(f"{server.url}/wide.npy") as source:
        assert not source.meta.cheap_windows
        opened = len(server.asked)
        source.read(Window(5000, 0, 10, 2))
        assert len(server.asked) == opened + 2
        next(bands(source, 2))
        assert len(server.asked) == opened + 3


def test_addresses_of_fsspec() -> None:
    system = fsspec.filesystem("memory")
    head = b"P6 800 600 255\n"
    system.pipe_file("/far/a.ppm", head + PIXELS.tobytes())
    with open_source("memory://far/a.ppm") as source:
        np.testing.assert_array_equal(source.read(source.meta.size.window), PIXELS)
    system.pipe_file("/far/a.ppm", head + PIXELS.tobytes()[:-1])
    with pytest.raises(SourceError, match=r"memory://far/a\.ppm: ends early"):
        open_source("memory://far/a.ppm")


def test_a_zarr_in_a_store(tmp_path: Path) -> None:
    ingest(ArraySource(PIXELS), tmp_path / "a.zarr").close()
    fsspec.filesystem("memory").put(str(tmp_path / "a.zarr"), "/far/a", recursive=True)
    with open_source("memory://far/a/") as source:
        assert source.meta.format == "ome-zarr"
        assert len(source.meta.levels) == 3
        np.testing.assert_array_equal(source.read(Window(10, 20, 700, 500)), PIXELS[20:520, 10:710])


@pytest.mark.parametrize(
    ("url", "kind", "said"),
    [
        ("memory://nowhere/a.png", SourceError, "there is no such file"),
        ("memory://nowhere", SourceError, "there is no such file"),
        ("nonsense://a.png", SourceError, "no kind of address that is known"),
        ("http://127.0.0.1:9/a.png", SourceError, "Connection refused"),
        ("{server}/missing.png", SourceError, "404"),
        ("{server}/denied.png", SourceError, "403"),
        ("{server}/folder", SourceError, "the server does not send parts of files"),
        ("{server}/text.png", SourceError, "not an image we know"),
        ("{server}/empty.png", SourceError, "is empty"),
    ],
)
def test_what_cannot_be_read_is_named(
    server: RangedServer, tmp_path: Path, url: str, kind: type[SmartSplatError], said: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.png").write_text("There was a picture here.")
    (tmp_path / "empty.png").write_bytes(b"")
    url = url.format(server=server.url)
    with pytest.raises(kind, match=said) as caught:
        open_source(url)
    assert str(caught.value).startswith(url)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


def test_a_plug_in_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(MissingDependencyError, match="Install s3fs") as caught:
        open_source("s3://bucket/a.tif")
    assert caught.value.hint == "pip install s3fs"


def test_a_file_that_breaks_off_midway_is_named(server: RangedServer, tmp_path: Path) -> None:
    import pyvips

    pyvips.Image.new_from_array(PIXELS).write_to_file(str(tmp_path / "a.png"))
    with open_source(f"{server.url}/a.png") as source:
        (tmp_path / "a.png").unlink()
        with pytest.raises(SourceError, match=r"a\.png: cannot be fetched: 404"):
            list(bands(source, 100))


def test_a_signature_is_not_told(server: RangedServer, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", PIXELS)
    with open_source(f"{server.url}/a.npy?signature=secret") as source:
        assert source.meta.name == f"{server.url}/a.npy"
    with pytest.raises(SourceError, match="404") as caught:
        open_source(f"{server.url}/b.npy?signature=secret")
    assert "secret" not in str(caught.value)
    assert shown("https://me:secret@example.org/a b?c") == "https://example.org/a b"
    assert joined("https://example.org/a.zarr/?c=d", "0") == "https://example.org/a.zarr/0?c=d"
