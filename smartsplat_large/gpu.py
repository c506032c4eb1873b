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


def missing() -> str | None:
    """What our kernels lack on a CUDA device here, Triton and the C compiler of its launchers among it; None: nothing."""
    if not is_there():
        return "torch sees no GPU here"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    compiler = any(map(shutil.which, (os.environ.get("CC") or "gcc", "clang")))
    return None if compiler else "Triton finds no C compiler"


def is_ready() -> bool:
    """Whether our kernels can run on a CUDA device here."""
    return missing() is None


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
    lack = missing()
    if lack is not None:
        raise MissingDependencyError(
            f"the device cuda: {lack}",
            hint="take --device cpu, or, where there is an NVIDIA GPU, install gcc and torch for CUDA, which brings Triton",
        )
