"""The colour that Gaussians are added to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import smartsplat_large as ss
from smartsplat_large.codec import SplatFile
from smartsplat_large.config import PRESETS
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.progress import Silent
from smartsplat_large.source.array import ArraySource
from smartsplat_large.streaming.background import above, background_of

AUTO, BLACK = PRESETS["fast"], PRESETS["paper"]


def test_the_mean_of_a_photograph_is_its_background() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 130, 3), np.uint8)
    assert background_of(ArraySource(pixels), AUTO) == tuple(np.round(pixels.mean((0, 1))) / 255)
    assert background_of(ArraySource(pixels), BLACK) == ()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_page_has_its_paper_as_background(dtype: type) -> None:
    white = np.iinfo(dtype).max
    page = np.full((600, 900, 1), white, dtype)
    page[:, ::3] = 0
    assert background_of(ArraySource(page), AUTO) == (1.0,)
    page[::2] = white // 3
    page[1::2, ::2] = white // 2
    assert 0 < background_of(ArraySource(page), AUTO)[0] < 1


@pytest.mark.parametrize("spread", [3, 200])
@pytest.mark.parametrize("height", [21, 22])
def test_the_background_is_what_sorting_says(height: int, spread: int) -> None:
    pixels = np.random.default_rng(height).binomial(spread, 0.4, (height, 31, 3)).astype(np.uint8)
    median = np.round(np.median(pixels, axis=(0, 1)))
    is_paper = (np.abs(pixels - median) <= 1).all(axis=2).mean() >= 0.2
    wanted = median if is_paper else np.round(pixels.mean((0, 1)))
    assert is_paper == (spread == 3)
    assert background_of(ArraySource(pixels), AUTO) == tuple(wanted / 255)


def test_a_large_picture_is_judged_by_parts_of_it() -> None:
    class Counting(ArraySource):
        seen = 0

        def read(self, window, level=0):
            Counting.seen += window.pixels
            return super().read(window, level)

    pixels = np.full((3000, 7000, 3), 77, np.uint8)
    assert background_of(Counting(pixels), AUTO) == (77 / 255,) * 3
    assert Counting.seen <= 64 * 256 * 256


def test_colours_are_taken_above_it() -> None:
    one = Gaussians(np.ones((1, 2)), np.ones((1, 2), np.float32), np.zeros(1, np.float32), np.float32([[0.5, 0.25, 1]]))
    assert above(one, ()) is one
    np.testing.assert_allclose(above(one, (0.5, 0.5, 0.0)).color, [[0, -0.25, 1]])


@pytest.mark.parametrize(("dtype", "value"), [(np.uint8, (181, 90, 40)), (np.uint16, (40_001, 3, 65_535))])
def test_one_colour_comes_back_exactly(tmp_path: Path, dtype: type, value: tuple[int, ...]) -> None:
    pixels = np.broadcast_to(np.array(value, dtype), (200, 300, 3))
    np.save(tmp_path / "flat.npy", pixels)
    made = ss.fit(tmp_path / "flat.npy", config=ss.preset("fast").replace(ratio=100.0))
    assert (made.psnr, made.ssim) == (None, 1)  # infinite
    assert made.bytes <= pixels.nbytes / 100
    with SplatFile(tmp_path / "flat.ssplat") as file:
        assert file.header.background == tuple(v / np.iinfo(dtype).max for v in value)


def test_a_damaged_file_shows_its_background(tmp_path: Path) -> None:
    pixels = np.full((256, 256, 3), 200, np.uint8)
    pixels[100:140, 90:150] = 20
    np.save(tmp_path / "a.npy", pixels)
    ss.fit(tmp_path / "a.npy", config=ss.preset("fast").replace(ratio=100.0))
    raw = bytearray((tmp_path / "a.ssplat").read_bytes())
    raw[-8] ^= 255
    (tmp_path / "a.ssplat").write_bytes(raw)
    ss.decode(tmp_path / "a.ssplat", tmp_path / "b.npy", skip_damage=True)
    assert (np.load(tmp_path / "b.npy") == 200).mean() > 0.5


@pytest.mark.parametrize("level", [0, 64, 128, 255])
def test_one_colour_is_found_for_a_quality(tmp_path: Path, level: int) -> None:
    np.save(tmp_path / "flat.npy", np.full((60, 80, 1), level, np.uint8))
    made = ss.fit(tmp_path / "flat.npy", config=ss.preset("fast").replace(psnr=35.0))
    assert made.ssim == 1


def test_an_exact_fit_is_not_lost_over_and_over(tmp_path: Path) -> None:
    """SSIM's rounding may take the loss of an exact picture below zero."""

    class Notes(Silent):
        said: list[str] = []  # noqa: RUF012

        def note(self, message: str) -> None:
            self.said.append(message)

    np.save(tmp_path / "flat.npy", np.full((96, 130, 3), 51, np.uint8))
    config = ss.preset("balanced").replace(ratio=20.0, steps=60)
    ss.fit(tmp_path / "flat.npy", config=config, progress=Notes())
    assert sum("taken back" in line for line in Notes.said) < 15
