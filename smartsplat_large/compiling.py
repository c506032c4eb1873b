"""When numba compiles kernels, and for how long: on the first run only, for it caches them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from numba.core import event


class Compiling(event.Listener):  # type: ignore[misc]
    """Seconds for which kernels were being compiled: counted once, however many threads wait for one, or one for another.

    ``changed`` is called with whether they are, on the thread that compiles.
    """

    def __init__(self, changed: Callable[[bool], None]) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._under_way, self._since, self._past_s = 0, 0.0, 0.0

    def on_start(self, _: Any) -> None:
        with self._lock:
            self._under_way += 1
            begins = self._under_way == 1
            if begins:
                self._since = time.monotonic()
        if begins:
            self._changed(True)

    def on_end(self, _: Any) -> None:
        with self._lock:
            self._under_way -= 1
            ends = self._under_way == 0
            if ends:
                self._past_s += time.monotonic() - self._since
        if ends:
            self._changed(False)

    def seconds(self) -> float:
        """All of them, up to now."""
        with self._lock:
            return self._past_s + (time.monotonic() - self._since if self._under_way else 0.0)


@contextlib.contextmanager
def watched(changed: Callable[[bool], None]) -> Iterator[Compiling]:
    """What is compiled within a ``with`` block, by any thread."""
    compiling = Compiling(changed)
    with event.install_listener("numba:compile", compiling):
        yield compiling
