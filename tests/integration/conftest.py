"""The command line in this process and as one of its own, with a temporary folder that must be left empty."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import smartsplat_large
from smartsplat_large.cli import run

PICTURE = Path(__file__).parents[1] / "data" / "mountain.png"


class Outcome(NamedTuple):
    """What a command line came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        values = json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        assert isinstance(values, dict)
        return values


Command = Callable[..., Outcome]
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def picture() -> Path:
    """256 x 192 pixels, 8-bit RGB."""
    return PICTURE


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The temporary folder of the commands; nothing may be left in it."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert sorted(path.name for path in folder.rglob("*")) == []


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], temporary: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """``command("fit", picture, "--ratio", 20)`` in this process, without a dashboard unless one is asked for."""
    monkeypatch.setattr("smartsplat_large.api.has_dashboard", lambda: False)

    def carry_out(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return carry_out


@pytest.fixture
def start(temporary: Path) -> Iterator[Start]:
    """``start("fit", picture)`` as a process of its own, which does not outlive the test."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: object, wrapper: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        words = [*wrapper, sys.executable, "-m", "smartsplat_large", *map(str, arguments)]
        process = subprocess.Popen(
            words, env=dict(os.environ), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The picture, fitted in a few steps at ratio 20."""
    path = tmp_path_factory.mktemp("fitted") / "mountain.ssplat"
    smartsplat_large.fit(PICTURE, path, config=smartsplat_large.preset("fast").replace(ratio=20.0, steps=12))
    return path


@pytest.fixture
def scene() -> Callable[..., np.ndarray]:
    """``scene(height, width, channels, dtype)``: smooth colours with an edge, as photographs have them."""

    def paint(height: int, width: int, channels: int, dtype: Any = np.uint8) -> np.ndarray:
        y, x = np.mgrid[:height, :width] / max(height, width)
        planes = [
            0.5 + 0.3 * np.sin(7 * x + i) * np.cos(5 * y - i) + 0.2 * (x > 0.5 * y + 0.2) for i in range(channels)
        ]
        return (np.stack(planes, axis=-1) * np.iinfo(dtype).max).clip(0, np.iinfo(dtype).max).astype(dtype)

    return paint


@pytest.fixture
def image(scene: Callable[..., np.ndarray], tmp_path: Path) -> Path:
    """A picture that a fit takes through two levels."""
    path = tmp_path / "a.npy"
    np.save(path, scene(260, 300, 3))
    return path
