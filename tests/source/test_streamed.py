"""PNG, JPEG and WebP: orientation, metadata, order of reading."""

from pathlib import Path

import numpy as np
import pytest
import pyvips
from PIL import ImageCms

from smartsplat_large.lattice import Size, Window
from smartsplat_large.source import bands, open_source

PIXELS = np.random.default_rng(2).integers(0, 256, (300, 41, 3), np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
UPRIGHT = {
    2: PIXELS[:, ::-1],
    3: PIXELS[::-1, ::-1],
    4: PIXELS[::-1],
    5: PIXELS.transpose(1, 0, 2),
    6: np.rot90(PIXELS, -1),
    7: np.rot90(PIXELS, 2).transpose(1, 0, 2),
    8: np.rot90(PIXELS, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    image = pyvips.Image.new_from_array(PIXELS)
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    image.write_to_file(str(tmp_path / "a.png"))
    expected = UPRIGHT[orientation]
    source = open_source(tmp_path / "a.png")
    assert source.meta.size == Size(expected.shape[1], expected.shape[0])
    np.testing.assert_array_equal(np.concatenate([pixels for _, pixels in bands(source, 64)]), expected)
    np.testing.assert_array_equal(source.read(Window(3, 7, 20, 21)), expected[7:28, 3:23])


def test_windows_may_be_read_in_any_order(tmp_path: Path) -> None:
    pyvips.Image.new_from_array(PIXELS).write_to_file(str(tmp_path / "a.png"))
    source = open_source(tmp_path / "a.png")
    for y in (290, 0, 150, 10):
        np.testing.assert_array_equal(source.read(Window(5, y, 30, 10)), PIXELS[y : y + 10, 5:35])


def test_a_palette_becomes_colours(tmp_path: Path) -> None:
    few = np.repeat(np.repeat(PIXELS[:8, :8], 8, axis=0), 4, axis=1)
    pyvips.Image.new_from_array(few).pngsave(str(tmp_path / "a.png"), palette=True, dither=0)
    source = open_source(tmp_path / "a.png")
    assert source.meta.channels == 3
    assert np.abs(source.read(source.meta.size.window).astype(int) - few).max() <= 8


def test_profile_and_resolution_are_carried(tmp_path: Path) -> None:
    image = pyvips.Image.new_from_array(PIXELS).copy(xres=10, yres=20)
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", SRGB)
    image.write_to_file(str(tmp_path / "a.jpg"))
    meta = open_source(tmp_path / "a.jpg").meta
    assert meta.pixels_per_cm == pytest.approx((100, 200))
    assert meta.icc_profile == SRGB
