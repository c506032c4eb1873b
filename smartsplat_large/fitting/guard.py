"""When a descent is lost: one rule for a whole fit and for the visits of a block."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from smartsplat_large.fitting.loss import NEGLIGIBLE


class Checkable(Protocol):
    """Gaussians, or what stands for them."""

    @property
    def is_finite(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Patience:
    """How a fit takes a loss that rises."""

    tolerance: float
    """A loss this many times the best one of late means that the steps were too long."""
    recovery: float
    """By which halved rates grow again with every good step, until they are whole."""

    def is_lost(self, gaussians: Checkable, loss: float, recent: float) -> bool:
        """Whether a state is no place to go on from, where the best one of late had a loss of ``recent``.

        A Gaussian that is not a number renders as nothing: its loss does not tell.
        """
        return not (gaussians.is_finite and math.isfinite(loss)) or loss > self.tolerance * max(recent, NEGLIGIBLE)


STRICT = Patience(2.0, 1.0)
"""Without moves of budget, as within a visit, a jump of the loss says that the rates are too high for good."""
MOVING = Patience(3.0, 1.01)
"""What was just moved may double the loss for a few steps, time and again."""
