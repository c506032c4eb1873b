"""When a descent is lost."""

from __future__ import annotations

import math

import numpy as np
import pytest

from smartsplat_large.fitting.guard import MOVING, STRICT, Patience
from smartsplat_large.gaussians import Gaussians


def gaussians(x: float = 1.0) -> Gaussians:
    ones = np.ones(2, np.float32)
    return Gaussians(np.array([[x, 2.0], [3.0, 4.0]]), np.stack([ones, ones], 1), ones, np.stack([ones] * 3, 1))


@pytest.mark.parametrize("patience", [STRICT, MOVING])
def test_a_loss_is_lost_beyond_the_tolerance(patience: Patience) -> None:
    assert not patience.is_lost(gaussians(), patience.tolerance * 0.1, 0.1)
    assert patience.is_lost(gaussians(), patience.tolerance * 0.1 * 1.001, 0.1)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_what_is_not_finite_is_lost(loss: float) -> None:
    assert STRICT.is_lost(gaussians(), loss, math.inf)
    assert STRICT.is_lost(gaussians(math.nan), 0.1, 0.1)


def test_rounding_is_no_rise_and_the_first_loss_has_nothing_to_rise_from() -> None:
    assert not STRICT.is_lost(gaussians(), 1e-8, 1e-12)
    assert not STRICT.is_lost(gaussians(), 1e6, math.inf)
