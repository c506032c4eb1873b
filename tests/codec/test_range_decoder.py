"""The decoder against constriction's encoder: the same models to the unit, the same symbols."""

from __future__ import annotations

import constriction
import numpy as np
import pytest

from smartsplat_large.codec.range_decoder import WHOLE, RangeDecoder, TokenTable, beta_binomial, edges

UNIT = ((1 << 64) - 1) // WHOLE


def theirs(weights: np.ndarray) -> object:
    return constriction.stream.model.Categorical(weights, perfect=False)


def weights_of(rng: np.random.Generator, count: int) -> np.ndarray:
    """Over any number of orders of magnitude, a third of them zero."""
    found = np.exp(rng.normal(0, rng.uniform(0, 15), count)) * (rng.random(count) < 2 / 3)
    found[rng.integers(count)] = 1.0
    return found


def test_models_are_those_of_constriction_to_the_unit() -> None:
    rng = np.random.default_rng(0)
    models = [weights_of(rng, int(rng.integers(2, 320))) for _ in range(20)]
    for weights in [*models, *(beta_binomial(total, 0.5) for total in (1, 2, 7, 300))]:
        found, model = edges(weights), theirs(weights)
        for symbol in range(len(weights)):
            encoder = constriction.stream.queue.RangeEncoder()
            encoder.encode(np.array([symbol], np.int32), model)
            low, span = encoder.pos()[1]
            assert (low // UNIT, span // UNIT) == (found[symbol], found[symbol + 1] - found[symbol])


@pytest.mark.parametrize("weights", [[0.0, 0.0], [np.inf, 1.0], [1e-320, 0.0], [np.nan, 1.0]])
def test_weights_that_make_no_model_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="without probabilities"):
        edges(np.array(weights))


@pytest.mark.parametrize("seed", range(8))
def test_symbols_come_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    models = [weights_of(rng, 40) for _ in range(4)]
    contexts = np.sort(rng.integers(0, 4, 2000))
    tokens = np.array([rng.choice(np.flatnonzero(models[context])) for context in contexts])
    sizes = np.concatenate([rng.integers(1, 9, 1000), 1 + (1 << rng.integers(0, 24, 1000))])
    numbers = rng.integers(0, sizes)
    totals = np.sort(np.concatenate([rng.integers(1, 30, 500), [700, 700, 5000]]))
    successes = rng.integers(0, totals + 1)
    encoder = constriction.stream.queue.RangeEncoder()
    for context, model in enumerate(models):
        encoder.encode(tokens[contexts == context].astype(np.int32), theirs(model))
    real = sizes > 1
    uniform = constriction.stream.model.Uniform()
    encoder.encode(numbers[real].astype(np.int32), uniform, sizes[real].astype(np.int32))
    for total, success in zip(totals.tolist(), successes.tolist(), strict=True):
        encoder.encode(np.array([success], np.int32), theirs(beta_binomial(total, 2.0)))
    decoder = RangeDecoder(encoder.get_compressed().astype(">u4").tobytes().rstrip(b"\0"))
    table = TokenTable.empty(4, 40)
    starts = np.arange(41)
    for context, model in enumerate(models):
        assert decoder.tokens(contexts, table, starts, 0) == context
        table.put(context, 0, model)
    np.testing.assert_array_equal(decoder.tokens(contexts, table, starts, 0), tokens)
    np.testing.assert_array_equal(decoder.uniform(sizes), numbers)
    np.testing.assert_array_equal(decoder.splits(totals, 2.0), successes)


def test_bits_that_no_encoder_writes_are_refused() -> None:
    numbers = np.array([5, 6, 7])
    with pytest.raises(ValueError, match="mean no symbol"):
        RangeDecoder(b"\xff" * 16).uniform(numbers)
    with pytest.raises(ValueError, match="mean no symbol"):
        RangeDecoder(b"\xff" * 16).splits(numbers, 1.0)
