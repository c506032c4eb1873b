"""Ctrl-C and SIGTERM end a run once, in order."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_pending = False


@contextlib.contextmanager
def interrupts() -> Iterator[None]:
    """Both signals raise ``KeyboardInterrupt``, the first time: a second one would cut the clean-up short."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    global _pending
    _pending = False
    before = {number: signal.signal(number, _raise) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check() -> None:
    """Raise again what Python has to swallow when it arrives in a callback or a destructor.

    Raises
    ------
    KeyboardInterrupt
        A signal came and the run is still going.
    """
    if _pending:
        raise KeyboardInterrupt


def _raise(number: int, frame: FrameType | None) -> None:
    global _pending
    if not _pending:
        _pending = True
        raise KeyboardInterrupt
