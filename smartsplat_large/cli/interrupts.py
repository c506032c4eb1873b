"""Ctrl-C and SIGTERM end a run once, in order."""

from __future__ import annotations

import signal
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_pending = False


def catch_signals() -> None:
    """For the rest of the process both signals raise ``KeyboardInterrupt``, once: a second must not cut the clean-up short."""
    for number in _SIGNALS:
        signal.signal(number, _interrupt)


def check() -> None:
    """Raise again what Python has to swallow where it arrives in a callback or a destructor.

    Raises
    ------
    KeyboardInterrupt
        A signal came, and the run is still going.
    """
    if _pending:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _pending
    _pending = True
    # Not by a flag: the interpreter gives up its handlers before it ends, and a second signal would still kill it then.
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt
