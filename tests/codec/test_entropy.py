from __future__ import annotations

import math

import numpy as np
import pytest

from smartsplat_large.codec.entropy import (
    SPLIT_SHAPES,
    STREAMS,
    Decoder,
    Encoder,
    Histogram,
    Kernel,
    Models,
    Tables,
    Tally,
    bell_axes,
    split_weights,
    token_count,
    token_sizes,
    tokenize,
    untokenize,
)
from smartsplat_large.codec.models import (
    _bell_bits,
    _bits,
    fit_models,
    kernel_streams,
    models_from_bytes,
    models_to_bytes,
    stream_bits,
)


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


@pytest.mark.parametrize("stream", STREAMS)
def test_the_search_for_a_kernel_counts_the_bits_of_its_weights(stream):
    rng = np.random.default_rng(0)
    tally = Tally()
    tally.tokens(stream, rng.integers(0, 6, 3000), np.abs(np.rint(rng.standard_cauchy(3000) * 9).astype(np.int64)))
    counts = {key[1]: counts for key, counts in tally.histograms.items()}
    for kernel in (Kernel(), Kernel(60, 30, 3), Kernel(-50, 8, 0)):
        bells = kernel.bell(np.array([STREAMS[stream].growth_in(context) for context in counts]))
        axes = bell_axes(STREAMS[stream])
        wanted = sum(_bits(c, kernel.weights(STREAMS[stream], context)) for context, c in counts.items())
        assert _bell_bits(np.stack(list(counts.values())), *axes, *bells, kernel.shape) == pytest.approx(wanted)


def test_a_histogram_is_kept_only_where_it_pays():
    rng = np.random.default_rng(0)
    strange = rng.choice([2, 11, 13], 4000, p=[0.5, 0.3, 0.2])
    for count, pays in ((10, False), (4000, True)):
        tally = Tally()
        tally.tokens("aspect", np.zeros(count, np.int64), strange[:count])
        assert bool(fit_models(tally, 3).histograms) is pays


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_models_survive_their_bytes(channels):
    kernels = {name: Kernel(-9 + i, 20 + i, i % 4) for i, name in enumerate(kernel_streams(channels))}
    if channels > 2:
        kernels["chroma2"] = kernels["chroma1"]
    histograms = {("mean", 3): Histogram(150, bytes([4, 0, 77])), ("count", 0): Histogram(0, bytes(range(1, 40)))}
    models = Models(kernels, histograms, split=4)
    assert models_from_bytes(models_to_bytes(models, channels), channels) == models
    assert len(models_to_bytes(Models(kernels), 3 if channels > 2 else channels)) <= 13


@pytest.mark.parametrize("raw", [b"", b"\xff" * 30, b"\0" * 13 + b"\xff\xff", b"\0" * 12])
def test_bytes_that_are_no_models_are_refused(raw):
    with pytest.raises(ValueError, match=r"models|histogram"):
        models_from_bytes(raw, 3)


def test_every_kernel_can_be_coded():
    for stream in STREAMS.values():
        for centre in (-128, -1, 0, 127):
            for width in (0, 63):
                weights = Kernel(centre, width, 3).weights(stream, 15)
                assert np.isfinite(weights).all()
                assert weights.sum() > 0
