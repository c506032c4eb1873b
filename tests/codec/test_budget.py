from __future__ import annotations

import numpy as np
import pytest

from smartsplat_large.codec import budget as budget_module
from smartsplat_large.codec import encode, encode_to_budget
from smartsplat_large.codec import estimate as estimate_module
from smartsplat_large.codec.budget import trimmed
from smartsplat_large.codec.estimate import Estimate
from smartsplat_large.codec.writer import Extras, pack, quantized
from smartsplat_large.errors import UsageError
from smartsplat_large.lattice import Size


@pytest.mark.parametrize(
    ("size", "ratio"),
    [
        (Size(64, 64), 5), (Size(64, 64), 100), (Size(300, 200), 20), (Size(768, 512), 50), (Size(768, 512), 5000),
        (Size(1000, 1000), 200), (Size(4096, 4096), 1000), (Size(4096, 4096), 5000), (Size(1, 9000), 20),
    ],
)  # fmt: skip
def test_budgets_are_filled_and_kept(batch, size, ratio):
    budget = size.pixels * 3 // ratio
    given = batch(max(1, round(budget / 4.8)), size)
    encoded = encode_to_budget(given, size=size, bits=8, budget_bytes=budget)
    assert 0.97 * budget <= encoded.size_bytes <= budget
    assert not encoded.under_budget
    assert encoded.fineness * 1.1 >= 0.25


@pytest.mark.parametrize("count", [2500, 9000])
def test_the_faintest_pay_for_what_is_over(batch, count):
    size, step = Size(768, 512), -40
    symbols, layout = quantized(batch(count, size), size, step)
    over = pack(symbols, layout, 8, step, Extras())
    budget = int(0.985 * over.size_bytes)
    found = trimmed(symbols, layout, 8, step, Extras(), over, budget)
    assert 0.997 * budget <= found.size_bytes <= budget
    energy = np.square(symbols.color, dtype=np.int64).sum(axis=1)
    gone = np.setdiff1d(over.kept, found.kept)
    assert 0 < len(gone) < 0.05 * count
    assert energy[gone].max() <= energy[found.kept].min()


def test_too_many_gaussians_lose_the_least_important(batch):
    size = Size(500, 500)
    given = batch(1000, size)
    importance = np.arange(1000)[::-1].astype(float)
    encoded = encode_to_budget(given, size=size, bits=8, budget_bytes=1000, importance=importance)
    assert 970 <= encoded.size_bytes <= 1000
    assert 200 < len(encoded.kept) < 500
    assert encoded.kept.max() < 600


def test_too_few_gaussians_leave_budget_over(batch):
    size = Size(500, 500)
    encoded = encode_to_budget(batch(20, size), size=size, bits=8, budget_bytes=10_000)
    assert encoded.under_budget
    assert encoded.fineness > 200


def test_extras_give_way_to_gaussians(batch):
    size = Size(500, 500)
    given = batch(200, size)
    metadata = {"note": "".join(map(str, range(100)))}
    tight = encode_to_budget(given, size=size, bits=8, budget_bytes=1000, metadata=metadata)
    assert tight.dropped_extras == ("provenance",)
    about = {"metadata": metadata, "pixels_per_cm": (118.0, 118.0), "icc_profile": bytes(1000)}
    some = encode_to_budget(given, size=size, bits=8, budget_bytes=1000, **about)
    assert some.dropped_extras == ("colour profile", "provenance"), "the resolution takes only 8 bytes"
    roomy = encode_to_budget(batch(3000, size), size=size, bits=8, budget_bytes=15_000, metadata=metadata)
    assert not roomy.dropped_extras
    assert 14_550 <= roomy.size_bytes <= 15_000


def test_a_budget_below_one_gaussian_is_refused(batch):
    with pytest.raises(UsageError, match="20 bytes holds not one Gaussian"):
        encode_to_budget(batch(30, Size(64, 64)), size=Size(64, 64), bits=8, budget_bytes=20)
    size = Size(64, 64)
    least = encode_to_budget(batch(30, size), size=size, bits=8, budget_bytes=60)
    assert len(least.kept) >= 1
    assert least.size_bytes <= 60


@pytest.mark.parametrize("count", [3000, 20_000])
def test_an_estimate_saves_files(batch, monkeypatch, count):
    monkeypatch.setattr(estimate_module, "SAMPLE", 5000)
    size, budget = Size(3000, 2000), round(4.5 * count)
    attempts = []
    plain = budget_module.pack

    def counting(*given, **settings):
        attempts.append(given)
        return plain(*given, **settings)

    monkeypatch.setattr(budget_module, "pack", counting)
    encoded = encode_to_budget(batch(count, size), size=size, bits=8, budget_bytes=budget)
    assert 0.985 * budget <= encoded.size_bytes <= budget
    assert len(attempts) <= 2


@pytest.mark.parametrize("step_index", [-240, -160, -80])
def test_an_estimate_is_near_the_size(batch, step_index):
    size = Size(1500, 1000)
    given = batch(9000, size)
    exact = pack(*quantized(given, size, step_index), 8, step_index, Extras()).size_bytes
    assert Estimate(given, size)(step_index) == pytest.approx(exact, rel=0.03)


def test_what_rounds_to_nothing_is_estimated_to_take_next_to_nothing(batch):
    assert 0 < Estimate(batch(100, Size(300, 200)), Size(300, 200))(1000) < 1000


def test_finer_files_are_larger(batch):
    size = Size(500, 500)
    given = batch(300, size)
    sizes = [encode(given, size=size, bits=8, fineness=f).size_bytes for f in (0.25, 0.5, 1, 4, 64)]
    assert sizes == sorted(sizes)
    assert sizes[-1] > 2 * sizes[0]
