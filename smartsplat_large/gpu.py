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


def require() -> None:
    """Do nothing if kernels can run on a GPU here.

    Raises
    ------
    MissingDependencyError
        torch, Triton or a CUDA device is missing.
    """
    hint = "take the device cpu, or install torch built for CUDA (it brings Triton) where there is an NVIDIA GPU"
    try:
        ready = is_there() and importlib.util.find_spec("triton") is not None
    except ImportError as error:
        raise MissingDependencyError(f"the device cuda needs torch: {error}", hint=hint) from error
    if not ready:
        raise MissingDependencyError("the device cuda: torch and Triton see no GPU here", hint=hint)
