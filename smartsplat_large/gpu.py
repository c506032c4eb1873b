"""Whether there is a GPU to compute on."""

from __future__ import annotations

import importlib.util
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
    """Whether our kernels can run on a CUDA device here."""
    return importlib.util.find_spec("triton") is not None and is_there()


def require() -> None:
    """Do nothing if our kernels can run on a CUDA device here.

    Raises
    ------
    MissingDependencyError
        torch, Triton or the device is missing.
    """
    if not is_ready():
        raise MissingDependencyError(
            "the device cuda: torch and Triton see no GPU here",
            hint="take --device cpu; or install torch built for CUDA, which brings Triton, where there is an NVIDIA GPU",
        )
