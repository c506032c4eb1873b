"""Where there is no GPU, asking for one is refused before anything is read or written."""

from pathlib import Path

import numpy as np
import pytest

import smartsplat_large
from smartsplat_large import gpu
from smartsplat_large.cli import run
from smartsplat_large.errors import MissingDependencyError, UsageError
from smartsplat_large.memory import PROGRAM, program_on


@pytest.fixture
def image(tmp_path: Path) -> Path:
    np.save(tmp_path / "image.npy", np.zeros((40, 50, 3), np.uint8))
    return tmp_path / "image.npy"


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "is_there", lambda: False)


@pytest.mark.usefixtures("no_gpu")
def test_a_fit_says_so(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fit", str(image), "--device", "cuda"]) == 2
    error, hint = capsys.readouterr().err.splitlines()
    assert "no GPU here" in error
    assert "--device cpu" in hint
    assert [path.name for path in image.parent.iterdir()] == ["image.npy"]


@pytest.mark.usefixtures("no_gpu")
def test_a_decoding_says_so(image: Path) -> None:
    config = smartsplat_large.preset("fast").replace(gaussians=10, steps=0)
    fitted = smartsplat_large.fit(image, config=config).output
    with pytest.raises(MissingDependencyError, match="no GPU here"):
        smartsplat_large.decode(fitted, image.with_name("out.npy"), device="cuda")
    assert not image.with_name("out.npy").exists()


def test_a_cluster_has_none(image: Path) -> None:
    config = smartsplat_large.preset("fast").replace(device="cuda")
    with pytest.raises(UsageError, match="cluster"):
        smartsplat_large.fit(image, config=config, scheduler="tcp://127.0.0.1:1")


def test_its_libraries_are_counted() -> None:
    assert program_on("cuda") > program_on("cpu") == PROGRAM
