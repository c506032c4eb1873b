"""fit, info, decode and eval, from files to files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import smartsplat_large
from smartsplat_large import Window
from smartsplat_large.source import open_source

from .conftest import Command

EVALUATION_KEYS = {"psnr", "ssim", "ms_ssim", "bytes", "raw_bytes", "ratio", "bpp", "gaussians", "width", "height"}
FIT_KEYS = EVALUATION_KEYS | {"output", "seconds", "peak_rss_bytes", "steps", "preset", "seed"}


def pixels_of(path: Path) -> np.ndarray:
    with open_source(path) as source:
        return source.read(source.meta.size.window)


def test_fit_info_decode_eval(command: Command, picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.ssplat"
    fitted = command("fit", picture, "-o", out, "--ratio", 20, "--preset", "fast", "--steps", 12, "--seed", 3, "--json")
    assert fitted.code == 0
    made = fitted.json
    assert set(made) == FIT_KEYS
    assert (made["bytes"], made["output"], made["preset"], made["seed"]) == (out.stat().st_size, str(out), "fast", 3)
    assert (made["steps"], made["width"], made["height"], made["raw_bytes"]) == (12, 256, 192, 256 * 192 * 3)
    assert made["ratio"] == made["raw_bytes"] / made["bytes"]
    assert "fit: 12 steps in" in fitted.err

    known = command("info", out, "--json").json
    assert (known["gaussians"], known["bytes"], known["damage"]) == (made["gaussians"], made["bytes"], [])
    assert sum(known["ledger"].values()) == made["bytes"]

    measured = command("eval", out, picture, "--json")
    assert measured.json == {key: made[key] for key in EVALUATION_KEYS}

    assert command("decode", out, "-o", tmp_path / "a.npy", "--json").json == {
        "output": str(tmp_path / "a.npy"), "width": 256, "height": 192, "damage": [],
    }  # fmt: skip
    error = np.load(tmp_path / "a.npy").astype(float) - pixels_of(picture)
    assert 10 * np.log10(255**2 / np.mean(error**2)) == pytest.approx(made["psnr"], abs=1e-6)
    assert made["psnr"] > 22


def test_the_dashboard_comes_by_itself_where_it_is_installed(
    command: Command, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("bokeh")
    arguments = ("fit", picture, "-o", tmp_path / "a.ssplat", "--overwrite", "--preset", "fast", "--steps", 1)
    assert "dask dashboard" not in command(*arguments).err, "the fixture says that it is not installed"
    monkeypatch.setattr("smartsplat_large.api.has_dashboard", lambda: True)
    assert "dask dashboard: http://127.0.0.1:" in command(*arguments).err
    assert "dask dashboard" not in command(*arguments, "--no-dashboard").err


def test_results_are_tables_without_json(command: Command, fitted: Path, picture: Path) -> None:
    for arguments in (("eval", fitted, picture), ("info", fitted)):
        done = command(*arguments)
        assert done.code == 0
        assert "\nratio" in done.out
        assert not done.out.startswith("{")


def test_a_file_goes_beside_its_image_by_default(command: Command, picture: Path, tmp_path: Path) -> None:
    image = tmp_path / "photo.of.mine.png"
    image.write_bytes(picture.read_bytes())
    done = command("fit", image, "--gaussians", 40, "--steps", 1, "--preset", "fast", "-q")
    assert (done.code, done.err) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photo.of.mine.png", "photo.of.mine.ssplat"]


def test_a_file_goes_beside_the_folder_one_is_in(
    command: Command, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("ingest", picture, "-o", tmp_path / "mine.zarr", "-q").code == 0
    monkeypatch.chdir(tmp_path / "mine.zarr")
    assert command("fit", ".", "--gaussians", 40, "--steps", 1, "--preset", "fast", "-q").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.ssplat", "mine.zarr"]


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a.zarr", "a.png", "a.npy", "a.jpg"])
def test_every_format_holds_the_same_pixels(command: Command, fitted: Path, tmp_path: Path, name: str) -> None:
    with smartsplat_large.open(fitted) as file:
        expected = file.read().astype(int)
    assert command("decode", fitted, "-o", tmp_path / name).code == 0
    decoded = pixels_of(tmp_path / name).astype(int)
    tolerance = 40 if name == "a.jpg" else 0
    assert decoded.shape == expected.shape
    assert np.abs(decoded - expected).max() <= tolerance
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("zoom", [{}, {"level": 1}, {"level": 3}, {"scale": 0.3}, {"scale": 2.5}])
@pytest.mark.parametrize("region", ["0,0,256,192", "17,33,64,48", "255,191,1,1", "0,100,256,3", "64,64,128,64"])
def test_a_region_is_the_crop_of_the_whole(
    command: Command, fitted: Path, tmp_path: Path, region: str, zoom: dict[str, float]
) -> None:
    flags = [word for name, value in zoom.items() for word in (f"--{name}", value)]
    out = tmp_path / "a.npy"
    assert command("decode", fitted, "-o", out, "--region", region, *flags).code == 0
    window = Window(*map(int, region.split(",")))
    pitch = 2 ** zoom["level"] if "level" in zoom else 1 / zoom.get("scale", 1)
    x, y = int(window.x / pitch), int(window.y / pitch)
    with smartsplat_large.open(fitted) as file:
        whole = file.read(level=zoom.get("level"), scale=zoom.get("scale"))  # type: ignore[arg-type]
    part = np.load(out)
    assert part.shape[0] == min(whole.shape[0], int(np.ceil(window.y_end / pitch - 1e-9))) - y
    assert part.shape[1] == min(whole.shape[1], int(np.ceil(window.x_end / pitch - 1e-9))) - x
    np.testing.assert_array_equal(part, whole[y : y + part.shape[0], x : x + part.shape[1]])


def test_a_level_is_the_picture_shrunk(command: Command, fitted: Path, tmp_path: Path) -> None:
    assert command("decode", fitted, "-o", tmp_path / "a.npy", "--level", 2).code == 0
    with smartsplat_large.open(fitted) as file:
        boxes = file.read().reshape(48, 4, 64, 4, 3).mean(axis=(1, 3))
    # Not the same where the full size overshoots and is clamped: a mean of clamped values is no clamped mean.
    assert np.abs(np.load(tmp_path / "a.npy") - boxes).mean() < 2


@pytest.mark.parametrize("channels", [1, 2, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_alpha_and_sixteen_bits(
    command: Command, tmp_path: Path, scene: Callable[..., np.ndarray], channels: int, dtype: type
) -> None:
    np.save(tmp_path / "in.npy", scene(90, 110, channels, dtype))
    file, out = tmp_path / "a.ssplat", tmp_path / "a.png"
    made = command("fit", tmp_path / "in.npy", "-o", file, "--ratio", 10, "--steps", 30, "--preset", "fast", "--json")
    assert made.code == 0
    assert made.json["psnr"] > 25
    raw = 90 * 110 * channels * np.dtype(dtype).itemsize
    assert made.json["raw_bytes"] == raw
    assert 0.97 * (raw // 10) <= file.stat().st_size <= raw // 10
    assert command("decode", file, "-o", out).code == 0
    decoded = pixels_of(out)
    assert (decoded.shape, decoded.dtype) == ((90, 110, channels), np.dtype(dtype))
    error = (decoded.astype(float) - np.load(tmp_path / "in.npy")) / np.iinfo(dtype).max
    assert -10 * np.log10(np.mean(error**2)) == pytest.approx(made.json["psnr"], abs=1e-6)


def test_a_working_copy_fits_like_its_image(command: Command, picture: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.zarr"
    done = command("ingest", picture, "-o", copy, "--json")
    assert done.json == {
        "output": str(copy), "width": 256, "height": 192, "channels": 3, "bits": 8, "raw_bytes": 147456, "levels": 1,
    }  # fmt: skip
    for image in (picture, copy):
        flags = ("--steps", 2, "--preset", "fast", "--ratio", 100, "-q")
        assert command("fit", image, "-o", tmp_path / f"{image.name}.ssplat", *flags).code == 0
    assert (tmp_path / "copy.zarr.ssplat").read_bytes() == (tmp_path / "mountain.png.ssplat").read_bytes()


@pytest.mark.parametrize(("width", "height", "flags"), [
    (1, 1, ["--gaussians", 1]), (17, 13, ["--ratio", 5]), (1, 100_000, ["--ratio", 50]), (3, 1, ["--gaussians", 2]),
])  # fmt: skip
def test_odd_sizes(
    command: Command, tmp_path: Path, scene: Callable[..., np.ndarray], width: int, height: int, flags: list[object]
) -> None:
    np.save(tmp_path / "in.npy", scene(height, width, 3))
    file = tmp_path / "a.ssplat"
    made = command("fit", tmp_path / "in.npy", "-o", file, "--steps", 10, "--preset", "fast", *flags, "--json")
    assert made.code == 0
    assert (made.json["width"], made.json["height"]) == (width, height)
    assert command("decode", file, "-o", tmp_path / "a.npy").code == 0
    assert np.load(tmp_path / "a.npy").shape == (height, width, 3)
    assert command("eval", file, tmp_path / "in.npy").code == 0


def test_a_region_is_a_window_or_four_numbers(fitted: Path) -> None:
    with smartsplat_large.open(fitted) as opened:
        window = opened.read(Window(10, 20, 30, 40))
        np.testing.assert_array_equal(opened.read((10, 20, 30, 40)), window)
        with pytest.raises(TypeError):
            opened.read((10.5, 20, 30, 40))  # type: ignore[arg-type]


def test_a_fit_does_not_take_an_images_name(command: Command, picture: Path, tmp_path: Path) -> None:
    refused = command("fit", picture, "-o", tmp_path / "a.png")
    assert refused.code == 2
    assert "hint: -o a.ssplat" in refused.err
