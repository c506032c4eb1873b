"""From nothing but Python 3.11 to an environment in which the recipes run. Standard library only, parses on 3.7.

``enter`` makes ``.venv`` beside ``pyproject.toml``, installs the package into it under ``constraints.txt``, and starts
the calling script again inside. A stamp in the environment tells a later run that there is nothing to do.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
STAMP = VENV / "installed.json"
CONSTRAINTS = ROOT / "constraints.txt"
OLDEST = (3, 11)


def enter(*requirements: str) -> None:
    """Return inside an environment that has ``requirements`` (as pip takes them, relative to the repository).

    Called outside it, installs what is missing, runs the calling script again inside, and exits as that did.
    """
    _require_python()
    inside = Path(sys.prefix).resolve() == VENV.resolve()
    if not _installed(requirements):
        _install(requirements)
    elif inside:
        return
    script = str(Path(sys.argv[0]).resolve())
    command = [str(_executable("python")), script, *sys.argv[1:]]
    if os.name == "nt":  # exec returns to the shell at once there
        raise SystemExit(subprocess.call(command))
    sys.stdout.flush()
    os.execv(command[0], command)


def script(name: str) -> str:
    """Path of a command that a package put into the environment."""
    return str(_executable(name))


def _executable(name: str) -> Path:
    return VENV / "Scripts" / (name + ".exe") if os.name == "nt" else VENV / "bin" / name


def _require_python() -> None:
    if sys.version_info < OLDEST:
        version = ".".join(map(str, sys.version_info[:3]))
        _fail(
            f"{sys.executable} is Python {version}, and smartsplat-large needs 3.11 or newer",
            f"python3.11 {sys.argv[0]}",
        )
    for module in ("venv", "ensurepip"):
        if importlib.util.find_spec(module) is None:
            _fail(
                f"{sys.executable} comes without its module {module}",
                "Debian and Ubuntu have it in a package of its own: sudo apt install python3-venv",
            )


def _fail(message: str, hint: str) -> NoReturn:
    print(f"error: {message}\nhint: {hint}", file=sys.stderr)
    raise SystemExit(2)


def _key() -> str:
    """Changes with everything that decides what gets installed, except the requirements."""
    parts = [(ROOT / "pyproject.toml").read_bytes(), CONSTRAINTS.read_bytes(), str(ROOT).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _stamped() -> list[str]:
    try:
        stamp = json.loads(STAMP.read_text())
        return list(stamp["requirements"]) if stamp["key"] == _key() else []
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _installed(requirements: tuple[str, ...]) -> bool:
    return _executable("python").exists() and set(requirements) <= set(_stamped())


def _install(requirements: tuple[str, ...]) -> None:
    start = time.monotonic()
    known = _stamped()
    if not _usable():
        print(f"Making the environment {VENV}", flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(VENV)], "Python could not make it; its message is above")
    print("Installing the packages into it (once; about 300 MB with the CPU build of torch)", flush=True)
    if sys.platform == "linux":
        _prefer_cpu_torch()
    arguments = [a for r in requirements for a in (["-e", r] if r.startswith(".") else [r])]
    _run(
        [*_pip(), *arguments],
        "its message is above; behind a proxy or a mirror, set pip's own PIP_* variables and run this again",
    )
    STAMP.write_text(json.dumps({"key": _key(), "requirements": sorted({*known, *requirements})}))
    print(f"Installed in {time.monotonic() - start:.0f} s\n", flush=True)


def _usable() -> bool:
    """Whether the environment is there, whole and not too old."""
    if not _executable("python").exists():
        return False
    probe = f"import sys, pip; sys.exit(sys.version_info < {OLDEST})"
    return subprocess.call([str(_executable("python")), "-c", probe], stderr=subprocess.DEVNULL) == 0


def _prefer_cpu_torch() -> None:
    pinned = re.search(r"^torch==([\w.]+)", CONSTRAINTS.read_text(), re.MULTILINE)
    if not pinned:
        return
    wanted = f"torch=={pinned.group(1)}+cpu"
    found = subprocess.run([*_pip(), wanted], cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if found.returncode:
        print(
            f"note: pip finds no {wanted}, the build without CUDA, and takes another, which may be several GB.\n"
            "      PIP_EXTRA_INDEX_URL set to PyTorch's index of CPU builds (see its installation page) avoids that.",
            flush=True,
        )


def _pip() -> list[str]:
    # Quiet twice: errors only. Warnings about a mirror's gaps are of no use to a newcomer.
    options = ["--quiet", "--quiet", "--disable-pip-version-check", "--no-input", "-c", str(CONSTRAINTS)]
    return [str(_executable("python")), "-m", "pip", "install", *options]


def _run(command: list[str], hint: str) -> None:
    if subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL).returncode:
        _fail(f"this failed: {' '.join(command)}", hint)
