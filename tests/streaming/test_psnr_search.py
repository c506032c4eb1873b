"""The search for a PSNR: few fits and files, wherever it begins and whatever law the picture follows."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from smartsplat_large.codec import Encoded
from smartsplat_large.errors import MemoryLimitError
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Size
from smartsplat_large.source import ArraySource
from smartsplat_large.streaming.probe import SAMPLE_ACROSS, SAMPLE_DOWN, SAMPLE_SIDE, extrapolated, sampled
from smartsplat_large.streaming.quality import MOST_FITS, MOST_TRIALS, Trial, most_that_fit, nearer, search_counts

START = -300


class Picture:
    """Gains ``slope`` dB with twice the Gaussians, and follows the amplitude step down to what its fit has."""

    def __init__(self, slope: float = 3.6, noise: float = 0.0) -> None:
        self.slope, self.noise = slope, noise
        self.fits: list[int] = []
        self.files = 0
        self.notes: list[str] = []

    def search(self, guess: int, most: int, target: float) -> Trial:
        return search_counts(self.fit, self.first_file, self.file_at, guess, most, target, self.notes.append)

    def fit(self, count: int) -> Gaussians:
        self.fits.append(count)
        return _batch(count)

    def first_file(self, gaussians: Gaussians) -> Trial:
        return self.file_at(gaussians, START)

    def file_at(self, gaussians: Gaussians, index: int) -> Trial:
        self.files += 1
        fitted = 20 + self.slope * math.log2(len(gaussians) / 1000)
        error = 10 ** (-fitted / 10) * (1 + 0.06 * 4 ** ((index - START) / 64))
        psnr = -10 * math.log10(error) + self.noise * math.sin(1.7 * index)
        return Trial(Encoded(parts=[b""], fineness=1.0, kept=np.zeros(0, np.int64), step_index=index), psnr)


def _batch(count: int) -> Gaussians:
    ones = np.ones(count, np.float32)
    return Gaussians(np.zeros((count, 2)), np.stack([ones, ones], 1), ones, np.stack([ones] * 3, 1))


@pytest.mark.parametrize("slope", [2.0, 3.6, 5.0])
@pytest.mark.parametrize("guess", [300, 2000, 2300, 2600, 20_000])
@pytest.mark.parametrize("target", [22.0, 24.3])
def test_a_target_is_met_in_few_fits(slope: float, guess: int, target: float) -> None:
    picture = Picture(slope, noise=0.01)
    best = picture.search(guess, 100_000, target)
    assert target <= best.psnr <= target + 0.1
    assert len(picture.fits) <= MOST_FITS
    assert picture.files <= len(picture.fits) * (MOST_TRIALS + 1)


def test_a_good_guess_takes_one_fit() -> None:
    picture = Picture()
    picture.search(1550, 100_000, 22.0)
    assert picture.fits == [1550]


def test_every_fit_and_file_has_a_label() -> None:
    picture = Picture()
    best = picture.search(300, 100_000, 24.3)
    labels = [note.partition(":")[0] for note in picture.notes]
    fits = [f"trial {number}" for number in range(1, len(picture.fits) + 1)]
    assert list(dict.fromkeys(label for label in labels if "file" not in label)) == fits
    assert sum("file" in label for label in labels) == picture.files - len(picture.fits)
    assert picture.notes[0] == "trial 1: 300 Gaussians"
    assert f": {best.psnr:.2f} dB" in picture.notes[-1]


def test_where_no_more_gaussians_can_be_had_the_best_file_counts() -> None:
    picture = Picture()
    best = picture.search(1000, 3000, 60.0)
    assert max(picture.fits) == 3000
    assert best.encoded.step_index < START
    assert len(picture.fits) <= MOST_FITS


def test_the_nearer_file_is_the_smallest_that_is_good_enough() -> None:
    def trial(psnr: float) -> Trial:
        return Trial(Picture().first_file(_batch(1)).encoded, psnr)

    assert nearer(trial(29.9), trial(31.0), 30.0).psnr == 31.0
    assert nearer(trial(30.5), trial(31.0), 30.0).psnr == 30.5
    assert nearer(trial(29.0), trial(29.9), 30.0).psnr == 29.9


def refusing(above: int) -> Callable[[int], None]:
    def planned(count: int) -> None:
        if count > above:
            raise MemoryLimitError(f"{count} do not fit")

    return planned


def test_memory_bounds_what_is_tried() -> None:
    assert most_that_fit(5000, refusing(10_000)) == 5000
    assert 4500 <= most_that_fit(100_000, refusing(5000)) <= 5000
    with pytest.raises(MemoryLimitError):
        most_that_fit(5000, refusing(0))


def test_a_large_picture_is_probed_by_windows_of_it() -> None:
    small = ArraySource(np.zeros((700, 900, 1), np.uint8))
    assert sampled(small) is small
    y, x = np.mgrid[:2100, :4200].astype(np.uint16)
    large = ArraySource(np.stack([x, y], axis=-1))
    found = sampled(large)
    assert found.meta.size == Size(SAMPLE_SIDE * SAMPLE_ACROSS, SAMPLE_SIDE * SAMPLE_DOWN)
    pixels = found.read(found.meta.size.window)
    assert pixels[0, 0, 0] == 4200 // 8 - SAMPLE_SIDE // 2
    assert pixels[-1, -1, 0] == 4200 * 7 // 8 + SAMPLE_SIDE // 2 - 1


def test_probes_are_extrapolated_along_their_own_line() -> None:
    assert extrapolated([(1000, 24.0)], 28.0) == 2000
    assert extrapolated([(1000, 24.0), (2000, 27.0)], 30.0) == 4000
    assert extrapolated([(1000, 24.0)], 5.0) >= 1
