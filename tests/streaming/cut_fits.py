"""Fits that are killed, fail or are interrupted at a chosen step, for the tests of what they leave behind."""

from __future__ import annotations

import dataclasses
import os
import signal
from pathlib import Path

import numpy as np

from smartsplat_large.array_types import Moments
from smartsplat_large.config import PRESETS, FitConfig
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.progress import Silent
from smartsplat_large.render.base import Gradients, Projection
from smartsplat_large.render.cpu import CpuRenderer
from smartsplat_large.sampling import sample
from smartsplat_large.source import ArraySource
from smartsplat_large.streaming.checkpoint import Checkpoint
from smartsplat_large.streaming.fit import fit_gaussians
from smartsplat_large.streaming.plan import plan_fit
from smartsplat_large.streaming.state import Best
from smartsplat_large.streaming.workers import open_workers

CONFIG = dataclasses.replace(
    PRESETS["fast"].replace(ratio=None, gaussians=90, steps=12, relocate_every=3, solve_iterations=2), coarse_share=0.5
)
IDENTITY = {"version": "1", "state format": 1, "image": {}, "settings": {}, "plan": {}}


class Notes(Silent):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


class Killed(Exception):
    """Stands for the end of a process."""


class Steps(Silent):
    """Counts steps; the process is killed after the ``last`` of them, before anything is made of it."""

    def __init__(self, last: int = 0) -> None:
        self.last, self.taken = last, 0

    def advance(self, amount: float = 1, **facts: object) -> None:
        self.taken += "level" in facts
        if "level" in facts and self.taken == self.last:
            raise Killed


class Failing(Steps):
    """Raises ``error`` after the ``last`` step."""

    def __init__(self, last: int, error: Exception) -> None:
        super().__init__(last)
        self.error = error

    def advance(self, amount: float = 1, **facts: object) -> None:
        try:
            super().advance(amount, **facts)
        except Killed:
            raise self.error from None


class Signalled(CpuRenderer):
    """A renderer in whose n-th call for gradients a signal comes."""

    def __init__(self, at: int) -> None:
        self.at, self.calls = at, 0

    def gradients(
        self, gaussians: Gaussians, projection: Projection, moments: Moments, pitch: float, rows: slice, out: Gradients
    ) -> None:
        self.calls += 1
        if self.calls == self.at:
            os.kill(os.getpid(), signal.SIGINT)
        super().gradients(gaussians, projection, moments, pitch, rows, out)


def picture() -> ArraySource:
    y, x = np.mgrid[:160, :220]
    waves = 128 + 60 * np.sin(x / 9) + 50 * np.cos((x + 2 * y) / 15) + 30 * (x > y)
    return ArraySource(np.stack([waves, waves[::-1], 255 - waves], axis=2).clip(0, 255).astype(np.uint8), levels=3)


def opened(folder: Path, notes: Notes | None = None, *, resume: bool = True, interval_s: float = 0.0) -> Checkpoint:
    checkpoint = Checkpoint(folder, IDENTITY, notes or Notes(), interval_s=interval_s)
    checkpoint.open(folder.with_name("out"), resume=resume)
    return checkpoint


def fit(
    checkpoint: Checkpoint | None, config: FitConfig = CONFIG, *, steps: Steps | None = None,
    renderer: CpuRenderer | None = None, workers: int = 1, budget_bytes: int | None = None,
) -> Best:  # fmt: skip
    source, count = picture(), config.gaussians or 90
    plan = plan_fit(source.meta.size, 3, 1, count, config, memory_bytes=1 << 40, workers=1)
    checkpoint = checkpoint or Checkpoint.none(Silent())
    with open_workers(workers, progress=Silent()) as pool, checkpoint:
        initial = checkpoint.resumed_gaussians or sample(
            source.read, source.meta.size, 3, source.meta.dtype, count, config.sampling, 0, workers=1
        )
        return fit_gaussians(
            source, renderer or CpuRenderer(), initial, plan, config, pool, steps or Steps(), 0, checkpoint,
            budget_bytes,
        )  # fmt: skip


def assert_identical(a: Best, b: Best) -> None:
    assert (a.sums, a.loss, a.recent, a.rate, a.lost) == (b.sums, b.loss, b.recent, b.rate, b.lost)
    for column in ("xy", "scale", "rotation", "color"):
        np.testing.assert_array_equal(getattr(a.gaussians, column), getattr(b.gaussians, column))
