"""Adam over the columns of all Gaussians, in one fused pass: chain rule to the raw variables, moments, step, clamps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Float32, Float64
from numba import njit

from smartsplat_large import columns
from smartsplat_large.array_types import Index, Xy
from smartsplat_large.config import OptimizerConfig
from smartsplat_large.fitting.rate import FREE, RatePrice
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Size
from smartsplat_large.render.base import Gradients, Spread, at_once

MIN_SCALE = 0.2
"""Smallest standard deviation in pixels: below it a Gaussian hides between pixel centres and its gradient with it."""


_ALL = slice(None)
COLUMNS = ("xy", "raw", "mean", "square")

GradientsOf = Callable[[slice], Iterable[tuple[slice, Gradients]]]
"""Gradients of some rows, in parts: consecutive rows, and the gradients of those alone."""


@dataclass(slots=True)
class AdamState:
    """Raw variables and moments of N Gaussians. Mutable: one step changes it in place."""

    config: OptimizerConfig
    xy: Xy
    raw: Float32[np.ndarray, "n v"]
    """Two raw scales, the raw rotation, the colours."""
    mean: Float32[np.ndarray, "n w"]
    square: Float32[np.ndarray, "n w"]
    """First and second moments: two for xy, then as ``raw``."""
    rate_xy: tuple[float, float]
    """Pixels that one unit of ``lr_xy`` stands for, along x and y; for ``own``, standard deviations, along its own axes."""
    max_scale: float
    steps: int = 0

    @classmethod
    def start(cls, gaussians: Gaussians, size: Size, config: OptimizerConfig) -> Self:
        """Fresh moments around ``gaussians``."""
        n, channels = gaussians.color.shape
        paper = config.parametrisation == "paper"
        raw = columns.empty((n, 3 + channels), np.float32)
        for rows in columns.chunks(n):
            some = raw[rows]
            if paper:
                some[:, :2] = gaussians.scale[rows]
                turns = np.mod(gaussians.rotation[rows] / (2 * np.pi) + 0.5, 1).clip(1e-6, 1 - 1e-6)
                some[:, 2] = np.log(turns / (1 - turns))
            else:
                some[:, :2] = np.log(gaussians.scale[rows])
                some[:, 2] = gaussians.rotation[rows]
            some[:, 3:] = gaussians.color[rows]
        spacing = 1.0 if config.parametrisation == "own" else math.sqrt(size.pixels / max(n, 1))
        rate_xy = (size.width / 2, size.height / 2) if paper else (spacing, spacing)
        mean, square = (columns.zeros((n, 5 + channels), np.float32) for _ in range(2))
        return cls(config, columns.copied(gaussians.xy), raw, mean, square, rate_xy, 2.0 * max(size.width, size.height))

    def __len__(self) -> int:
        return len(self.xy)

    def all_gaussians(self) -> Gaussians:
        """The Gaussians that these raw variables stand for, as columns of their own."""
        found = Gaussians.room(len(self), self.raw.shape[1] - 3)
        for rows in columns.chunks(len(self)):
            found.put(rows, self.gaussians(rows))
        return found

    def gaussians(self, rows: Index | slice = _ALL) -> Gaussians:
        """The same of few rows, or of a state that has few."""
        raw = _rows_of(self.raw, rows)
        if self.config.parametrisation == "paper":
            scale = np.maximum(np.abs(raw[:, :2]), np.float32(MIN_SCALE))
            # The paper starts at rho = 0, half a turn, which is the same ellipse as no turn.
            rotation = np.float32(2 * np.pi) / (1 + np.exp(-raw[:, 2])) - np.float32(np.pi)
        else:
            scale, rotation = np.exp(raw[:, :2]), raw[:, 2].copy()
        return Gaussians(_rows_of(self.xy, rows).copy(), scale, rotation, raw[:, 3:].copy())

    def take(self, rows: Index | slice) -> AdamState:
        """Some rows as a state of their own: copied, or of a slice as views."""
        xy, raw, mean, square = (_rows_of(column, rows) for column in (self.xy, self.raw, self.mean, self.square))
        return AdamState(self.config, xy, raw, mean, square, self.rate_xy, self.max_scale, self.steps)

    def put(self, rows: Index, part: AdamState) -> None:
        """The inverse of :meth:`take`; steps are counted for all rows at once, and stay."""
        for name in COLUMNS:
            column = getattr(self, name)
            if not column.flags.writeable:  # a GPU has the same
                column = columns.copied(column)
                setattr(self, name, column)
            column[rows] = getattr(part, name)

    def copy(self) -> AdamState:
        """One that steps do not change along with this, in memory."""
        xy, raw, mean, square = (getattr(self, name).copy() for name in COLUMNS)
        return AdamState(self.config, xy, raw, mean, square, self.rate_xy, self.max_scale, self.steps)

    def returned_to(self, gaussians: Gaussians, size: Size) -> AdamState:
        """``gaussians`` as a state that stands still, and still knows how large their gradients are.

        Without that every variable would move by its full rate at the next step, and the loss would be lost again.
        """
        state = AdamState.start(gaussians, size, self.config)
        for rows in columns.chunks(len(state)):
            known = np.isfinite(self.square[rows]).all(axis=1)
            state.square[rows][known] = self.square[rows][known]
        state.steps, state.rate_xy = self.steps, self.rate_xy
        return state

    def replaced(self, index: Index, gaussians: Gaussians, size: Size) -> AdamState:
        """One with ``gaussians`` in the rows ``index``, of fresh moments; rows come or go where they are more or fewer."""
        fresh = AdamState.start(gaussians, size, self.config)
        shared = min(len(index), len(fresh))
        found = self._joined(fresh, shared)
        for rows in columns.chunks(shared):
            found.put(index[rows], fresh.take(rows))
        if len(index) == shared:
            return found
        stays = columns.empty(len(self), bool)
        stays[:] = True
        stays[index[shared:]] = False
        return found.chosen(columns.true_rows(stays))

    def _joined(self, others: AdamState, first: int) -> AdamState:
        """All rows, and those of ``others`` from the ``first`` on."""
        xy, raw, mean, square = (
            columns.joined([getattr(self, name), getattr(others, name)[first:]]) for name in COLUMNS
        )
        return AdamState(self.config, xy, raw, mean, square, self.rate_xy, self.max_scale, self.steps)

    def chosen(self, index: Index) -> AdamState:
        """As :meth:`take`, for nearly all rows, or another order of them: as columns, which need not be in memory."""
        xy, raw, mean, square = (columns.taken(getattr(self, name), index) for name in COLUMNS)
        return AdamState(self.config, xy, raw, mean, square, self.rate_xy, self.max_scale, self.steps)

    def step(self, gradients: GradientsOf, rate: float, spread: Spread = at_once, price: RatePrice = FREE) -> None:
        """One Adam step; ``rate`` is a factor on every learning rate, ``spread`` calls with parts of the rows."""
        c = self.config
        self.steps += 1
        bias_1, bias_2 = 1 - c.beta1**self.steps, 1 - c.beta2**self.steps
        rates = learning_rates(c, self.rate_xy, self.raw.shape[1] - 3)

        def step_rows(part: slice) -> None:
            for rows, d in gradients(part):
                _step(
                    self.xy[rows], self.raw[rows], self.mean[rows], self.square[rows],
                    d.xy, d.scale, d.rotation, d.color,
                    rates * (rate / bias_1), c.beta1, c.beta2, c.epsilon, bias_2,
                    c.parametrisation == "paper", c.parametrisation == "own", self.max_scale, price.strength, price.step_energy,
                )  # fmt: skip

        spread(step_rows, len(self))


def _rows_of(column: np.ndarray, rows: Index | slice) -> np.ndarray:
    """Some rows of a column; numpy's take is up to twenty times as fast as its brackets where rows are short."""
    return column[rows] if isinstance(rows, slice) else column.take(rows, axis=0)


