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

GOLDEN, MEMORY = "tests/golden", "tests/integration/test_resident_memory.py"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fast", action="store_true", help="leave out tests/integration")
    fast = parser.parse_args().fast
    bootstrap.enter(".[dev]")
    python = [sys.executable, "-m"]
    lint = {
        "ruff check": [*python, "ruff", "check", "."],
        "ruff format": [*python, "ruff", "format", "--check", "."],
        "mypy": [*python, "mypy"],
        "lint-imports": [bootstrap.script("lint-imports")],
    }
    tests = {
        # A busy machine would miss some of what a process holds.
        "pytest, memory": [*python, "pytest", MEMORY],
        "pytest": [*python, "pytest", "-n", "2", "--dist", "worksteal", f"--ignore={GOLDEN}", f"--ignore={MEMORY}"],
    }
    if fast:
        tests = {"pytest": [*tests["pytest"], "--ignore=tests/integration"]}
    start = time.monotonic()
    # Its fits compile most kernels, which two processes would both compile; meanwhile mypy has the other core.
    with subprocess.Popen(
        [*python, "pytest", GOLDEN], cwd=bootstrap.ROOT, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as golden:  # fmt: skip
        results = {name: run(name, command) for name, command in lint.items()}
        announce("pytest, golden")
        print(golden.communicate()[0], end="")
    results["pytest, golden"] = (golden.returncode == 0, time.monotonic() - start)
    results |= {name: run(name, command) for name, command in tests.items()}
    print("\n── summary " + "─" * 40)
    for name, (passed, seconds) in results.items():
        print(f"{'ok    ' if passed else 'FAILED'}  {name:<14} {seconds:7.1f} s")
    return 0 if all(passed for passed, _ in results.values()) else 1


def announce(name: str) -> None:
    print(f"\n── {name} " + "─" * (50 - len(name)), flush=True)


def run(name: str, command: list[str]) -> tuple[bool, float]:
    """Whether the step passed, and its seconds."""
    announce(name)
    start = time.monotonic()
    done = subprocess.run(command, cwd=bootstrap.ROOT, stdin=subprocess.DEVNULL)
    return done.returncode == 0, time.monotonic() - start


if __name__ == "__main__":
    raise SystemExit(main())
