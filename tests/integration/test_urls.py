"""Images, work, saved states and outputs at addresses: the file of a fit is that of the same image on a disk."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from ranged_server import RangedServer, serving

from smartsplat_large.source import ImageSource, open_source, working_copy

from .conftest import Command

SETTINGS = ("--preset", "fast", "--gaussians", 200, "--steps", 20, "--no-dashboard", "-q")


@pytest.fixture
def server(image: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangedServer]:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving(image.parent) as found:
        yield found


@pytest.fixture
def bucket() -> Iterator[Any]:
    """A file system of this process, empty before and after."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    assert system.find("/") == []


@pytest.fixture
def expected(command: Command, image: Path, tmp_path: Path) -> bytes:
    assert command("fit", image, "-o", tmp_path / "whole.ssplat", *SETTINGS).code == 0
    return (tmp_path / "whole.ssplat").read_bytes()


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_every_command_takes_an_image_at_an_address(
    command: Command, server: RangedServer, expected: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"{server.url}/a.npy"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert command("fit", url, *SETTINGS).code == 0
    assert Path("a.ssplat").read_bytes() == expected
    assert command("eval", "a.ssplat", url, "--json", "-q").json["bytes"] == len(expected)
    assert command("ingest", url, "-o", "a.zarr", "-q").code == 0
    with open_source("a.zarr") as copy:
        np.testing.assert_array_equal(copy.read(copy.meta.size.window), np.load(tmp_path / "a.npy"))
    assert command("fit", f"{server.url}/here/a.zarr", "-o", "b.ssplat", *SETTINGS).code == 0
    compared = command(
        "compare", url, "--ratios", 50, "--codecs", "jpeg", "--preset", "fast", "--steps", 2, "--json", "-q"
    )
    assert compared.json["image"] == url


@pytest.fixture
def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Working copies are written, however small."""

    def written(source: ImageSource, _: int, *arguments: Any, **options: Any) -> ImageSource:
        return working_copy(source, 0, *arguments, **options)

    monkeypatch.setattr("smartsplat_large.api.working_copy", written)


@pytest.mark.usefixtures("no_room")
def test_work_in_a_store_leaves_the_file_alone_and_nothing_behind(
    command: Command, image: Path, expected: bytes, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, put, seen = tmp_path / "a.ssplat", type(bucket).pipe_file, set[str]()

    def noted(self: Any, path: str, value: bytes, **options: Any) -> None:
        seen.add(re.sub(r"smartsplat-\w+", "*", path))
        put(self, path, value, **options)

    monkeypatch.setattr(type(bucket), "pipe_file", noted)
    monkeypatch.setenv("SMARTSPLAT_COMMIT_S", "0")
    assert command("fit", image, "-o", out, "--work", "memory://bucket/work/", *SETTINGS).code == 0
    assert out.read_bytes() == expected
    assert {"/bucket/work/*/working-copy.zarr/zarr.json", "/bucket/work/a.ssplat.state/commit.json"} <= seen


@pytest.mark.usefixtures("no_room")
def test_an_interrupted_fit_leaves_its_state_in_the_store_alone(
    command: Command, image: Path, expected: bytes, bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = ("fit", image, "-o", tmp_path / "a.ssplat", "--work", "memory://bucket/work", *SETTINGS)
    monkeypatch.setattr("smartsplat_large.api.encode_within", interrupted)
    done = command(*fit)
    assert done.code == 5
    assert "the state of the fit is in memory://bucket/work/a.ssplat.state" in done.err
    assert [Path(path).name for path in bucket.ls("/bucket/work", detail=False)] == ["a.ssplat.state"]
    monkeypatch.undo()
    assert command(*fit, "--resume").code == 0
    assert (tmp_path / "a.ssplat").read_bytes() == expected


def test_work_in_a_folder(command: Command, image: Path, expected: bytes, tmp_path: Path, no_room: None) -> None:
    work = tmp_path / "work"
    fit = ("fit", image, "-o", tmp_path / "a.ssplat", "--work", work, *SETTINGS)
    done = command(*fit)
    assert (done.code, f"{work}: No such file or directory" in done.err) == (2, True)
    work.mkdir()
    assert command(*fit).code == 0
    assert list(work.iterdir()) == []


def test_outputs_in_a_store(command: Command, image: Path, expected: bytes, bucket: Any) -> None:
    fit, ingest = (
        ("fit", image, "-o", "memory://b/a.ssplat", *SETTINGS),
        ("ingest", image, "-o", "memory://b/a.zarr", "-q"),
    )
    for arguments in (fit, ingest):
        assert command(*arguments).code == 0
        assert "exists already" in command(*arguments).err
        assert command(*arguments, "--overwrite").code == 0
    assert bucket.cat("/b/a.ssplat") == expected
    assert command("eval", "memory://b/a.ssplat", "memory://b/a.zarr", "--json", "-q").json["bytes"] == len(expected)
    bucket.pipe_file("/b/other.zarr/a", b"")
    assert "holds no zarr image" in command(*ingest[:3], "memory://b/other.zarr", "--overwrite", "-q").err
    bucket.rm("/b", recursive=True)


def test_an_ingest_that_fails_leaves_nothing_in_the_store(
    command: Command, image: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, left = type(bucket).pipe_file, [3]

    def denied(self: Any, path: str, value: bytes, **options: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise PermissionError("not yours")
        put(self, path, value, **options)

    monkeypatch.setattr(type(bucket), "pipe_file", denied)
    done = command("ingest", image, "-o", "memory://b/a.zarr", "-q")
    assert done.code == 2
    assert "error: memory://b/a.zarr: cannot be written: PermissionError: not yours" in done.err
    assert "hint: check your credentials" in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--work nonsense://a", "nonsense:// is no kind of address that is known"),
        ("--work https://example.org/a", "a web server takes no files"),
        ("-o https://example.org/a.ssplat", "a web server takes no files"),
        ("-o memory://b/a.tif", "a fit writes a .ssplat file"),
    ],
)
def test_places_that_cannot_be_written_are_named(
    command: Command, image: Path, bucket: Any, arguments: str, said: str
) -> None:
    done = command("fit", image, *arguments.split(), *SETTINGS)
    assert (done.code, said in done.err) == (2, True), done.err
    assert "hint: " in done.err
