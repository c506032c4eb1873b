"""``compare``: what it prints and writes, and how it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from smartsplat_large.cli import run

MOUNTAIN = Path(__file__).parents[1] / "data" / "mountain.png"
QUICK = ("--preset", "fast", "--steps", "2", "--codecs", "jpeg,jpeg2000", "-q")
MEASURED = {"bytes", "ratio", "bpp", "psnr", "ssim", "ms_ssim", "encode_s", "decode_s", "setting", "factor"}


def test_json_and_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "report.html"
    assert run(["compare", str(MOUNTAIN), "--ratios", "20,50,250", *QUICK, "--json", "-o", str(page)]) == 0
    values = json.loads(capsys.readouterr().out)
    assert set(values) == {
        "image", "width", "height", "channels", "raw_bytes", "preset", "steps", "seed", "codecs", "results", "bd_rate",
        "output",
    }  # fmt: skip
    assert [(r["codec"], r["wanted_ratio"]) for r in values["results"]] == [
        (codec, ratio) for codec in ("smartsplat", "jpeg", "jpeg2000") for ratio in (20, 50, 250)
    ]
    for result in values["results"]:
        file = result["direct"] or result["reduced"]
        assert set(file) == MEASURED
        assert file["bytes"] <= result["budget_bytes"] == int(values["raw_bytes"] / result["wanted_ratio"])
    beyond = values["results"][5]
    assert beyond["direct"] is None
    assert beyond["reduced"]["factor"] > 1
    assert set(values["bd_rate"]) == {"smartsplat", "jpeg2000"}
    assert values["bd_rate"]["jpeg2000"]["psnr"] < 0
    text = page.read_text()
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(https?:|//)", text)
    assert set(re.findall(r"https?://[^\"' ]*", text)) == {"http://www.w3.org/2000/svg"}
    assert "cannot go that low" in text
    assert f"{values['raw_bytes']:,} bytes raw" in text
    named = set(re.findall(r'\$\("(\w+)"\)', text))
    assert {"pair", "window"} <= named <= set(re.findall(r'\sid="(\w+)"', text)), "the script finds what it looks for"
    assert text.count("data:image/webp;base64,") == 1 + 9


def test_table_marks_what_cannot_be_reached(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", str(MOUNTAIN), "--ratios", "250", "--region", "0,0,200,180", *QUICK]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^250 +JPEG .*cannot go that low; at 1/\d of the size", text, re.MULTILINE)
    assert "mozjpeg" in text


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--ratios", "20,x"], 2, "is not a list of numbers"),
        (["--ratios", "1"], 2, "ratios 1"),
        (["--ratios", "9999"], 2, "mountain: ratio 9999 leaves 14 bytes"),
        (["--codecs", "gif"], 2, "no codec is called 'gif'"),
        (["-o", "report.pdf"], 2, "writes an HTML page"),
        (["--region", "0,0,999,9"], 2, "is not inside the picture"),
        (["--memory", "100MiB"], 4, "to compare 256x192 pixels needs"),
    ],
)
def test_refusals(arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["compare", str(MOUNTAIN), "-q", *arguments]) == code
    error, hint = capsys.readouterr().err.splitlines()
    assert said in error
    assert hint.startswith("hint: ")


def test_sixteen_bits_are_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "deep.npy", np.zeros((32, 32, 3), np.uint16))
    assert run(["compare", str(tmp_path / "deep.npy"), "-q"]) == 3
    assert "8-bit grey or RGB" in capsys.readouterr().err


@pytest.mark.parametrize("shape", [(200, 1, 3), (1, 200, 3), (1, 200, 1)])
def test_a_picture_of_one_line_is_compared(shape: tuple[int, ...], tmp_path: Path) -> None:
    line, page = tmp_path / "line.npy", tmp_path / "line.html"
    np.save(line, np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    assert run(["compare", str(line), "-q", "--ratios", "2", "--preset", "fast", "--steps", "1", "-o", str(page)]) == 0
    assert "data:image/webp" in page.read_text()
