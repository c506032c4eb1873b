"""Every measuring recipe, on the smallest input that lets it run to its end."""

from __future__ import annotations

import contextlib
import io
import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest

import smartsplat_large
from smartsplat_large.config import preset
from smartsplat_large.lattice import Size

ROOT = Path(__file__).parents[2]
MOUNTAIN = ROOT / "tests" / "data" / "mountain.png"


def recipe(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """As a script is run, but in this process: others spend most of their time on loading libraries and kernels."""
    path, code = str(ROOT / "pipelines" / f"{name}.py"), 0
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        patch.syspath_prepend(ROOT / "pipelines")
        patch.setattr(sys, "argv", [path, *map(str, arguments)])
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as stop:
            code = stop.code
    return subprocess.CompletedProcess([path], code, out.getvalue(), err.getvalue())


def measured(tmp_path: Path, name: str, *arguments: str | Path) -> tuple[str, list[dict[str, Any]]]:
    """The table that a recipe printed, and the rows of its JSON."""
    done = recipe(name, *arguments, "--json", tmp_path / "rows.json")
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((tmp_path / "rows.json").read_text())["rows"]


def test_ablation_adds_one_part_at_a_time(tmp_path: Path) -> None:
    table, rows = measured(tmp_path, "ablation", MOUNTAIN, "--run", "paper=10", "--crop", "128x96")
    assert [row["variant"] for row in rows] == [
        "full random",
        "+ sampled means",
        "+ sampled scales",
        "+ sampled colours",
    ]
    assert len({row["gaussians"] for row in rows}) == 1
    psnr = [row["psnr"] for row in rows]
    assert psnr[3] > psnr[2] > max(psnr[:2])
    assert f"| {psnr[3] - psnr[2]:+.2f} |" in table


def test_blocked_mode_stands_beside_exact_mode(tmp_path: Path) -> None:
    drawn = tmp_path / "map.jpg"
    table, rows = measured(
        tmp_path,
        "blocked_vs_exact",
        MOUNTAIN,
        "--ratios",
        "50",
        "--presets",
        "fast",
        "--crop",
        "250x190",
        "--error-map",
        drawn,
    )
    assert rows[0]["blocked_psnr"] > rows[0]["exact_psnr"] - 0.5
    assert "seam dB" in table
    assert "shows from" in table
    assert imagecodecs.imread(drawn).shape == (194, 508)


def test_ablation_moves_means_as_in_a_larger_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "pipelines")
    import ablation

    paper = preset("paper")
    rated = ablation.with_rates_of(Size(2560, 1920), MOUNTAIN, paper)
    assert rated.optimizer.lr_xy == pytest.approx(10 * paper.optimizer.lr_xy)
    assert rated.replace(optimizer=paper.optimizer) == paper


def test_presets_stand_beside_a_jpeg_of_their_bytes(tmp_path: Path) -> None:
    table, rows = measured(tmp_path, "presets", MOUNTAIN, "--presets", "fast=12", "paper=3", "--ratios", "20", "30")
    assert [(row["preset"], row["wanted_ratio"]) for row in rows] == [
        ("fast=12", 20), ("fast=12", 30), ("paper=3", 20), ("paper=3", 30)
    ]  # fmt: skip
    for row in rows:
        assert 0.9 * row["bytes"] < row["jpeg_bytes"] <= row["bytes"] <= 256 * 192 * 3 / row["wanted_ratio"]
        assert row["jpeg_psnr"] > 20
    assert len(table.splitlines()) == 2 + len(rows)


def test_rounding_loss_stands_beside_the_fit(tmp_path: Path) -> None:
    table, (row,) = measured(tmp_path, "rounding_loss", MOUNTAIN, "--presets", "fast=30", "--ratios", "20")
    assert row["fit_psnr"] > row["psnr"] > 20
    assert 0.97 < row["filled"] <= 1
    assert "loss dB" in table


def test_fuzzing_finds_nothing_in_a_moment(tmp_path: Path) -> None:
    done = recipe("fuzz", "--minutes", "0.03", "--plain", "--findings", tmp_path / "findings")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("cases, 0 findings\n")


def test_forged_checksums_let_mutations_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "pipelines")
    import fuzz

    for raw in fuzz.samples():
        assert fuzz.resealed(raw) == raw
        torn = bytearray(raw)
        torn[-5] ^= 1
        assert fuzz.resealed(bytes(torn)) != bytes(torn)


