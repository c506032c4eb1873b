"""Pictures through a named pipe: the pixels of the file, once, as they come."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile

from smartsplat_large.errors import SourceError
from smartsplat_large.lattice import Window
from smartsplat_large.source import bands, ingest, open_source
from smartsplat_large.source.base import band_windows

PIXELS = np.random.default_rng(3).integers(0, 256, (600, 50, 3), np.uint8)
DEEP = np.random.default_rng(4).integers(0, 65536, (600, 50, 1), np.uint16)
Feed = Callable[..., Path]


def _vips(kind: str, pixels: np.ndarray = PIXELS, orientation: int = 1, **options: object) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        image = pyvips.Image.new_from_array(pixels)
        image = image.copy(interpretation="srgb" if pixels.dtype == np.uint8 else "grey16", xres=5, yres=5)
        image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
        path.write_bytes(getattr(image, f"{kind}save_buffer")(**options))

    return write


def _npy(pixels: np.ndarray) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, pixels)

    return write


def _netpbm(kind: str, pixels: np.ndarray) -> Callable[[Path], object]:
    head = f"{kind}\n{pixels.shape[1]} {pixels.shape[0]}\n{np.iinfo(pixels.dtype).max}\n".encode()
    return lambda path: path.write_bytes(head + pixels.astype(pixels.dtype.newbyteorder(">")).tobytes())


KINDS: dict[str, Callable[[Path], object]] = {
    "png": _vips("png"),
    "png-16": _vips("png", DEEP),
    "png-interlaced": _vips("png", interlace=True),
    "png-turned": _vips("png", orientation=6),
    "jpeg": _vips("jpeg"),
    "jpeg-progressive": _vips("jpeg", interlace=True),
    "jpeg-turned": _vips("jpeg", orientation=8),
    "webp": _vips("webp", lossless=True),
    "npy": _npy(PIXELS),
    "npy-16": _npy(DEEP),
    "ppm": _netpbm("P6", PIXELS),
    "pgm-16": _netpbm("P5", DEEP),
}


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[Feed]:
    """``feed(data)``: a named pipe through which ``data`` comes in pieces; kept open afterwards on demand."""
    writers, done = [], threading.Event()
    (tmp_path / "pipe").mkdir()

    def begin(data: bytes, *, pieces: int = 7, keep_open: bool = False) -> Path:
        path = tmp_path / "pipe" / "image"
        os.mkfifo(path)

        def write() -> None:
            step = -(-len(data) // pieces) or 1
            with path.open("wb", buffering=0) as pipe:
                for start in range(0, len(data), step):
                    try:
                        pipe.write(data[start : start + step])
                    except BrokenPipeError:
                        return
                    time.sleep(0.005)
                if keep_open:
                    done.wait(30)

        writers.append(threading.Thread(target=write))
        writers[-1].start()
        return path

    yield begin
    done.set()
    for writer in writers:
        writer.join()


@pytest.fixture(params=KINDS)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    KINDS[request.param](tmp_path / "image")
    return tmp_path / "image"


def _whole(path: Path) -> np.ndarray:
    with open_source(path) as source:
        return np.concatenate([pixels for _, pixels in bands(source, 64)])


def test_the_pixels_are_those_of_the_file(feed: Feed, file: Path) -> None:
    with open_source(file) as source, open_source(feed(file.read_bytes())) as piped:
        for name in ("format", "size", "dtype", "channels", "icc_profile", "pixels_per_cm"):
            assert getattr(piped.meta, name) == getattr(source.meta, name)
        assert not piped.meta.cheap_windows
        parts = list(bands(piped, 64))
    assert [window for window, _ in parts] == list(band_windows(piped.meta.size, 64))
    np.testing.assert_array_equal(np.concatenate([pixels for _, pixels in parts]), _whole(file))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.97])
def test_a_stream_that_ends_early_is_never_read_in_silence(feed: Feed, file: Path, share: float) -> None:
    data = file.read_bytes()
    pipe = feed(data[: int(len(data) * share)])
    with pytest.raises(SourceError, match=str(pipe)) as caught:
        _whole(pipe)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("kind", ["png", "png-16", "jpeg", "npy", "ppm"])
def test_a_whole_picture_is_enough(feed: Feed, tmp_path: Path, kind: str) -> None:
    KINDS[kind](tmp_path / "image")
    pipe = feed((tmp_path / "image").read_bytes(), keep_open=True)
    np.testing.assert_array_equal(_whole(pipe), _whole(tmp_path / "image"))


def test_bytes_that_come_one_by_one(feed: Feed, tmp_path: Path) -> None:
    _netpbm("P6", PIXELS[:2, :3])(tmp_path / "image")
    data = (tmp_path / "image").read_bytes()
    np.testing.assert_array_equal(_whole(feed(data, pieces=len(data))), PIXELS[:2, :3])


def test_rows_are_had_before_the_last_are_written(tmp_path: Path) -> None:
    path = tmp_path / "image"
    os.mkfifo(path)
    seen = threading.Event()

    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            pipe.write(b"P5 50 64 255 " + bytes(50 * 32))
            assert seen.wait(30)
            pipe.write(bytes(50 * 32))

    writer = threading.Thread(target=write)
    writer.start()
    with open_source(path) as source:
        strips = bands(source, 32)
        next(strips)
        seen.set()
        assert len(list(strips)) == 1
    writer.join()


def test_what_was_read_is_not_read_again(feed: Feed, tmp_path: Path) -> None:
    KINDS["npy"](tmp_path / "image")
    with open_source(feed((tmp_path / "image").read_bytes())) as source:
        with pytest.raises(SourceError, match="once only"):
            source.read(Window(0, 0, 1, 1))
        assert len(list(bands(source, 600))) == 1
        with pytest.raises(SourceError, match="once only"):
            list(bands(source, 600))


def test_a_tiff_does_not_come_through_a_pipe(feed: Feed, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "image", PIXELS, photometric="rgb")
    with pytest.raises(SourceError, match="TIFF") as caught:
        open_source(feed((tmp_path / "image").read_bytes()))
    assert "PNG, JPEG, WebP, npy, PPM and PGM" in str(caught.value.hint)


@pytest.mark.parametrize("kind", ["png", "jpeg", "png-16"])
def test_a_working_copy_is_that_of_the_file(feed: Feed, tmp_path: Path, kind: str) -> None:
    KINDS[kind](tmp_path / "image")
    with open_source(tmp_path / "image") as source:
        ingest(source, tmp_path / "file.zarr")
    with open_source(feed((tmp_path / "image").read_bytes())) as piped:
        ingest(piped, tmp_path / "pipe.zarr")
    assert _files(tmp_path / "pipe.zarr") == _files(tmp_path / "file.zarr")


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
