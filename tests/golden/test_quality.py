"""What a short fit of the bundled picture is worth: a change that costs quality, or time's worth of steps, shows here.

The figures are those of the commit that last changed them on purpose. Rounding differs between machines and grows over the
steps, so they are held to a few hundredths of a dB rather than to the bit.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import smartsplat_large

PICTURE = Path(__file__).parents[1] / "data" / "mountain.png"

GOLDEN = {("balanced", 20.0): 30.07, ("balanced", 100.0): 22.56, ("fast", 20.0): 29.75, ("paper", 20.0): 16.07}


@pytest.mark.parametrize(("preset", "ratio"), GOLDEN)
def test_psnr_of_sixty_steps(tmp_path: Path, preset: str, ratio: float) -> None:
    config = smartsplat_large.preset(preset).replace(ratio=ratio, steps=60)
    report = smartsplat_large.fit(PICTURE, tmp_path / "a.ssplat", config=config)
    assert report.psnr == pytest.approx(GOLDEN[preset, ratio], abs=0.15)
