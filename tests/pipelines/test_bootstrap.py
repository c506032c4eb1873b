"""The part of the recipes that runs before anything is installed."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

PIPELINES = Path(__file__).parents[2] / "pipelines"


class Version(NamedTuple):
    major: int
    minor: int
    micro: int


@pytest.fixture
def bootstrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, with an empty repository of its own and no command run in earnest."""
    spec = importlib.util.spec_from_file_location("bootstrap_under_test", PIPELINES / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("torch==2.13.0\n")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv" / "installed.json")
    monkeypatch.setattr(module, "CONSTRAINTS", tmp_path / "constraints.txt")
    return module


class Commands:
    """Records commands instead of running them; those that ask for ``missing`` fail."""

    def __init__(self, venv: Path, missing: str = "nothing") -> None:
        self.ran: list[list[str]] = []
        self.venv, self.missing = venv, missing

    def __call__(self, command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        self.ran.append(command)
        if "venv" in command:
            (self.venv / "bin").mkdir(parents=True)
            (self.venv / "bin" / "python").touch()
        return subprocess.CompletedProcess(command, int(self.missing in command))


@pytest.mark.parametrize("name", ["bootstrap.py", "quickstart.py", "check.py"])
def test_old_pythons_get_as_far_as_the_error(name: str) -> None:
    ast.parse((PIPELINES / name).read_text(), feature_version=(3, 7))


def test_an_old_python_is_refused_in_two_lines(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "version_info", Version(3, 9, 2))
    with pytest.raises(SystemExit) as stop:
        bootstrap.enter(".[dev]")
    error, hint = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert "is Python 3.9.2" in error
    assert hint.startswith("hint: python3.11")


def test_a_python_without_venv_is_refused(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ensurepip" else object())
    with pytest.raises(SystemExit):
        bootstrap.enter(".[dev]")
    assert "without its module ensurepip" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch has no other build")
@pytest.mark.parametrize("missing", ["nothing", "torch==2.13.0+cpu"])
def test_the_cpu_build_is_preferred_and_not_insisted_on(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    commands = Commands(bootstrap.VENV, missing)
    monkeypatch.setattr(subprocess, "run", commands)
    bootstrap._install((".[dashboard]", "pillow"))
    assert [command[-1] for command in commands.ran] == [str(bootstrap.VENV), "torch==2.13.0+cpu", "pillow"]
    assert commands.ran[-1][-3:-1] == ["-e", ".[dashboard]"]
    assert ("several GB" in capsys.readouterr().out) == (missing != "nothing")


def test_what_was_installed_is_not_installed_again_until_the_pins_change(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", Commands(bootstrap.VENV))
    assert not bootstrap._installed((".[dev]",))
    bootstrap._install((".[dev]",))
    assert bootstrap._installed((".[dev]",))
    assert not bootstrap._installed((".[dev]", "pillow"))
    bootstrap.CONSTRAINTS.write_text("torch==2.14.0\n")
    assert not bootstrap._installed((".[dev]",))


def test_a_failed_installation_leaves_no_stamp(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", Commands(bootstrap.VENV, missing="pillow"))
    with pytest.raises(SystemExit):
        bootstrap._install(("pillow",))
    assert not bootstrap._installed(("pillow",))
