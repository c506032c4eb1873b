"""The streamed scores against pytorch-msssim, an independent implementation that sees the whole picture."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import pytest
import torch
from pytorch_msssim import ms_ssim, ssim

from smartsplat_large.array_types import Planes
from smartsplat_large.lattice import Size, Window
from smartsplat_large.metrics import (
    PlaneReader,
    Score,
    core_windows,
    evaluate_streams,
    halo_window,
    merge_scores,
    score_window,
)

# Every parity of the sides of the first scales, both orders, a side just above the least that MS-SSIM takes.
SIZES = [Size(161, 161), Size(192, 176), Size(257, 191), Size(162, 333), Size(331, 250)]
KINDS = ["noise", "smooth", "bright", "dark", "inverted"]


@cache
def pair(kind: str, size: Size, channels: int = 3) -> tuple[Planes, Planes]:
    """A picture and a worse one; read-only, values in [0, 1]."""
    random = np.random.default_rng(7)
    y, x = np.mgrid[0 : size.height, 0 : size.width]
    waves = np.stack([np.sin(x / (5 + c)) * np.cos(y / (9 + 2 * c)) for c in range(channels)])
    noise = random.normal(size=waves.shape)
    a, b = {
        "noise": (0.5 + 0.2 * noise, 0.5 + 0.2 * noise[:, ::-1]),
        "smooth": (0.5 + 0.4 * waves, 0.5 + 0.38 * waves + 0.03 * noise),
        "bright": (0.97 + 0.02 * noise, 0.97 + 0.02 * noise[:, :, ::-1]),
        "dark": (0.01 + 0.004 * noise, 0.01 + 0.004 * noise + 0.003),
        "inverted": (0.5 + 0.4 * waves, 0.5 - 0.4 * waves),
    }[kind]
    pictures = tuple(np.clip(p, 0, 1).astype(np.float32) for p in (a, b))
    for picture in pictures:
        picture.flags.writeable = False
    return pictures


def reader(picture: Planes) -> PlaneReader:
    def read(window: Window) -> Planes:
        rows, columns = window.slices(Window(0, 0, picture.shape[2], picture.shape[1]))
        return picture[:, rows, columns].copy()

    return read


def streamed(a: Planes, b: Planes, block: int = 1024) -> Score:
    return evaluate_streams(reader(a), reader(b), Size(a.shape[2], a.shape[1]), block=block)


def oracle(function: Callable[..., torch.Tensor], a: Planes, b: Planes, dtype: torch.dtype = torch.float64) -> float:
    x, y = (torch.from_numpy(p.copy())[None].to(dtype) for p in (a, b))
    return float(function(x, y, data_range=1, size_average=True))


@pytest.mark.parametrize(
    ("kind", "size"), [*((kind, SIZES[0]) for kind in KINDS), *(("noise", size) for size in SIZES[1:])], ids=str
)
def test_scores_equal_pytorch_msssim(kind: str, size: Size) -> None:
    a, b = pair(kind, size)
    score = streamed(a, b, block=100)
    assert score.ssim() == pytest.approx(oracle(ssim, a, b), abs=1e-6)
    assert score.ms_ssim() == pytest.approx(oracle(ms_ssim, a, b), abs=5e-6)
    assert score.psnr() == pytest.approx(-10 * math.log10(np.mean((a.astype(np.float64) - b) ** 2)), abs=1e-9)


def test_scores_equal_pytorch_msssim_in_the_float32_it_is_used_with() -> None:
    a, b = pair("smooth", Size(257, 191))
    score = streamed(a, b)
    assert score.ssim() == pytest.approx(oracle(ssim, a, b, torch.float32), abs=1e-5)
    assert score.ms_ssim() == pytest.approx(oracle(ms_ssim, a, b, torch.float32), abs=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_channels_are_scored_apart_and_averaged(channels: int) -> None:
    a, b = pair("smooth", Size(192, 176), channels)
    score = streamed(a, b)
    assert score.ssim() == pytest.approx(oracle(ssim, a, b), abs=1e-6)
    assert score.ms_ssim() == pytest.approx(oracle(ms_ssim, a, b), abs=1e-6)


@pytest.mark.parametrize("block", [7, 40, 64, 101, 256, 331])
def test_scores_do_not_depend_on_the_blocks(block: int) -> None:
    a, b = pair("noise", Size(331, 250))
    whole, split = streamed(a, b, 4096), streamed(a, b, block)
    assert split.psnr() == pytest.approx(whole.psnr(), abs=1e-9)
    assert split.ssim() == pytest.approx(whole.ssim(), abs=1e-12)
    assert split.ms_ssim() == pytest.approx(whole.ms_ssim(), abs=1e-12)
    assert split.positions.tolist() == whole.positions.tolist()


def test_a_pool_gives_the_result_of_one_thread_to_the_last_bit() -> None:
    a, b = pair("noise", Size(331, 250))
    with ThreadPoolExecutor(2) as pool:

        def mapper(score: Callable[[Window], Score], windows: list[Window]) -> Iterable[Score]:
            return pool.map(score, windows)

        threaded = evaluate_streams(reader(a), reader(b), Size(331, 250), block=90, mapper=mapper)
    alone = streamed(a, b, 90)
    assert (threaded.psnr(), threaded.ssim(), threaded.ms_ssim()) == (alone.psnr(), alone.ssim(), alone.ms_ssim())


def test_only_halo_windows_are_read() -> None:
    a, b = pair("smooth", Size(331, 250))
    asked: list[Window] = []

    def read(window: Window) -> Planes:
        asked.append(window)
        return reader(a)(window)

    evaluate_streams(read, reader(b), Size(331, 250), block=64)
    assert asked == [halo_window(core, Size(331, 250)) for core in core_windows(Size(331, 250), 64)]


def test_identical_pictures_score_infinity_and_one() -> None:
    a, _ = pair("noise", Size(192, 176))
    score = streamed(a, a, 64)
    assert score.psnr() == math.inf
    assert score.ssim() == pytest.approx(1, abs=1e-7)
    assert score.ms_ssim() == pytest.approx(1, abs=1e-7)


def test_a_negative_scale_makes_ms_ssim_zero_and_leaves_ssim_negative() -> None:
    a, b = pair("inverted", Size(192, 176))
    score = streamed(a, b)
    assert score.ssim() < 0
    assert score.ms_ssim() == 0


@pytest.mark.parametrize("size", [Size(160, 170), Size(300, 11), Size(11, 12)], ids=str)
def test_pictures_too_small_for_ms_ssim_have_ssim(size: Size) -> None:
    a, b = pair("noise", size)
    score = streamed(a, b, 64)
    assert score.ms_ssim() is None
    assert score.ssim() == pytest.approx(oracle(ssim, a, b), abs=1e-6)


@pytest.mark.parametrize("size", [Size(10, 300), Size(300, 10), Size(1, 1)], ids=str)
def test_pictures_below_the_window_have_psnr_alone(size: Size) -> None:
    a, b = pair("noise", size, 1)
    b = b + np.float32(0.25)
    score = streamed(a, b, 64)
    assert (score.ssim(), score.ms_ssim()) == (None, None)
    assert score.psnr() == pytest.approx(-10 * math.log10(np.mean((a.astype(np.float64) - b) ** 2)), abs=1e-9)


def test_merging_is_addition() -> None:
    a, b = pair("noise", Size(331, 250))
    size = Size(331, 250)
    parts = []
    for core in core_windows(size, 128):
        held = halo_window(core, size)
        parts.append(score_window(reader(a)(held), reader(b)(held), core, size))
    forwards, backwards = merge_scores(parts), merge_scores(reversed(parts))
    assert forwards.pixels == size.pixels
    assert forwards.psnr() == pytest.approx(backwards.psnr(), abs=1e-12)
    assert forwards.ms_ssim() == pytest.approx(backwards.ms_ssim(), abs=1e-12)
    assert Score.zero(3).merge(parts[0]).psnr() == parts[0].psnr()


def test_a_score_travels_between_processes() -> None:
    a, b = pair("noise", Size(192, 176))
    score = streamed(a, b)
    copy = pickle.loads(pickle.dumps(score))
    assert (copy.psnr(), copy.ssim(), copy.ms_ssim()) == (score.psnr(), score.ssim(), score.ms_ssim())


def test_what_cannot_be_meant_is_refused() -> None:
    a, _ = pair("noise", Size(192, 176))
    with pytest.raises(ValueError, match="do not cover the halo window"):
        score_window(a, a, Window(0, 0, 20, 20), Size(192, 176))
    with pytest.raises(ValueError, match="do not cover the halo window"):
        score_window(a, a[:1], Window(0, 0, 192, 176), Size(192, 176))
    with pytest.raises(ValueError, match="3 and 1 channels"):
        Score.zero(3).merge(Score.zero(1))
    with pytest.raises(ValueError, match="no scores"):
        merge_scores([])
    with pytest.raises(ValueError, match="no pixels"):
        Score.zero(3).psnr()