def learning_rates(config: OptimizerConfig, rate_xy: tuple[float, float], channels: int) -> Float64[np.ndarray, " w"]:
    """One of each variable, as moments have them."""
    xy = [config.lr_xy * rate_xy[0], config.lr_xy * rate_xy[1]]
    return np.array([*xy, config.lr_scale, config.lr_scale, config.lr_rotation, *[config.lr_color] * channels])


@njit(cache=True, nogil=True, error_model="numpy")
def _step(
    xy: Any, raw: Any, mean: Any, square: Any, d_xy: Any, d_scale: Any, d_rotation: Any, d_color: Any,
    rates: Any, beta1: float, beta2: float, epsilon: float, bias_2: float, paper: bool, own: bool, max_scale: float,
    strength: float, step_energy: float,
) -> None:  # fmt: skip
    n, width = mean.shape
    gradient, shift, scale = np.empty(width), np.empty(2), np.empty(2)
    low, high = math.log(MIN_SCALE), math.log(max_scale)
    for i in range(n):
        gradient[0], gradient[1] = d_xy[i, 0], d_xy[i, 1]
        for j in range(2):
            v = np.float64(raw[i, j])
            scale[j] = max(abs(v), MIN_SCALE) if paper else math.exp(v)
        # The rate's derivative by the logarithm of the energy: half a number of nats.
        area, squared = scale[0] * scale[1], 0.0
        for j in range(5, width):
            squared += np.float64(raw[i, j - 2]) ** 2
        slope = 0.5 * strength * area / (step_energy + squared * area)
        for j in range(2):
            sign = 1.0 if raw[i, j] >= 0 else -1.0
            gradient[2 + j] = (d_scale[i, j] + slope * squared / scale[j]) * (sign if paper else scale[j])
        gradient[4] = d_rotation[i]
        if paper:
            turns = 1 / (1 + math.exp(-raw[i, 2]))
            gradient[4] *= 2 * math.pi * turns * (1 - turns)
        for j in range(5, width):
            gradient[j] = d_color[i, j - 5] + 2 * slope * raw[i, j - 2]
        if own:
            along, across = scale[0], scale[1]
            cosine, sine = math.cos(raw[i, 2]), math.sin(raw[i, 2])
            x, y = gradient[0], gradient[1]
            gradient[0], gradient[1] = (cosine * x + sine * y) * along, (cosine * y - sine * x) * across
        for j in range(width):
            g = gradient[j]
            m = beta1 * mean[i, j] + (1 - beta1) * g
            s = beta2 * square[i, j] + (1 - beta2) * g * g
            mean[i, j], square[i, j] = m, s
            move = rates[j] * m / (math.sqrt(s / bias_2) + epsilon)
            if j < 2:
                shift[j] = move
            else:
                raw[i, j - 2] -= move
        if own:
            u, v = shift[0] * along, shift[1] * across
            shift[0], shift[1] = cosine * u - sine * v, sine * u + cosine * v
        xy[i, 0] -= shift[0]
        xy[i, 1] -= shift[1]
        for j in range(2):
            if paper:
                raw[i, j] = min(max(raw[i, j], -max_scale), max_scale)
            else:
                raw[i, j] = min(max(raw[i, j], low), high)
