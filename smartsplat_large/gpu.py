"""Whether there is a GPU to compute on."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from smartsplat_large.errors import MissingDependencyError

_DEVICES = ("/dev/nvidiactl", "/dev/dxg")


def is_there() -> bool:
    """Whether torch sees a CUDA device here. Where there is none, torch (a second to import) stays out."""
    if sys.platform == "linux" and not any(Path(device).exists() for device in _DEVICES):
        return False
    import torch

    return bool(torch.cuda.is_available())


def is_ready() -> bool:
    """Whether our kernels can run on a CUDA device here: Triton compiles them, and their launchers with a C compiler."""
    compiler = any(map(shutil.which, (os.environ.get("CC") or "gcc", "clang")))
    return compiler and importlib.util.find_spec("triton") is not None and is_there()


def is_for_computing() -> bool:
    """Whether the device is of a data centre's kind, half as fast in float64 as in float32; there must be one."""
    import torch

    major, minor = torch.cuda.get_device_capability()
    return bool(major >= 6 and minor == 0)


def require() -> None:
    """Do nothing if our kernels can run on a CUDA device here.

    Raises
    ------
    MissingDependencyError
        torch, Triton, a C compiler or the device is missing.
    """
    if not is_ready():
        raise MissingDependencyError(
            "the device cuda: torch and Triton see no GPU here, or no C compiler",
            hint="take --device cpu, or, where there is an NVIDIA GPU, install gcc and torch for CUDA, which brings Triton",
        )
