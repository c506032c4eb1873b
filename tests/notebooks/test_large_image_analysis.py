"""The notebook runs from its first cell to its last, on a picture small enough for that, and is kept without outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "notebooks" / "large_image_analysis.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """The notebook with its outputs, and the folder of the figures it saved."""
    folder = tmp_path_factory.mktemp("notebook")
    settings = {
        "SMARTSPLAT_PICTURE": str(ROOT / "tests" / "data" / "mountain.png"),
        "SMARTSPLAT_PRESET": "fast",
        "SMARTSPLAT_RATIO": "20",
        "SMARTSPLAT_FIGURES": str(folder / "figures"),
        "TMPDIR": str(folder),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    # A process of its own: the kernel's client leaves event loops and sockets that warn in this one.
    program = f"""
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read({str(NOTEBOOK)!r}, as_version=4)
NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
nbformat.write(notebook, {str(folder / "executed.ipynb")!r})
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=os.environ | settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((folder / "executed.ipynb").read_text()), folder


def told(notebook: dict) -> str:
    """All markdown that cells put out."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    return "\n".join("".join(output.get("data", {}).get("text/markdown", "")) for output in outputs)


def test_it_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in code] == [[]] * len(code)
    assert {cell["execution_count"] for cell in code} == {None}


def test_its_pictures_on_the_web_are_there_and_light() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    text = "".join(line for cell in cells if cell["cell_type"] == "markdown" for line in cell["source"])
    links = [part.partition(")")[0] for part in text.split("](") if ".jpg" in part.partition(")")[0]]
    assert links
    assert all(0 < (NOTEBOOK.parent / link).stat().st_size < 150_000 for link in links)


def test_it_says_what_the_picture_is_and_what_the_fit_gives(executed: tuple[dict, Path]) -> None:
    text = told(executed[0])
    assert "256 x 192" in text
    assert "dask dashboard: http://127.0.0.1:" in text
    assert "dB PSNR**" in text
    assert "| ratio | 20." in text


def test_it_shows_every_figure(executed: tuple[dict, Path]) -> None:
    notebook, folder = executed
    figures = {path.stem for path in (folder / "figures").iterdir()}
    assert figures == {"thumbnail", "features", "gaussians", "errors", "zoom", "bytes"}
    shown = [o for cell in notebook["cells"] for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(shown) == len(figures)


def test_it_says_nothing_on_stderr(executed: tuple[dict, Path]) -> None:
    streams = [o for cell in executed[0]["cells"] for o in cell.get("outputs", []) if o["output_type"] == "stream"]
    assert ["".join(stream["text"]) for stream in streams] == []


def test_it_cleans_up(executed: tuple[dict, Path]) -> None:
    assert not list(executed[1].glob("smartsplat-*"))
