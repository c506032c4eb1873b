"""Every bad input: one line that names the file and the value, one with a way out, an exit code, and nothing written."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from smartsplat_large import decode, ingest
from smartsplat_large.errors import SplatFileError

from .conftest import PICTURE, Command

PNG = PICTURE.read_bytes()


def tiff(channels: int, dtype: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        tifffile.imwrite(path, np.zeros((20, 30, channels), dtype), photometric="minisblack", planarconfig="contig")

    return write


def content(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def array(*shape: int) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, np.zeros(shape, np.uint8))

    return write


def one_tile_lost(path: Path) -> None:
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), tile=(16, 16), compression="zlib")
    path.write_bytes(path.read_bytes()[:-200])


IMAGES: list[tuple[str, str, Callable[[Path], object] | None, str]] = [
    ("missing", "in.png", None, "no such file"),
    ("empty", "in.png", content(b""), "is empty"),
    ("a folder", "in", Path.mkdir, "not a zarr image"),
    ("text", "in.png", content(b"There was a picture here."), "not an image we know"),
    ("a truncated PNG", "in.png", content(PNG[: len(PNG) // 2]), "cannot be decoded"),
    ("a PNG that ends after its signature", "in.png", content(PNG[:8]), "cannot be decoded"),
    ("a TIFF that is none", "in.tif", content(b"II*\0 and so on and on"), "not a readable TIFF"),
    ("a truncated TIFF", "in.tif", one_tile_lost, "in.tif"),
    ("a JPEG that is none", "in.jpg", content(b"\xff\xd8\xff\xe0 and so on"), "cannot be decoded"),
    ("a PPM without a size", "in.ppm", content(b"P6 x 5 255 "), "b'x' is no number"),
    ("a PPM of ten bits", "in.ppm", content(b"P6 1 1 1023 ......"), "its brightest value is 1023"),
    ("a PGM of no pixels", "in.pgm", content(b"P5 0 5 255 "), "0 x 5 pixels"),
    ("a truncated PGM", "in.pgm", content(b"P5 3 3 255 ......"), "ends early"),
    ("a truncated npy", "in.npy", content(b"\x93NUMPY\1\0"), "in.npy"),
    ("a GIF", "in.gif", content(b"GIF89a........."), "is a GIF"),
    ("a JPEG XL called PNG", "in.png", content(b"\xff\x0a......"), "is a JPEG XL"),
    ("real numbers", "in.tif", tiff(3, "float32"), "type float32"),
    ("wide integers", "in.tif", tiff(3, "uint32"), "32-bit samples"),
    ("five channels", "in.tif", tiff(5, "uint8"), "5 channels"),
    ("no pixels", "in.npy", array(0, 5, 3), "(0, 5, 3)"),
    ("four dimensions", "in.npy", array(2, 5, 5, 3), "(2, 5, 5, 3)"),
]


@pytest.fixture
def refused(command: Command, tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Runs a command that must fail: its error and its hint, after it was seen that nothing changed."""

    def carry_out(code: int, *arguments: object) -> tuple[str, str]:
        before = {path: path.stat() for path in tmp_path.rglob("*")}
        quiet = () if arguments[0] == "info" else ("-q",)
        done = command(*arguments, *quiet)
        lines = done.err.splitlines()
        assert (done.code, done.out, len(lines)) == (code, "", 2), done
        assert lines[0].startswith("error: ")
        assert lines[1].startswith("hint: ")
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == {
            path: old.st_mtime_ns for path, old in before.items()
        }
        return lines[0], lines[1]

    return carry_out


Refused = Callable[..., tuple[str, str]]


@pytest.mark.parametrize(("name", "write", "said"), [case[1:] for case in IMAGES], ids=[case[0] for case in IMAGES])
def test_images(refused: Refused, tmp_path: Path, name: str, write: Callable[[Path], object] | None, said: str) -> None:
    image = tmp_path / name
    if write is not None:
        write(image)
    for arguments in (("fit", image, "-o", tmp_path / "a.ssplat"), ("ingest", image, "-o", tmp_path / "a.zarr")):
        error, _ = refused(3, *arguments)
        assert str(image) in error
        assert said in error


def test_an_image_at_an_address(refused: Refused, fitted: Path, tmp_path: Path) -> None:
    image = "http://127.0.0.1:9/in.png"
    for arguments in (("fit", image, "-o", tmp_path / "a.ssplat"), ("eval", fitted, image)):
        error, hint = refused(3, *arguments)
        assert f"{image}: cannot be fetched: [Errno 111] Connection refused" in error
        assert "check the address" in hint


def test_a_pipe_is_not_waited_for_in_vain(refused: Refused, tmp_path: Path) -> None:
    pipe = tmp_path / "in.png"
    os.mkfifo(pipe)
    error, _ = refused(3, "info", pipe)
    assert f"{pipe}: is a device or a pipe" in error
    error, hint = refused(2, "fit", pipe, "--resume")
    assert f"{pipe}: is a pipe, which cannot be read again" in error
    assert "ingest it" in hint


