"""How long work tells the outside how far it is. The command line draws it; a notebook or a test may ignore it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives stages one after the other; called from one thread only."""

    def start(self, stage: str, total: float, unit: str) -> None:
        """A stage begins: ``total`` units of work, for example 400 ``"steps"``."""
        ...

    def advance(self, amount: float = 1, **facts: object) -> None:
        """``amount`` more units are done; ``facts`` are worth showing, for example ``psnr=31.2``."""
        ...

    def note(self, message: str) -> None:
        """Something a user should know, in one line: a dashboard's address, a quota filled another way."""
        ...


class Silent:
    """Shows nothing."""

    def start(self, stage: str, total: float, unit: str) -> None:
        pass

    def advance(self, amount: float = 1, **facts: object) -> None:
        pass

    def note(self, message: str) -> None:
        pass
