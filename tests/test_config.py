"""Settings: validated, merged from TOML, and documented as they are."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from smartsplat_large.config import PRESETS, FitConfig, LossConfig, OptimizerConfig, SamplingConfig, preset, read_toml
from smartsplat_large.errors import UsageError

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"


def test_the_documented_settings_are_those_of_balanced(tmp_path: Path) -> None:
    toml = tmp_path / "page.toml"
    toml.write_text(re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.S)[1])
    assert read_toml(toml, PRESETS["balanced"]) == PRESETS["balanced"]
    # Not because nothing was read: on top of another preset, everything but the name comes from the page.
    assert read_toml(toml, PRESETS["paper"]) == PRESETS["balanced"].replace(preset="paper")


def test_the_documented_steps_are_those_of_the_presets() -> None:
    rows = re.findall(r"^\| `(\w+)` \|[^|]*\| ([\d ]+) \|", PAGE.read_text(), re.M)
    assert {name: int(steps.replace(" ", "")) for name, steps in rows} == {n: p.steps for n, p in PRESETS.items()}


@pytest.mark.parametrize(
    "text",
    ["steps = -1", "steps = 1.5", "steps = true", "nonsense = 3", "[loss]\nl3 = 1", "loss = 3", "ratio = 0", "not toml",
     'sampling = {means = "elsewhere"}', "[sampling]\ntile = 1", "ratio = 5\ngaussians = 7"],
)  # fmt: skip
def test_a_bad_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    toml = tmp_path / "bad.toml"
    toml.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_toml(toml, PRESETS["fast"])
    assert caught.value.hint


def test_a_number_of_gaussians_takes_the_place_of_the_ratio(tmp_path: Path) -> None:
    toml = tmp_path / "count.toml"
    toml.write_text("gaussians = 77")
    assert read_toml(toml, PRESETS["fast"]).gaussians == 77
    assert read_toml(toml, PRESETS["fast"]).ratio is None


def test_values_out_of_range_are_refused() -> None:
    for build in (
        lambda: FitConfig(ratio=-1),
        lambda: FitConfig(ratio=None),
        lambda: FitConfig(gaussians=3),
        lambda: LossConfig(l1=0, l2=0, ssim=0),
        lambda: LossConfig(l1=math.inf),
        lambda: OptimizerConfig(lr_xy=math.inf),
        lambda: OptimizerConfig(lr_color=math.nan),
        lambda: OptimizerConfig(epsilon=0),
        lambda: OptimizerConfig(decay_floor=-1),
        lambda: SamplingConfig(gradient_weight=2),
        lambda: preset("slow"),
    ):
        with pytest.raises(UsageError):
            build()


def test_a_ratio_and_a_number_of_gaussians_replace_each_other() -> None:
    counted = preset("fast").replace(gaussians=70)
    assert (counted.ratio, counted.gaussians) == (None, 70)
    again = counted.replace(ratio=30.0)
    assert (again.ratio, again.gaussians) == (30.0, None)
    with pytest.raises(UsageError):
        preset("fast").replace(ratio=10.0, gaussians=70)


def test_a_summary_tells_what_is_not_the_presets() -> None:
    config = preset("balanced").replace(
        ratio=100.0, seed=3, finish_passes=5, loss=LossConfig(l1=0.5, l2=1.0, ssim=0.01)
    )
    summary = config.summary()
    assert summary == {
        "ratio": 100.0, "preset": "balanced", "steps": 600, "seed": 3, "finish_passes": 5,
        "loss": {"l1": 0.5, "ssim_from": LossConfig().ssim_from, "rate": 0.0, "ssim_stride": 1},
    }  # fmt: skip
    assert preset("fast").summary().keys() == {"ratio", "preset", "steps", "seed"}
