"""Which setting wins: the preset, the file, the flags."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from smartsplat_large.cli.options import fit_config, to_region
from smartsplat_large.config import FitConfig, preset
from smartsplat_large.errors import UsageError
from smartsplat_large.lattice import Window

UNSET = dict(preset_name=None, file=None, steps=None, seed=None)
TARGETS = ("ratio", "bytes", "psnr", "gaussians")


def config_of(**given: object) -> FitConfig:
    targets = {name: given.pop(name, None) for name in TARGETS}
    return fit_config(**{**UNSET, **given}, targets=targets)  # type: ignore[arg-type]


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text('preset = "fast"\nratio = 80\nsteps = 7\n[loss]\nl1 = 0.5\n')
    return path


def test_defaults_are_those_of_the_balanced_preset() -> None:
    assert config_of() == preset("balanced").replace(device="auto")


def test_the_device_is_the_flag_s_or_the_file_s(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('device = "cuda"\n')
    assert config_of(file=path).device == "cuda"
    assert config_of(file=path, device="cpu").device == "cpu"


def test_the_file_stands_on_the_preset_it_names(toml: Path) -> None:
    config = config_of(file=toml)
    fast = preset("fast")
    assert (config.preset, config.ratio, config.steps) == ("fast", 80, 7)
    assert config.loss == replace(fast.loss, l1=0.5)
    assert config.optimizer == fast.optimizer


def test_flags_win_over_the_file(toml: Path) -> None:
    config = config_of(file=toml, preset_name="paper", gaussians=12, steps=3, seed=5)
    assert (config.preset, config.ratio, config.gaussians, config.steps, config.seed) == ("paper", None, 12, 3, 5)
    assert config.optimizer == preset("paper").optimizer
    assert config.loss.l1 == 0.5


def test_a_ratio_replaces_the_number_that_the_file_gives(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("gaussians = 100\n")
    assert config_of(file=path).gaussians == 100
    assert (config_of(file=path, ratio=20.0).ratio, config_of(file=path, ratio=20.0).gaussians) == (20.0, None)


def test_a_psnr_replaces_the_ratio_and_excludes_it(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("psnr = 31\n")
    assert (config_of(file=path).psnr, config_of(file=path).ratio) == (31.0, None)
    assert (config_of(file=path, ratio=20.0).psnr, config_of(psnr=28.5).ratio) == (None, None)
    with pytest.raises(UsageError, match="--ratio and --psnr exclude each other"):
        config_of(ratio=5.0, psnr=30.0)
    for wrong in (4.9, 80.1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match=r"psnr = .* is out of range"):
            config_of(psnr=wrong)


def test_ratio_and_number_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="--ratio and --gaussians exclude each other"):
        config_of(ratio=5.0, gaussians=5)
    with pytest.raises(UsageError, match="--ratio and --bytes exclude each other"):
        config_of(ratio=5.0, bytes=500)


def test_a_number_of_bytes_replaces_the_ratio() -> None:
    config = config_of(bytes=5000)
    assert (config.bytes, config.ratio, config.gaussians) == (5000, None, None)


def test_a_file_may_not_name_an_unknown_preset(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('preset = "superb"\n')
    with pytest.raises(UsageError, match="no preset is called 'superb'"):
        config_of(file=path)


@pytest.mark.parametrize(("text", "window"), [("0,0,8,9", Window(0, 0, 8, 9)), ("-5, 7,+3,-1", Window(-5, 7, 3, -1))])
def test_a_region_may_be_anything_of_four_integers(text: str, window: Window) -> None:
    assert to_region(None, None, text) == window  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1,2,3,4.0", "1,2,3,1e3", "1,2,3," + "9" * 30])
def test_anything_else_is_no_region(text: str) -> None:
    with pytest.raises(UsageError, match="is not X,Y,W,H"):
        to_region(None, None, text)  # type: ignore[arg-type]