def test_rate_distortion_lays_codecs_side_by_side(tmp_path: Path) -> None:
    drawn = tmp_path / "curves.svg"
    table, (row,) = measured(
        tmp_path, "rate_distortion", MOUNTAIN, "--ratios", "20", "50", "--codecs", "jpeg", "webp", "--preset", "fast",
        "--steps", "2", "--crop", "192x176", "--figure", drawn,
    )  # fmt: skip
    assert [(r["codec"], r["wanted_ratio"]) for r in row["results"]] == [
        (codec, ratio) for codec in ("smartsplat", "jpeg", "webp") for ratio in (20, 50)
    ]
    assert "| mean of 1 " in table
    assert "| BD-rate against JPEG " in table
    assert drawn.read_text().startswith("<svg ")


def test_initialisation_says_what_each_stage_took(tmp_path: Path) -> None:
    table, (row,) = measured(tmp_path, "initialisation", MOUNTAIN, "--ratio", "50")
    assert row["gaussians"] > 500
    assert sum(row["stages"].values()) <= row["seconds"] + 1e-3
    assert all(stage in table for stage in row["stages"])


def test_benchmark_codec_tells_a_window_from_its_parsing(tmp_path: Path) -> None:
    splats = tmp_path / "a.ssplat"
    fitted = smartsplat_large.fit(MOUNTAIN, splats, config=preset("fast").replace(steps=1))
    done = recipe("benchmark_codec", splats, "--json", tmp_path / "found.json")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["gaussians"] == fitted.gaussians
    assert found["ratio"] == pytest.approx(256 * 192 * 3 / splats.stat().st_size, abs=0.1)
    assert 0 < found["parsed_window_ms"] < found["window_ms"]
    assert f"{found['parsed_window_ms']:>12g}" in done.stdout


def test_scaling_measures_processes_of_their_own(tmp_path: Path) -> None:
    table, rows = measured(tmp_path, "scaling", "--megapixels", "0.1", "0.2", "--preset", "fast=1")
    for row in rows:
        assert 50 << 20 < row["measured_bytes"] <= row["projected_bytes"] == row["allowed_bytes"]
        assert min(row["seconds"], row["cpu_s"]) > 0
    assert table.split()[1] == "picture"
    assert "to the power of" in table


def test_scaling_takes_pictures_and_a_limit(tmp_path: Path) -> None:
    limit = ("--memory", "1GiB", "--preset", "fast=1")
    _, (row,) = measured(tmp_path, "scaling", MOUNTAIN, *limit)
    assert row["picture"] == Path(MOUNTAIN).name
    assert row["projected_bytes"] < row["allowed_bytes"] == 1 << 30


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("ablation", [MOUNTAIN, "--crop", "999x9"], "256x192 pixels, the crop takes 999x9"),
        ("presets", ["rgba.npy"], "4 channel(s) of uint8"),
        ("initialisation", ["missing.tif"], "no such file"),
    ],
)
def test_a_recipe_ends_in_two_lines_where_it_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, arguments: list[str | Path], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("rgba.npy", np.full((64, 64, 4), 9, np.uint8))
    done = recipe(name, *arguments)
    error, hint = done.stderr.splitlines()[-2:]
    assert done.returncode in (2, 3)
    assert said in error
    assert hint.startswith("hint: ")
    assert "Traceback" not in done.stderr


def test_time_to_quality_compares_runs_with_the_first(tmp_path: Path) -> None:
    names = ["paper=12", "balanced=12", "balanced=12:loss.ssim=0.0:relocate_share=0.0"]
    details = tmp_path / "details.png"
    flags = ("--crop", "200x180", "--details", details, "--runs", *names)
    table, rows = measured(tmp_path, "time_to_quality", MOUNTAIN, *flags)
    assert [row["run"] for row in rows] == names
    shown = imagecodecs.imread(details)
    assert shown.shape == (180, 192 * 4, 3)
    original, yardstick, better, _ = np.split(shown.astype(float), 4, axis=1)
    assert np.square(original - better).mean() < np.square(original - yardstick).mean() / 2
    assert len({row["gaussians"] for row in rows}) == 1
    assert rows[1]["psnr"] > rows[0]["psnr"] + 3
    assert rows[1]["to_yardstick_best_s"] <= rows[1]["seconds"]
    assert f"{rows[1]['psnr']:.2f}" in table
    assert recipe("time_to_quality", MOUNTAIN, "--runs", "balanced:los.ssim=0.0").returncode == 2