def test_a_device_is_no_image(refused: Refused, tmp_path: Path) -> None:
    error, _ = refused(3, "ingest", "/dev/null", "-o", tmp_path / "a.zarr")
    assert "/dev/null: is a device" in error


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_image_that_may_not_be_read(refused: Refused, tmp_path: Path) -> None:
    image = tmp_path / "in.png"
    image.write_bytes(PNG)
    image.chmod(0)
    error, _ = refused(3, "fit", image, "-o", tmp_path / "a.ssplat")
    assert f"{image}: Permission denied" in error


def test_a_mislabelled_image_is_read_for_what_it_is(command: Command, tmp_path: Path) -> None:
    image = tmp_path / "in.tif"
    image.write_bytes(PNG)
    flags = ("--preset", "fast", "--steps", 1)
    assert command("fit", image, "-o", tmp_path / "a.ssplat", *flags, "--json").json["width"] == 256


SETTINGS = [
    ("--ratio 0", 2, "ratio = 0"),
    ("--ratio -5", 2, "ratio = -5"),
    ("--ratio nan", 2, "ratio = nan"),
    ("--ratio inf", 2, "leaves 0 bytes of 147456"),
    ("--ratio 1.5", 2, "ratio 1.5; the smallest that is of use is 2"),
    ("--ratio 5000", 2, "ratio 5000 leaves 29 bytes"),
    ("--ratio 5000 --preset paper", 2, "ratio 5000 leaves 29 bytes"),
    ("--gaussians 0", 2, "gaussians = 0"),
    ("--gaussians -3", 2, "gaussians = -3"),
    ("--gaussians 1000000000", 4, "the limit is 4.00 GiB"),
    ("--ratio 5 --gaussians 5", 2, "exclude each other"),
    ("--memory 10MB", 4, "the limit is 9.54 MiB"),
    ("--memory much", 2, "'much' is not a size"),
    ("--memory -1", 2, "'-1' is not a size"),
    (f"--memory {'9' * 400}", 2, "is not a size"),
    ("--steps -1", 2, "steps = -1"),
    ("--seed -1", 2, "seed = -1"),
    ("--config {tmp}/none.toml", 2, "none.toml: No such file"),
    ("--config {tmp}", 2, "Is a directory"),
    ("--scheduler nonsense://", 2, "no dask scheduler answers at nonsense://"),
    ("-o {tmp}/none/a.ssplat", 2, "there is no folder"),
    ("-o {tmp}", 2, "is a folder"),
    ("-o /dev/null --overwrite", 2, "/dev/null: is a device"),
]


