"""Gaussians to integers and back.

Everything follows from one step, the *amplitude step* d. What is quantised is not the colour ``c`` but the amplitude
``a = c sqrt(sx sy)``: the energy of a Gaussian is ``pi a^2``, so a uniform step in ``a`` spreads the squared error
evenly over Gaussians of every size. With ``K = |a| / d`` over all channels, equal error per attribute asks for

    log-scale steps of sqrt(2) / K,   rotation steps of 2 / (K (r - 1/r)) with r = sx/sy,
    position steps of sqrt(2) / (K sqrt(w)) with w the diagonal of the inverse covariance,

that is, faint or round Gaussians spend few bits on their shape and place. K comes as a symbol of its own, the *octave*,
so that the geometry stands before the colours do: colours can be solved and rounded against the geometry as it will be
decoded, and are better predicted for knowing their magnitude. The number of levels of each attribute must come out the
same on every machine: it is computed from decoded integers with IEEE additions, multiplications, divisions and square
roots only, never libm.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from jaxtyping import Bool, Float64, Int8, Int32, Int64
from numba import njit

from smartsplat_large import columns
from smartsplat_large.array_types import Index, Rotation, Scale, Xy
from smartsplat_large.gaussians import Gaussians

MEAN_STEP = 1.5
"""Step of the mean log-scale (nats), times ``2**octave``."""
ASPECT_STEP = 3.0
"""Step of the log aspect ratio ``ln(sx/sy)``, times ``2**octave``."""
TURN_DENSITY = 1.0
"""Rotation levels per ``2**octave (r - 1/r)``."""
PLACE_DENSITY = 0.5
"""Position levels per ``2**octave sqrt(w)`` and pixel."""
STEPS_PER_OCTAVE = 64
"""Resolution of the amplitude step, and so of the fineness."""
UNIT_STEP = 0.01
"""Amplitude step, in mean spacings of the Gaussians, that is called fineness 1: noise of roughly 40 dB at any ratio."""

ROWS = columns.ROWS // 4
"""Gaussians that are made symbols, or symbols that are made Gaussians, at a time: either takes up to 300 bytes of each."""

MAX_STEP_INDEX = 40 * STEPS_PER_OCTAVE
"""With this step, and below, every colour that symbols can say is a finite float32."""
MAX_AMPLITUDE = 1 << 28
MAX_OCTAVE = 24
MAX_TURNS = 1 << 18
MAX_PLACES = 1 << 22
MAX_LOG_SCALE = 40.0
_LOG2_E = 1.4426950408889634
_MIDDLE_POWER = 400
_POWERS = np.ldexp(1.0, np.arange(-_MIDDLE_POWER, _MIDDLE_POWER + 1))

IntColumn = Int64[np.ndarray, "n"]
FloatColumn = Float64[np.ndarray, "n"]
BoolColumn = Bool[np.ndarray, "n"]

# Luma and two chromas: orthonormal, so that a squared error is the same before and after.
_THIRD, _HALF, _SIXTH = math.sqrt(1 / 3), math.sqrt(1 / 2), math.sqrt(1 / 6)
_RGB = np.array([[_THIRD, _THIRD, _THIRD], [_HALF, 0, -_HALF], [_SIXTH, -2 * _SIXTH, _SIXTH]])


def color_transform(channels: int) -> Float64[np.ndarray, "c c"]:
    """Rows are the coded components: luma first; with 3 or 4 channels two chromas; alpha last and untouched."""
    transform = np.eye(channels)
    if channels >= 3:
        transform[:3, :3] = _RGB
    return transform


@dataclass(frozen=True, slots=True)
class Symbols:
    """N quantised Gaussians: integers only. ``turn`` and ``place`` count within the levels that the rest implies."""

    cell: Int64[np.ndarray, "n 2"]
    """Leaf cell ``(x, y)`` of the centre, in cells of side ``2**leaf`` pixels from the image's corner."""
    octave: IntColumn
    """1 to MAX_OCTAVE: the amplitude is about ``2**(octave - 1/2)`` steps. Decides how finely the geometry is coded."""
    mean: IntColumn
    aspect: IntColumn
    turn: IntColumn
    place: Int64[np.ndarray, "n 2"]
    color: Int64[np.ndarray, "n c"]

    def __len__(self) -> int:
        return len(self.mean)

    def take(self, index: Int64[np.ndarray, m]) -> Self:
        """The rows at ``index``."""
        return type(self)(*(getattr(self, field.name).take(index, axis=0) for field in dataclasses.fields(self)))

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """All parts in order; ``parts`` must not be empty."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True, slots=True)
class SymbolTable:
    """The symbols of all Gaussians of a file, see :mod:`~smartsplat_large.columns`, in the smallest types that hold them.

    It is computed with :class:`Symbols`, which are some rows of it.
    """

    cell: Int64[np.ndarray, "n 2"]
    octave: Int8[np.ndarray, "n"]
    mean: Int32[np.ndarray, "n"]
    aspect: Int32[np.ndarray, "n"]
    turn: Int32[np.ndarray, "n"]
    place: Int32[np.ndarray, "n 2"]
    color: Int32[np.ndarray, "n c"]

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def channels(self) -> int:
        return int(self.color.shape[1])

    @classmethod
    def empty(cls, count: int, channels: int) -> Self:
        """Room for ``count`` Gaussians, not initialised."""
        one, two = (count,), (count, 2)
        shapes = (two, one, one, one, one, two, (count, channels))
        kinds = (np.int64, np.int8, *5 * (np.int32,))
        return cls(*(columns.empty(shape, kind) for shape, kind in zip(shapes, kinds, strict=True)))

    @classmethod
    def of(cls, symbols: Symbols) -> Self:
        """A table of ``symbols``."""
        table = cls.empty(len(symbols), symbols.color.shape[1])
        table.put(slice(None), symbols)
        return table

    def take(self, rows: Index | slice) -> Symbols:
        """Some rows, copied."""
        if isinstance(rows, slice):
            return Symbols(*(column[rows].astype(np.int64) for column in self._columns))
        return Symbols(*(column.take(rows, axis=0).astype(np.int64, copy=False) for column in self._columns))

    def put(self, rows: Index | slice, symbols: Symbols) -> None:
        """Let some rows be ``symbols``."""
        for field, column in zip(dataclasses.fields(self), self._columns, strict=True):
            column[rows] = getattr(symbols, field.name)

    def chosen(self, index: Index) -> Self:
        """A table of nearly all rows."""
        return type(self)(*(columns.taken(column, index) for column in self._columns))

    @property
    def _columns(self) -> list[np.ndarray]:
        return [getattr(self, field.name) for field in dataclasses.fields(self)]


def amplitude_step(index: int) -> float:
    """The amplitude step (pixels times colour) that the file stores as ``index``."""
    return math.ldexp(2.0 ** (index % STEPS_PER_OCTAVE / STEPS_PER_OCTAVE), index // STEPS_PER_OCTAVE)


def fineness_to_index(fineness: float, spacing: float) -> int:
    """The index whose amplitude step is nearest to ``UNIT_STEP * spacing / fineness``; ``spacing`` in pixels."""
    return round(STEPS_PER_OCTAVE * math.log2(UNIT_STEP * spacing / fineness))


def index_to_fineness(index: int, spacing: float) -> float:
    """Inverse of :func:`fineness_to_index`."""
    return UNIT_STEP * spacing / amplitude_step(index)


def bit_length(values: IntColumn) -> IntColumn:
    """0 for 0, else ``1 + floor(log2(value))``; exact below 2**53."""
    return np.frexp(values.astype(np.float64))[1].astype(np.int64)


def log_mean_scale(octave: IntColumn, mean: IntColumn) -> FloatColumn:
    """``ln(sx sy) / 2`` that ``mean`` stands for."""
    return np.asarray(np.clip(np.ldexp(mean * MEAN_STEP, -octave), -MAX_LOG_SCALE, MAX_LOG_SCALE))


def log_aspect_ratio(octave: IntColumn, aspect: IntColumn) -> FloatColumn:
    """``ln(sx / sy)`` that ``aspect`` stands for."""
    return np.asarray(np.minimum(np.ldexp(aspect * ASPECT_STEP, -octave), MAX_LOG_SCALE))


def turn_levels(octave: IntColumn, aspect: IntColumn) -> IntColumn:
    """Number of rotations: 1 for a circle, otherwise even, so that both image axes are among them."""
    return np.asarray(_turn_levels(octave, aspect))


def place_levels(
    octave: IntColumn, mean: IntColumn, aspect: IntColumn, turn: IntColumn, turns: IntColumn, leaf: int
) -> Int64[np.ndarray, "n 2"]:
    """Number of positions per axis in a leaf cell of side ``2**leaf`` pixels; ``turns`` as by :func:`turn_levels`."""
    return np.asarray(_place_levels(octave, mean, aspect, turn, turns, leaf))


@njit(inline="always", error_model="numpy")
def _scaled(x: float, exponent: int) -> Any:
    """``x * 2**exponent``, as exact as ``ldexp`` and several times as fast."""
    return x * _POWERS[exponent + _MIDDLE_POWER]


@njit(inline="always", error_model="numpy")
def _rough_exp(log: float) -> Any:
    """``exp`` to 6 %: the straight lines between powers of two, reproducible to the last bit."""
    log2 = log * _LOG2_E
    floor = np.floor(log2)
    return _scaled(1.0 + (log2 - floor), np.int64(floor))


@njit(inline="always", error_model="numpy")
def _log_mean(octave: int, mean: int) -> Any:
    return min(max(_scaled(mean * MEAN_STEP, -octave), -MAX_LOG_SCALE), MAX_LOG_SCALE)


@njit(inline="always", error_model="numpy")
def _log_aspect(octave: int, aspect: int) -> Any:
    return min(_scaled(aspect * ASPECT_STEP, -octave), MAX_LOG_SCALE)


@njit(cache=True, nogil=True, error_model="numpy")
def _turn_levels(octave: Any, aspect: Any) -> Any:
    found = np.empty(len(octave), np.int64)
    for i in range(len(octave)):
        ratio = _rough_exp(_log_aspect(octave[i], aspect[i]))
        wanted = _scaled((ratio - 1.0 / ratio) * TURN_DENSITY, octave[i])
        found[i] = 1 if wanted < 1.0 else 2 * np.int64(np.floor(min(wanted, np.float64(MAX_TURNS)) * 0.5 + 0.5))
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def _place_levels(octave: Any, mean: Any, aspect: Any, turn: Any, turns: Any, leaf: int) -> Any:
    found = np.empty((len(octave), 2), np.int64)
    for i in range(len(octave)):
        log_mean, log_aspect = _log_mean(octave[i], mean[i]), _log_aspect(octave[i], aspect[i])
        long, short = _rough_exp(-2.0 * log_mean - log_aspect), _rough_exp(log_aspect - 2.0 * log_mean)
        part = turn[i] / turns[i]
        along = 4.0 * part * (1.0 - part)  # close to the squared cosine of the rotation, without calling for a cosine
        for axis in range(2):
            inverse = along * long + (1.0 - along) * short if axis == 0 else (1.0 - along) * long + along * short
            density = _scaled(np.sqrt(inverse) * PLACE_DENSITY, leaf + octave[i])
            found[i, axis] = 1 + np.int64(min(density, MAX_PLACES - 1.0))
    return found


@njit(cache=True, nogil=True, error_model="numpy")
def _geometry(
    octave: Any, mean: Any, aspect: Any, turn: Any, cell: Any, place: Any, turns: Any, levels: Any, leaf: int
) -> Any:
    """Mean log-scale, both log-scales, rotation and centre of decoded symbols."""
    n = len(octave)
    log_means, log_scale, rotation, xy = np.empty(n), np.empty((n, 2)), np.empty(n), np.empty((n, 2))
    for i in range(n):
        log_mean, log_aspect = _log_mean(octave[i], mean[i]), _log_aspect(octave[i], aspect[i])
        log_means[i] = log_mean
        log_scale[i, 0], log_scale[i, 1] = log_mean + 0.5 * log_aspect, log_mean - 0.5 * log_aspect
        rotation[i] = (turn[i] / turns[i] - 0.5 if turns[i] > 1 else 0.0) * np.pi
        for axis in range(2):
            xy[i, axis] = _scaled(cell[i, axis] + (place[i, axis] + 0.5) / levels[i, axis], leaf)
    return log_means, log_scale, rotation, xy


def quantize(gaussians: Gaussians, step: float, leaf: int) -> Symbols:
    """Nearest symbols for an amplitude step of ``step`` and leaf cells of side ``2**leaf`` pixels."""
    long, short, rotation = _canonical(gaussians)
    amplitude = gaussians.color.astype(np.float64) @ color_transform(gaussians.channels).T
    amplitude *= np.sqrt(long * short)[:, None] / step
    color = np.rint(np.clip(amplitude, -MAX_AMPLITUDE, MAX_AMPLITUDE)).astype(np.int64)
    # Of the rounded colour: what is decoded then quantises to itself.
    octave = np.clip((bit_length(np.einsum("nc,nc->n", color, color)) + 1) >> 1, 1, MAX_OCTAVE)
    log_long, log_short = np.log(long), np.log(short)
    mean = np.rint(np.ldexp((log_long + log_short) / (2 * MEAN_STEP), octave)).astype(np.int64)
    aspect = np.rint(np.ldexp((log_long - log_short) / ASPECT_STEP, octave)).astype(np.int64)
    return placed(octave, mean, aspect, rotation / np.pi + 0.5, gaussians.xy, leaf, color)


def placed(
    octave: IntColumn, mean: IntColumn, aspect: IntColumn, turned: FloatColumn, xy: Xy, leaf: int,
    color: Int64[np.ndarray, "n c"],
) -> Symbols:  # fmt: skip
    """Symbols with the nearest turn and place; ``turned`` is the rotation in half turns, plus a half."""
    turns = turn_levels(octave, aspect)
    turn = np.rint(turned * turns).astype(np.int64) % turns
    scaled = np.ldexp(xy, -leaf)
    cell = np.floor(scaled)
    levels = place_levels(octave, mean, aspect, turn, turns, leaf)
    place = np.minimum(((scaled - cell) * levels).astype(np.int64), levels - 1)
    return Symbols(cell.astype(np.int64), octave, mean, aspect, turn, place, color)


def dequantize(symbols: Symbols, step: float, leaf: int) -> Gaussians:
    """Gaussians in the middle of the symbols' cells, ``sx >= sy``, rotation in [-pi/2, pi/2)."""
    color = symbols.color
    log_mean, xy, scale, rotation = decoded_geometry(symbols, leaf)
    linear = (color * (step * np.exp(-log_mean))[:, None]) @ color_transform(color.shape[1])
    return Gaussians(xy, scale, rotation, linear.astype(np.float32))


def decoded_geometry(symbols: Symbols, leaf: int) -> tuple[FloatColumn, Xy, Scale, Rotation]:
    """Mean log-scale, centre, scale and rotation of what :func:`dequantize` makes of ``symbols``."""
    turns = turn_levels(symbols.octave, symbols.aspect)
    levels = place_levels(symbols.octave, symbols.mean, symbols.aspect, symbols.turn, turns, leaf)
    log_mean, log_scale, rotation, xy = _geometry(
        symbols.octave, symbols.mean, symbols.aspect, symbols.turn, symbols.cell, symbols.place, turns, levels, leaf
    )
    return log_mean, xy, np.exp(log_scale).astype(np.float32), rotation.astype(np.float32)


def _canonical(gaussians: Gaussians) -> tuple[FloatColumn, FloatColumn, FloatColumn]:
    """Longer axis, shorter axis, and the rotation of the longer one in [-pi/2, pi/2)."""
    first, second = gaussians.scale.astype(np.float64).T
    rotation = gaussians.rotation.astype(np.float64) + np.where(second > first, np.pi / 2, 0)
    rotation -= np.pi * np.floor(rotation / np.pi + 0.5)
    return np.maximum(first, second), np.minimum(first, second), rotation
