import numpy as np
import pytest

from smartsplat_large.lattice import Size, Window
from smartsplat_large.sampling.halo import read_with_halo

SIZE = Size(7, 5)
IMAGE = np.arange(7 * 5 * 2, dtype=np.uint8).reshape(5, 7, 2)


@pytest.mark.parametrize("window", [Window(0, 0, 7, 5), Window(3, 2, 1, 1), Window(5, 0, 2, 5), Window(0, 4, 1, 1)])
@pytest.mark.parametrize("halo", [0, 1, 2, 9])
def test_the_border_is_repeated(window: Window, halo: int) -> None:
    asked: list[Window] = []

    def read(part: Window) -> np.ndarray:
        asked.append(part)
        return IMAGE[part.slices(SIZE.window)]

    pixels = read_with_halo(read, window, halo, SIZE)

    rows = np.clip(np.arange(window.y - halo, window.y_end + halo), 0, 4)
    columns = np.clip(np.arange(window.x - halo, window.x_end + halo), 0, 6)
    np.testing.assert_array_equal(pixels, IMAGE[rows[:, None], columns])
    assert pixels.flags.c_contiguous
    assert len(asked) == 1
    assert SIZE.window.contains(asked[0])