def test_stability_of_a_file_with_two_seeds(tmp_path: Path) -> None:
    flags = ("--preset", "fast", "--ratios", "50", "200", "--pictures", MOUNTAIN, "--seeds", "2")
    table, rows = measured(tmp_path, "stability", *flags)
    assert [(row["picture"], row["seed"]) for row in rows] == [(MOUNTAIN.stem, 0), (MOUNTAIN.stem, 1)]
    apart = abs(rows[0]["psnr"]["200.0"] - rows[1]["psnr"]["200.0"])
    assert 0 < apart < 1
    assert f"{apart:.3f}" in table


def test_kills_end_in_the_same_file(tmp_path: Path) -> None:
    found = tmp_path / "rows.json"
    command = [sys.executable, ROOT / "pipelines" / "kills.py", "--kills", "1", "--roles", "client", "--modes", "exact"]
    done = subprocess.run(
        [*command, "--size", "192x128", "--steps", "6", "--json", found], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(found.read_text())["rows"]
    assert "| yes" in done.stdout
    assert [(row["client"], row["stage"], row["resumes"], row["identical"]) for row in rows] == [
        ("killed", "ingest", 1, True)
    ]


@pytest.mark.parametrize(("stages", "roles"), [(9, 3), (8, 3), (9, 1), (6, 4)])
def test_kills_of_every_role_hit_every_stage_once(stages: int, roles: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "pipelines")
    place_of = runpy.run_path(str(ROOT / "pipelines" / "kills.py"))["place_of"]
    kills = range(stages * roles)
    assert len({(place_of(number, stages, roles), number % roles) for number in kills}) == len(kills)
    assert [place_of(number, stages, roles) for number in range(stages)] == list(range(stages))


def test_reading_says_what_windows_cost(tmp_path: Path) -> None:
    _, rows = measured(tmp_path, "reading", "--side", "1100")
    assert [(row["codec"], row["by"]) for row in rows] == [(c, b) for c in ("zstd", "lz4") for b in ("zarr", "zarrs")]
    assert all(0 < row["planes_ms"] < 1000 for row in rows)


def test_saving_says_what_a_state_takes(tmp_path: Path) -> None:
    _, rows = measured(tmp_path, "saving", "--gaussians", "5000", "--folder", tmp_path)
    assert 5000 * 144 < rows[0]["bytes"] < 5000 * 144 + 20_000
    assert rows[0]["pause_s"] >= 30


def test_repacking_a_file_of_this_version_changes_little(tmp_path: Path) -> None:
    golden = ROOT / "tests" / "data" / "golden"
    _, (old, new) = measured(tmp_path, "repack", golden / "version2.ssplat", golden / "version3.ssplat")
    assert old["bytes_now"] < old["bytes"]
    assert abs(new["change"]) < 0.01


def test_standard_models_are_learnt_and_other_contexts_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "pipelines")
    import standard_models

    from smartsplat_large.codec.standard import STANDARD_STREAMS, tables_from_bytes

    fits = tmp_path / "fits"
    monkeypatch.setattr(standard_models, "CROP", (96, 64))
    monkeypatch.setattr(standard_models, "STEPS", 20)
    monkeypatch.setattr(standard_models, "preset", lambda name: preset(name).replace(steps=20, finish_passes=0))
    given = [str(MOUNTAIN), "--fits", str(fits), "--ratios", "10", "20", "--table", str(tmp_path / "standard.bin")]
    monkeypatch.setattr(sys, "argv", ["standard_models.py", *given])
    standard_models.main()
    tables = tables_from_bytes((tmp_path / "standard.bin").read_bytes())
    assert tuple(tables) == STANDARD_STREAMS
    assert all((table.base.min(axis=1) == 0).all() for table in tables.values())
    _, rows = measured(tmp_path, "contexts_tried", *fits.glob("*.ssplat"), "--fits", fits)
    assert {row["stream"] for row in rows} == {"mean", "aspect", "luma", "chroma1", "chroma2", "split"}
    assert all(0 < bits < 10 for row in rows for bits in row["bits"].values())
