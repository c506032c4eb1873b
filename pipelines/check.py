"""Everything that CI runs: lint, format, types, layers, tests. Sets its environment up by itself.

    python3 pipelines/check.py [--fast]

``--fast`` leaves out the tests of whole runs (tests/integration).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import bootstrap

ALONE = ["tests/golden", "tests/integration/test_resident_memory.py"]
"""Tests that come first, one at a time: whole fits compile most kernels, which two processes would both compile; and what a
process holds is looked at so often that a busy machine would miss some of it."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fast", action="store_true", help="leave out tests/integration")
    fast = parser.parse_args().fast
    bootstrap.enter(".[dev]")
    python = [sys.executable, "-m"]
    alone = [path for path in ALONE if not (fast and path.startswith("tests/integration"))]
    ignored = [f"--ignore={path}" for path in (*ALONE, *(["tests/integration"] if fast else []))]
    steps = {
        "ruff check": [*python, "ruff", "check", "."],
        "ruff format": [*python, "ruff", "format", "--check", "."],
        "mypy": [*python, "mypy"],
        "lint-imports": [bootstrap.script("lint-imports")],
        "pytest, alone": [*python, "pytest", *alone],
        "pytest": [*python, "pytest", "-n", "2", "--dist", "worksteal", *ignored],
    }
    results = {name: run(name, command) for name, command in steps.items()}
    print("\n── summary " + "─" * 40)
    for name, (passed, seconds) in results.items():
        print(f"{'ok    ' if passed else 'FAILED'}  {name:<14} {seconds:7.1f} s")
    return 0 if all(passed for passed, _ in results.values()) else 1


def run(name: str, command: list[str]) -> tuple[bool, float]:
    """Whether the step passed, and its seconds."""
    print(f"\n── {name} " + "─" * (50 - len(name)), flush=True)
    start = time.monotonic()
    done = subprocess.run(command, cwd=bootstrap.ROOT, stdin=subprocess.DEVNULL)
    return done.returncode == 0, time.monotonic() - start


if __name__ == "__main__":
    raise SystemExit(main())
