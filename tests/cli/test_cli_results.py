"""Tables and JSON."""

from __future__ import annotations

import json
import math

import pytest

from smartsplat_large.cli import results

EVALUATION = dict(
    psnr=31.234, ssim=0.9, ms_ssim=None, bytes=1000, raw_bytes=50_000, ratio=50.0, bpp=0.48, gaussians=170, width=160,
    height=120,
)  # fmt: skip


def test_json_is_one_line_without_nan(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"psnr": math.inf, "loss": math.nan, "nested": {"list": [1.5, -math.inf]}, "name": "ä\n"}
    results.write(values, [], as_json=True)
    text = capsys.readouterr().out
    assert text.count("\n") == 1
    assert json.loads(text) == {"psnr": None, "loss": None, "nested": {"list": [1.5, None]}, "name": "ä\n"}


def test_table_lines_up(capsys: pytest.CaptureFixture[str]) -> None:
    results.write({}, [("size", "1"), ("gaussians", "2")], as_json=False)
    assert capsys.readouterr().out == "size       1\ngaussians  2\n"


def test_evaluation_names_what_could_not_be_measured() -> None:
    rows = dict(results.evaluation_rows(EVALUATION))
    assert rows["PSNR"] == "31.23 dB"
    assert rows["MS-SSIM"] == "- (needs sides of more than 160 pixels)"
    assert rows["ratio"] == "50.00  (50000 bytes of pixels in a file of 1000)"


def test_info_shows_ledger_and_damage() -> None:
    values = {
        **EVALUATION, "file": "a.ssplat", "channels": 3, "bits": 8, "block": 0, "blocks": 1, "fineness": 0.5,
        "ledger": {"header": 25, "colors": 975}, "provenance": {"program": "p", "config": {"steps": 5, "loss": {}}},
        "icc_profile_bytes": 0, "pixels_per_cm": (39.37, 39.37), "damage": [],
    }  # fmt: skip
    whole = dict(results.info_rows(values))
    assert whole["  colors"].split() == ["975", "bytes", "97.5%"]
    assert whole["made with"] == "steps 5"
    assert whole["resolution"] == "39.37 x 39.37 pixels/cm"
    assert whole["integrity"] == "whole"
    broken = results.info_rows(values | {"ledger": None, "damage": ["block 1", "block 2"]})
    assert broken[-2:] == [("damage", "block 1"), ("damage", "block 2")]
    assert "integrity" not in dict(broken)


def test_of_many_damaged_parts_the_first_and_the_last_are_told() -> None:
    few = [f"block {number}" for number in range(4)]
    assert results.damage_lines(few) == few
    many = [f"block {number}" for number in range(50)]
    assert results.damage_lines(many) == ["block 0", "block 1", "block 2", "46 more, up to", "block 49"]
