"""Where there is no GPU, asking for one is refused before anything is read or written."""

from pathlib import Path

import numpy as np
import pytest

import smartsplat_large
from smartsplat_large import gpu
from smartsplat_large.cli import run
from smartsplat_large.errors import MemoryLimitError, MissingDependencyError, UsageError
from smartsplat_large.lattice import Size
from smartsplat_large.memory import PROGRAM, GiB, program_on
from smartsplat_large.source import ImageMeta
from smartsplat_large.streaming.device import allow_on_device, device_for


@pytest.fixture
def image(tmp_path: Path) -> Path:
    np.save(tmp_path / "image.npy", np.zeros((40, 50, 3), np.uint8))
    return tmp_path / "image.npy"


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "missing", lambda: "torch sees no GPU here")


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


@pytest.mark.parametrize(
    ("there", "installed", "compiler", "said"),
    [
        (True, True, True, None),
        (False, True, True, "no GPU"),
        (True, False, True, "Triton is not"),
        (True, True, False, "C compiler"),
    ],
)
def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, there: bool, installed: bool, compiler: bool, said: str | None
) -> None:
    monkeypatch.setattr(gpu, "is_there", lambda: there)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr("shutil.which", lambda name: name if compiler else None)
    assert gpu.is_ready() == (said is None)
    if said is not None:
        with pytest.raises(MissingDependencyError, match=said):
            gpu.require()


def test_a_cluster_has_none(image: Path) -> None:
    config = smartsplat_large.preset("fast").replace(device="cuda")
    with pytest.raises(UsageError, match="cluster"):
        smartsplat_large.fit(image, config=config, scheduler="tcp://127.0.0.1:1")


def test_its_libraries_are_counted() -> None:
    assert program_on("cuda") > program_on("cpu") == PROGRAM


LARGE, BALANCED = Size(2048, 2048), smartsplat_large.preset("balanced").replace(device="auto")


@pytest.fixture
def kind(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """A GPU of a data centre, which a test may turn into another kind."""
    kind = {"ready": True, "for computing": True}
    monkeypatch.setattr(gpu, "is_ready", lambda: kind["ready"])
    monkeypatch.setattr(gpu, "is_for_computing", lambda: kind["for computing"])
    return kind


def test_auto_takes_a_gpu_where_that_was_measured(kind: dict[str, bool]) -> None:
    assert device_for(LARGE, BALANCED) == "cuda"
    assert device_for(LARGE, BALANCED.replace(steps=60)) == "cpu"
    assert device_for(LARGE, BALANCED, elsewhere=True) == "cpu"
    assert device_for(Size(50_000, 50_000), BALANCED) == "cpu"
    assert device_for(LARGE, BALANCED.replace(device="cpu")) == "cpu"
    for name in kind:
        kind[name] = False
        assert device_for(LARGE, BALANCED) == "cpu"
        kind[name] = True


@pytest.mark.usefixtures("kind")
def test_auto_does_without_where_memory_is_short() -> None:
    meta = ImageMeta(
        name="image", format="npy", levels=(LARGE,), dtype=np.dtype(np.uint8), channels=3, tile=None, cheap_windows=True
    )
    assert allow_on_device(meta, BALANCED, 4 * GiB, 4)[0].device == "cuda"
    config, allowed = allow_on_device(meta, BALANCED, 5 * GiB // 4, 4)
    assert config.device == "cpu"
    assert allowed.plan.footprint.program == PROGRAM
    with pytest.raises(MemoryLimitError):
        allow_on_device(meta, BALANCED.replace(device="cuda"), 5 * GiB // 4, 4)
