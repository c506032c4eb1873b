"""The rivals on a small picture: largest files, what cannot be reached, and smaller copies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from smartsplat_large.errors import SourceError
from smartsplat_large.lattice import Size
from smartsplat_large.rivals import RIVALS, Rival, require_supported
from smartsplat_large.rivals.codecs import Codec, Encoder
from smartsplat_large.rivals.resample import resized, shrunk
from smartsplat_large.rivals.search import Ladder
from smartsplat_large.source import bands, open_source

MOUNTAIN = Path(__file__).parents[1] / "data" / "mountain.png"


@pytest.fixture(scope="module")
def mountain() -> np.ndarray:
    with open_source(MOUNTAIN) as source:
        return np.concatenate([band for _, band in bands(source, 64)])


@pytest.fixture(scope="module")
def pixels(mountain: np.ndarray) -> np.ndarray:
    return mountain[64:160, 64:192]


@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_the_search_finds_the_largest_that_fits(name: str, pixels: np.ndarray) -> None:
    encoder = RIVALS[name].encoders[0]
    sizes = [len(encoder.encode(pixels, quality)) for quality in encoder.qualities]
    found = Ladder(encoder, pixels).largest(sizes[40])
    assert found is not None
    assert found.data == encoder.encode(pixels, found.quality)
    best = max(size for size in sizes if size <= sizes[40])
    # WebP's sizes now and then fall by a few bytes from one quality to the next.
    assert best - 0.005 * best <= len(found.data) <= best
    assert sizes[encoder.qualities.index(found.quality) + 1] > sizes[40]
    assert Ladder(encoder, pixels).largest(min(sizes) - 1) is None


def test_every_file_is_made_once() -> None:
    asked: list[float] = []

    def encode(picture: np.ndarray, quality: float) -> bytes:
        asked.append(quality)
        return bytes(int(quality))

    ladder = Ladder(Encoder("", range(1, 101), encode), np.zeros((1, 1, 1), np.uint8))
    for limit in (57, 1, 100, 57):
        found = ladder.largest(limit)
        assert found is not None
        assert len(found.data) == limit
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", RIVALS)
def test_every_codec_restores_grey_and_color(name: str, channels: int, pixels: np.ndarray) -> None:
    picture = pixels[:, :, :channels]
    codec = RIVALS[name]
    quick = Codec(
        codec.title, "", tuple(Encoder(e.label, e.qualities[::40], e.encode) for e in codec.encoders), codec.decode
    )
    found = Rival(quick, picture).direct(picture.nbytes)
    assert found is not None
    assert found.bytes <= picture.nbytes
    assert found.pixels.shape == picture.shape
    assert found.score.psnr() > 25


def test_a_codec_that_cannot_go_low_is_left_with_a_smaller_copy(mountain: np.ndarray) -> None:
    rival = Rival(RIVALS["jpeg"], mountain)
    assert rival.direct(737) is None
    reduced = rival.reduced(737)
    assert reduced is not None
    assert reduced.factor in (2, 4, 8)
    assert reduced.bytes <= 737
    assert reduced.pixels.shape == mountain.shape
    assert reduced.score.psnr() > 15
    assert rival.reduced(20) is None


def test_shrinking_and_enlarging_stay_edge_to_edge() -> None:
    ramp = np.repeat(np.linspace(20, 230, 97)[None, :, None], 41, axis=0).round().astype(np.uint8)
    again = resized(shrunk(ramp, 4), Size(97, 41))
    assert shrunk(ramp, 4).shape == (11, 25, 1)
    assert np.abs(again.astype(int) - ramp)[:, 8:-8].max() <= 3


@pytest.mark.parametrize("picture", [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.uint16)])
def test_what_a_rival_cannot_hold_is_refused(picture: np.ndarray) -> None:
    with pytest.raises(SourceError, match=r"a\.png: . channel"):
        require_supported(picture, "a.png")
