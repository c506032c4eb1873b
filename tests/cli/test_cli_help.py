"""What ``--help`` says and costs, and what the package exports."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import pytest

import smartsplat_large
from smartsplat_large.cli import run

HEAVY = ("numpy", "numba", "torch", "dask", "distributed", "zarr", "tifffile", "pyvips", "scipy", "rich", "jaxtyping")
OPTIONS = {
    "fit": {
        "--output", "--ratio", "--gaussians", "--preset", "--steps", "--memory", "--workers", "--scheduler", "--dashboard",
        "--performance-report",
        "--overwrite", "--seed", "--device", "--config", "--json",
    },
    "decode": {"--output", "--region", "--level", "--scale", "--overwrite"},
    "eval": {"--json"},
    "info": {"--json"},
    "compare": {"--output", "--ratios", "--codecs", "--region", "--preset", "--memory", "--overwrite", "--json"},
    "ingest": {"--output", "--overwrite"},
}  # fmt: skip


@pytest.mark.parametrize("command", OPTIONS)
def test_help_of_a_command_lists_its_options_and_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert {option for option in OPTIONS[command] if option not in text} == set()
    assert f"  smartsplat-large {command} " in text


def test_help_of_the_program_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {command}" in text for command in OPTIONS)


@pytest.mark.parametrize(
    "statement", ["import smartsplat_large", "from smartsplat_large.cli import run; run(['--help'])"]
)
def test_nothing_heavy_is_imported_before_it_is_needed(statement: str) -> None:
    script = f"import json, sys\n{statement}\nprint(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"smartsplat-large {importlib.metadata.version('smartsplat-large')}\n"
    assert smartsplat_large.__version__ == importlib.metadata.version("smartsplat-large")


def test_every_export_can_be_had() -> None:
    missing = [name for name in smartsplat_large.__all__ if getattr(smartsplat_large, name, None) is None]
    assert missing == []
    assert sorted(dir(smartsplat_large)) == sorted(smartsplat_large.__all__)
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        smartsplat_large.fitt  # noqa: B018
