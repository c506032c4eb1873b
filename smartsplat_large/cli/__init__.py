"""The command line: parse, call the package, show progress, map errors to exit codes."""

from __future__ import annotations

from smartsplat_large.cli.program import main, run

__all__ = ["main", "run"]
