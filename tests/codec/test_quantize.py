from __future__ import annotations

import numpy as np
import pytest

from smartsplat_large.codec.quantize import (
    amplitude_step,
    color_transform,
    dequantize,
    fineness_to_index,
    index_to_fineness,
    quantize,
    turn_levels,
)
from smartsplat_large.gaussians import Gaussians, scale_rotation_to_covariance
from smartsplat_large.lattice import Size


def test_error_shrinks_with_the_step(batch):
    given = batch(500, Size(400, 300))
    coarse, fine = (dequantize(quantize(given, step, 3), step, 3) for step in (0.5, 0.005))
    for name, tolerance in (("xy", 0.2), ("color", 2e-3)):
        errors = [np.abs(getattr(found, name) - getattr(given, name)).mean() for found in (coarse, fine)]
        assert errors[1] < errors[0] / 20
        assert errors[1] < tolerance


def test_covariance_survives_swapped_axes_and_turns():
    scale = np.array([[2, 9], [9, 2], [30, 0.3]], np.float32)
    rotation = np.array([0.4, 17.0, -1.5], np.float32)
    given = Gaussians(np.full((3, 2), 50.0), scale, rotation, np.full((3, 3), 0.5, np.float32))
    found = dequantize(quantize(given, 1e-4, 2), 1e-4, 2)
    wanted = scale_rotation_to_covariance(scale, rotation)
    np.testing.assert_allclose(scale_rotation_to_covariance(found.scale, found.rotation), wanted, rtol=0.01)
    assert (found.scale[:, 0] >= found.scale[:, 1]).all()
    assert (np.abs(found.rotation) <= np.float32(np.pi / 2)).all()


def test_decoding_is_a_fixed_point(batch):
    given = quantize(batch(300, Size(400, 300)), 0.05, 3)
    again = quantize(dequantize(given, 0.05, 3), 0.05, 3)
    for name in ("cell", "octave", "mean", "aspect", "turn", "place", "color"):
        np.testing.assert_array_equal(getattr(given, name), getattr(again, name))


def test_color_transform_is_orthonormal():
    for channels in (1, 2, 3, 4):
        transform = color_transform(channels)
        np.testing.assert_allclose(transform @ transform.T, np.eye(channels), atol=1e-15)


def test_circles_need_no_rotation_and_needles_a_fine_one():
    levels = turn_levels(np.full(2, 7), np.array([0, 290]))
    assert levels[0] == 1
    assert levels[1] > 10_000
    assert levels[1] % 2 == 0


def test_image_axes_are_among_the_rotations():
    given = Gaussians(
        np.full((2, 2), 9.0),
        np.array([[8, 2], [2, 8]], np.float32),
        np.zeros(2, np.float32),
        np.ones((2, 1), np.float32),
    )
    found = dequantize(quantize(given, 0.3, 3), 0.3, 3)
    np.testing.assert_array_equal(np.abs(found.rotation), np.array([0, np.pi / 2], np.float32))


def test_levels_depend_on_whole_numbers_alone():
    # The literals were computed once: a machine that disagrees cannot read what others wrote.
    octave = np.array([1, 5, 13, 24])
    assert turn_levels(octave, np.array([1, 14, 2000, 900])).tolist() == [8, 112, 13436, 7790]


@pytest.mark.parametrize("fineness", [0.25, 1.0, 37.0])
def test_fineness_is_kept_to_half_a_step(fineness):
    found = index_to_fineness(fineness_to_index(fineness, 11.0), 11.0)
    assert abs(np.log2(found / fineness)) <= 0.5 / 64 + 1e-9
    assert amplitude_step(64) == 2.0
