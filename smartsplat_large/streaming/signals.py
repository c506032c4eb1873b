"""Changes that Ctrl-C must not cut in half."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off what SIGINT and SIGTERM do in Python, until the ``with`` block has ended.

    Signals that Python does not handle (ignored, or left to the system) are left alone, and so are threads other than
    the main one, which no signal reaches.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[tuple[int, FrameType | None]] = []

    def put_off(number: int, frame: FrameType | None) -> None:
        arrived.append((number, frame))

    usual = {int(number): handler for number in _SIGNALS if callable(handler := signal.getsignal(number))}
    try:
        for number in usual:
            signal.signal(number, put_off)
        yield
    finally:
        for number, handler in usual.items():
            if signal.getsignal(number) is put_off:
                signal.signal(number, handler)
        if arrived:
            # Once: the second of two signals must not cut short what the first one sets going.
            number, frame = arrived[0]
            usual[number](number, frame)
