from __future__ import annotations

import math

import numpy as np
import pytest

from smartsplat_large.codec.contexts import sector_turns, turn_sectors
from smartsplat_large.codec.entropy import (
    SPLIT_SHAPES,
    Decoder,
    Encoder,
    Histogram,
    Kernel,
    Models,
    Tables,
    Tally,
    split_weights,
)
from smartsplat_large.codec.models import (
    fit_models,
    models_from_bytes,
    models_to_bytes,
    stream_bits,
    streams_of,
)
from smartsplat_large.codec.standard import (
    STANDARD_STREAMS,
    Standard,
    standard_tables,
    tables_from_bytes,
    tables_to_bytes,
)
from smartsplat_large.codec.tokens import EVERY_OCTAVE, SECTORS, STREAMS, token_count, token_sizes, tokenize, untokenize


def test_tokens_cover_every_magnitude():
    values = np.unique(np.concatenate([np.arange(70), [(1 << b) + d for b in range(6, 39) for d in (-1, 0, 1)]]))
    values = np.concatenate([-values[::-1], values])
    tokens, low, sizes = tokenize(values, signed=True)
    np.testing.assert_array_equal(untokenize(tokens, low, signed=True), values)
    np.testing.assert_array_equal(token_sizes(tokens, signed=True), sizes)
    assert (low < sizes).all()
    assert tokens.min() >= 0
    assert tokens.max() < token_count(signed=True)


@pytest.mark.parametrize("shape", range(len(SPLIT_SHAPES)))
@pytest.mark.parametrize("total", [2, 3, 8, 31])
def test_split_weights_are_the_beta_binomial(shape, total):
    alpha = SPLIT_SHAPES[shape]
    exact = [
        math.comb(total, k) * math.exp(math.lgamma(k + alpha) + math.lgamma(total - k + alpha) - 2 * math.lgamma(alpha))
        for k in range(total + 1)
    ]
    found = split_weights(total, shape)
    if alpha > 1e5:
        exact = [math.comb(total, k) for k in range(total + 1)]
    np.testing.assert_allclose(found / found.sum(), np.array(exact) / sum(exact), rtol=2e-3)


def test_size_is_the_information_of_the_models():
    rng = np.random.default_rng(0)
    values = np.rint(rng.laplace(3, 12, 5000)).astype(np.int64)
    contexts = np.zeros(5000, np.int64)
    sizes = rng.integers(1, 4000, 5000)
    tally = Tally()
    tally.tokens("luma", contexts, values)
    tally.uniform("place", sizes, sizes // 2)
    models = fit_models(tally, 1)
    encoder = Encoder(Tables(models))
    encoder.tokens("luma", contexts, values)
    encoder.uniform("place", sizes, sizes // 2)
    raw = encoder.finish()
    assert len(raw) * 8 == pytest.approx(sum(stream_bits(models, tally).values()), rel=2e-3)
    decoder = Decoder(Tables(models), raw)
    np.testing.assert_array_equal(decoder.tokens("luma", contexts, None), values)
    np.testing.assert_array_equal(decoder.uniform("place", sizes, None), sizes // 2)


def test_a_histogram_is_kept_only_where_it_pays():
    rng = np.random.default_rng(0)
    strange = rng.choice([2, 11, 13], 4000, p=[0.5, 0.3, 0.2])
    for count, pays in ((10, False), (4000, True)):
        tally = Tally()
        tally.tokens("aspect", np.zeros(count, np.int64), strange[:count])
        assert bool(fit_models(tally, 3).histograms) is pays


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_models_survive_their_bytes(channels):
    families = {name: Standard((i - 3, -7, 7)) for i, name in enumerate(streams_of(channels))}
    plain = Models(families)
    families = families | {name: Kernel(-9, 20, 3) for name in ("mean", "alpha") if name in families}
    histograms = {("mean", 3): Histogram(150, bytes([4, 0, 77])), ("count", 0): Histogram(0, bytes(range(1, 40)))}
    models = Models(families, histograms, split=4)
    assert models_from_bytes(models_to_bytes(models, channels), channels) == models
    assert len(models_to_bytes(plain, channels)) <= 14


@pytest.mark.parametrize(
    "raw", [b"", b"\xff" * 30, b"\0" * 13 + b"\xff\xff", b"\0" * 12, b"\0\x08" + b"\0" * 11, b"\x90" + b"\0" * 12]
)
def test_bytes_that_are_no_models_are_refused(raw):
    with pytest.raises(ValueError, match=r"models|histogram"):
        models_from_bytes(raw, 3)


def test_alpha_has_no_standard_model():
    with pytest.raises(ValueError, match="alpha"):
        models_from_bytes(bytes(20), 2)


@pytest.mark.parametrize("name", STANDARD_STREAMS)
@pytest.mark.parametrize("coordinates", [(0, 0, 0), (7, 7, 7), (-7, 7, -7)])
def test_standard_models_can_be_coded_in_every_context(name, coordinates):
    for context in [EVERY_OCTAVE] if name == "octave" else range(STREAMS[name].contexts):
        weights = Standard(coordinates).weights(name, context)
        assert np.isfinite(weights).all()
        assert weights.min() > 0


def test_the_table_of_standard_models_survives_its_bytes():
    tables = standard_tables()
    again = tables_from_bytes(tables_to_bytes(tables))
    for name, table in tables.items():
        np.testing.assert_array_equal(again[name].base, table.base)
        np.testing.assert_array_equal(again[name].directions, table.directions)


def test_turns_are_a_sector_and_the_rest():
    for turns in (2, 16, 18, 34, 64, 1 << 18):
        turn = np.arange(turns)[:: max(turns // 500, 1)]
        levels = np.full(len(turn), turns)
        sector = turn_sectors(levels, turn)
        first, size = sector_turns(levels, sector)
        rest = (turn - first) % turns
        assert (rest < size).all()
        assert sector.max() < min(turns, SECTORS)
        np.testing.assert_array_equal((first + rest) % turns, turn)


def test_every_kernel_can_be_coded():
    for stream in STREAMS:
        for centre in (-128, -1, 0, 127):
            for width in (0, 63):
                weights = Kernel(centre, width, 3).weights(stream, 15 * STREAMS[stream].steps)
                assert np.isfinite(weights).all()
                assert weights.sum() > 0
