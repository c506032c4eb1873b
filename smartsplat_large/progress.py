"""How long work tells the outside how far it is. The command line draws it; a notebook or a test may ignore it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

Costs: TypeAlias = Sequence[tuple[float, float]]
"""How many units come next, and what each of them takes beside the others, in the order of work."""


class Progress(Protocol):
    """Receives stages one after the other; called from one thread only."""

    def start(self, stage: str, total: float, unit: str, costs: Costs = ()) -> None:
        """A stage begins: ``total`` units of work, for example 400 ``"steps"``.

        ``costs`` says where some take more than others; those it does not reach take 1.
        """
        ...

    def advance(self, amount: float = 1, **facts: object) -> None:
        """``amount`` more units are done; ``facts`` are worth showing, for example ``psnr=31.2``."""
        ...

    def note(self, message: str) -> None:
        """Something a user should know, in one line: a dashboard's address, a quota filled another way."""
        ...


class Silent:
    """Shows nothing."""

    def start(self, stage: str, total: float, unit: str, costs: Costs = ()) -> None:
        pass

    def advance(self, amount: float = 1, **facts: object) -> None:
        pass

    def note(self, message: str) -> None:
        pass
