"""Huge images as small files of 2-D Gaussians, and back: any window, at any zoom.

Importing the package costs nothing; what it offers is loaded when it is first named.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smartsplat_large import errors
    from smartsplat_large.api import decode, evaluate, fit, info, ingest, open
    from smartsplat_large.comparison import compare
    from smartsplat_large.config import FitConfig, preset, read_toml
    from smartsplat_large.gaussians import Gaussians
    from smartsplat_large.lattice import Window
    from smartsplat_large.picture import SplatImage
    from smartsplat_large.reports import Comparison, Evaluation, FitReport

__version__ = "0.1.0"

_HOMES = {
    "api": ("decode", "evaluate", "fit", "info", "ingest", "open"),
    "comparison": ("compare",),
    "config": ("FitConfig", "preset", "read_toml"),
    "gaussians": ("Gaussians",),
    "lattice": ("Window",),
    "picture": ("SplatImage",),
    "reports": ("Comparison", "Evaluation", "FitReport"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Comparison",
    "Evaluation",
    "FitConfig",
    "FitReport",
    "Gaussians",
    "SplatImage",
    "Window",
    "__version__",
    "compare",
    "decode",
    "errors",
    "evaluate",
    "fit",
    "info",
    "ingest",
    "open",
    "preset",
    "read_toml",
]


def __getattr__(name: str) -> object:
    if name == "errors":
        return importlib.import_module("smartsplat_large.errors")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"smartsplat_large.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