@pytest.mark.parametrize(("flags", "code", "said"), SETTINGS)
def test_settings_of_fit(refused: Refused, tmp_path: Path, flags: str, code: int, said: str) -> None:
    words = [word.format(tmp=tmp_path) for word in flags.split()]
    output = () if "-o" in words else ("-o", tmp_path / "a.ssplat")
    error, _ = refused(code, "fit", PICTURE, *output, *words)
    assert said in error


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ratio =", "Invalid value"),
        ("ratios = 5", "no setting is called 'ratios'"),
        ("steps = 'many'", "steps = 'many' is of the wrong type"),
        ("[loss]\nl1 = -1", "loss.l1 = -1"),
        ("loss = 5", "loss must be a table"),
        ("\xff", "in.toml"),
    ],
)
def test_settings_in_a_file(refused: Refused, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "in.toml"
    path.write_bytes(text.encode("latin-1"))
    error, _ = refused(2, "fit", PICTURE, "-o", tmp_path / "a.ssplat", "--config", path)
    assert said in error


DECODINGS = [
    ("--region -5,0,10,10", 2, "region -5,0,10,10 is not inside"),
    ("--region 0,0,0,10", 2, "region 0,0,0,10 is not inside"),
    ("--region 250,0,10,10", 2, "region 250,0,10,10 is not inside"),
    ("--level -1", 2, "level -1"),
    ("--level 99", 2, "level 99"),
    ("--scale 0", 2, "scale 0"),
    ("--scale -2", 2, "scale -2"),
    ("--scale nan", 2, "scale nan"),
    ("--level 1 --scale 2", 2, "not both"),
    ("-o {tmp}/a.gif", 2, "no output format for .gif"),
    ("-o {tmp}/a", 2, "no output format for no extension"),
    ("-o {tmp}/none/a.png", 2, "there is no folder"),
    ("-o https://example.org/a.png", 2, "is an address"),
    ("-o {tmp}", 2, "no output format"),
    ("-o {tmp}/a.jpg --scale 300", 2, "holds at most 65500 a side"),
    ("-o {tmp}/a.npy --scale 10000", 4, "MB left on the disk"),
]


@pytest.mark.parametrize(("flags", "code", "said"), DECODINGS)
def test_settings_of_decode(refused: Refused, fitted: Path, tmp_path: Path, flags: str, code: int, said: str) -> None:
    words = [word.format(tmp=tmp_path) for word in flags.split()]
    output = () if "-o" in words else ("-o", tmp_path / "a.png")
    error, _ = refused(code, "decode", fitted, *output, *words)
    assert said in error


@pytest.mark.parametrize("arguments", ["fit {picture} -o", "decode {fitted} -o", "ingest {picture} -o"])
def test_an_output_that_exists(refused: Refused, fitted: Path, tmp_path: Path, arguments: str) -> None:
    kind = {"fit": "a.ssplat", "decode": "a.png", "ingest": "a.zarr"}[arguments.split()[0]]
    out = tmp_path / kind
    if kind == "a.zarr":
        out.mkdir()
        (out / "zarr.json").write_text("{}")
    else:
        out.write_bytes(b"mine")
    words = arguments.format(picture=PICTURE, fitted=fitted).split()
    error, hint = refused(2, *words, out)
    assert error == f"error: {out}: exists already"
    assert hint == "hint: --overwrite replaces it"


@pytest.mark.parametrize("verb", ["fit", "ingest"])
def test_an_output_that_is_the_input(refused: Refused, tmp_path: Path, verb: str) -> None:
    image = tmp_path / "in.zarr"
    ingest(PICTURE, image)
    output = image if verb == "ingest" else tmp_path / "link.ssplat"
    if verb == "fit":
        image = tmp_path / "in.png"
        image.write_bytes(PNG)
        output.symlink_to(image)
    error, _ = refused(2, verb, image, "-o", output, "--overwrite")
    assert error == f"error: {output}: is the input itself"


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


DAMAGES: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("empty", lambda data: b"", "is empty"),
    ("cut in the header", lambda data: data[:20], "cut short at byte 20"),
    ("cut in a block", lambda data: data[: len(data) // 2], "cut short, the file ends at byte"),
    ("no last byte", lambda data: data[:-1], "cut short, the file ends at byte"),
    ("another kind of file", lambda data: PNG, "is no .ssplat file"),
    ("a newer version", lambda data: data[:4] + b"\x09" + data[5:], "is of format version 9; this program reads"),
    ("a bit of the header", lambda data: flipped(data, 10), "its checksum does not match"),
    ("a bit of the index", lambda data: flipped(data, 50), "its checksum does not match"),
    ("a bit of a block", lambda data: flipped(data, len(data) - 100), "block 0 layer 2 (pixels 0,0,256,192) at byte"),
]


@pytest.mark.parametrize(("change", "said"), [case[1:] for case in DAMAGES], ids=[case[0] for case in DAMAGES])
def test_damaged_files(
    refused: Refused, fitted: Path, tmp_path: Path, change: Callable[[bytes], bytes], said: str
) -> None:
    file, out = tmp_path / "a.ssplat", tmp_path / "a.png"
    file.write_bytes(change(fitted.read_bytes()))
    out.write_bytes(b"the old one")
    for arguments in (("decode", file, "-o", out, "--overwrite"), ("eval", file, PICTURE)):
        error, _ = refused(3, *arguments)
        assert error.startswith(f"error: {file}: ")
        assert said in error


@pytest.mark.parametrize("verb", ["decode", "eval", "info"])
def test_files_that_are_not_there(refused: Refused, tmp_path: Path, verb: str) -> None:
    rest = {"decode": ("-o", tmp_path / "a.png"), "eval": (PICTURE,), "info": ()}[verb]
    error, _ = refused(3, verb, tmp_path / "none.ssplat", *rest)
    assert f"{tmp_path / 'none.ssplat'}: cannot be read: No such file" in error
    error, _ = refused(3, verb, tmp_path, *rest)
    assert f"{tmp_path}: is a folder" in error
    error, _ = refused(3, verb, tmp_path / ("a" * 300), *rest)
    assert "cannot be read: File name too long" in error


def test_damage_is_listed_by_info_and_left_out_on_demand(command: Command, fitted: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.ssplat"
    file.write_bytes(flipped(fitted.read_bytes(), fitted.stat().st_size - 100))
    told = command("info", file, "--json")
    assert told.code == 3
    assert len(told.json["damage"]) == 1
    assert "--skip-damage" in told.err
    done = command("decode", file, "-o", tmp_path / "a.png", "--skip-damage", "--json")
    assert done.code == 0
    assert done.json["damage"] == told.json["damage"]
    assert f"warning: {file}: block 0" in done.err


def test_damage_is_not_left_out_unasked(fitted: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.ssplat"
    file.write_bytes(flipped(fitted.read_bytes(), fitted.stat().st_size - 100))
    with pytest.raises(SplatFileError, match="block 0"):
        decode(file, tmp_path / "a.npy")
    assert decode(file, tmp_path / "a.npy", skip_damage=True)["damage"]


def test_an_image_of_another_size_is_not_compared(refused: Refused, fitted: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "in.npy", np.zeros((20, 30, 3), np.uint8))
    error, _ = refused(2, "eval", fitted, tmp_path / "in.npy")
    assert "256x192 x 3 uint8" in error
    assert "30x20 x 3 uint8" in error
