"""The CUDA renderer where Triton is installed: on a GPU, or else interpreted, which shows all but speed and compilation."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable

from smartsplat_large import gpu
from smartsplat_large.render.base import BlockRenderer
from smartsplat_large.render.cuda import CudaRenderer

Kind = Callable[..., BlockRenderer]


def kind_of_cuda() -> Kind | None:
    """Makes CUDA renderers; None without Triton."""
    if importlib.util.find_spec("triton") is None:
        return None
    if gpu.is_there():
        return CudaRenderer
    os.environ["TRITON_INTERPRET"] = "1"
    return functools.partial(CudaRenderer, device="cpu")


CUDA = kind_of_cuda()
INTERPRETED = "TRITON_INTERPRET" in os.environ
