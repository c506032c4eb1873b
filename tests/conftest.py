"""For all tests: steady properties, and no compiled kernel that is older than what it was made from."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

PACKAGE = Path(__file__).parents[1] / "smartsplat_large"

# The first example of a property may compile a kernel; and the same examples every time, so that a red run stays red.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Remove stale kernels: numba's cache notices a change in a kernel's own file, not in one that it was inlined from."""
    if hasattr(session.config, "workerinput"):  # of pytest-xdist; whoever started it has removed them
        return
    inlined = [*PACKAGE.glob("*.py"), PACKAGE / "codec" / "contexts.py"]
    shared = [path.stat().st_mtime for path in inlined]
    for folder in {path.parent for path in PACKAGE.rglob("*.py")}:
        newest = max([*shared, *(path.stat().st_mtime for path in folder.glob("*.py"))])
        for compiled in folder.glob("__pycache__/*.nb[ci]"):
            if compiled.stat().st_mtime < newest:
                compiled.unlink(missing_ok=True)
