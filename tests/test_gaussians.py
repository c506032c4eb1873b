"""Parametrisations of a Gaussian, there and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smartsplat_large.gaussians import (
    CUTOFF,
    Gaussians,
    covariance_to_conic,
    covariance_to_scale_rotation,
    half_extent,
    scale_rotation_to_covariance,
)

SCALES = st.floats(0.25, 2000, width=32)


@given(SCALES, SCALES, st.floats(-10, 10, width=32))
def test_covariance_conic_and_back(sx: float, sy: float, rotation: float) -> None:
    scale = np.array([[sx, sy]], np.float32)
    angle = np.array([rotation], np.float32)
    covariance = scale_rotation_to_covariance(scale, angle)
    xx, xy, yy = covariance[0]
    a, b, c = covariance_to_conic(covariance)[0]
    if max(sx, sy) < 100 * min(sx, sy):
        product = np.array([[xx, xy], [xy, yy]]) @ np.array([[a, b], [b, c]])
        np.testing.assert_allclose(product, np.eye(2), atol=1e-6)
        again = scale_rotation_to_covariance(*covariance_to_scale_rotation(covariance))
        np.testing.assert_allclose(again, covariance, rtol=1e-3, atol=1e-5 * max(sx, sy) ** 2)


@given(SCALES, SCALES, st.floats(-4, 4, width=32))
def test_the_box_holds_the_ellipse_and_no_more(sx: float, sy: float, rotation: float) -> None:
    extent = half_extent(np.array([[sx, sy]], np.float32), np.array([rotation], np.float32))[0]
    turn = np.linspace(0, 2 * np.pi, 2000)
    radius = np.sqrt(2 * CUTOFF)
    along, across = radius * np.float32(sx) * np.cos(turn), radius * np.float32(sy) * np.sin(turn)
    c, s = np.cos(np.float32(rotation), dtype=np.float64), np.sin(np.float32(rotation), dtype=np.float64)
    border = np.array([np.abs(c * along - s * across).max(), np.abs(s * along + c * across).max()])
    assert (border <= extent * (1 + 1e-5)).all()
    assert (border >= extent * 0.99).all()


def test_columns_that_disagree_are_refused() -> None:
    with pytest.raises(ValueError, match="columns disagree"):
        Gaussians(np.zeros((2, 2)), np.ones((1, 2), np.float32), np.zeros(2, np.float32), np.zeros((2, 3), np.float32))
