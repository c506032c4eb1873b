"""Settings as frozen values: one dataclass a stage, :class:`FitConfig` around them, the presets, TOML in and out.

A setting's meaning, unit and default stand here and nowhere else; the command line and the Python API refer to them.
"""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from smartsplat_large.errors import UsageError

Device = Literal["auto", "cpu", "cuda"]
NeighborSearch = Literal["kdtree", "keops"]

TARGETS = ("ratio", "bytes", "psnr", "gaussians")
"""What a fit may aim at; exactly one of them is given."""


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise UsageError(f"{name} = {value} is out of range", hint=f"it takes {allowed}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingConfig:
    """Initialisation, SmartSplat eqs. 9-21 and 23-39. The defaults are the paper's."""

    means: Literal["features", "random"] = "features"
    """Where points go: by features and exclusion, or uniformly at random (Table 3, full random)."""
    scales: Literal["features", "random"] = "features"
    """Scales from features and neighbours, or drawn at random (Table 3)."""
    colors: Literal["median", "random"] = "median"
    """Weighted medians (eqs. 18-20), or drawn at random (Table 3)."""
    tile: int = 1024
    """Side of a feature tile in pixels (eqs. 23-29)."""
    gradient_weight: float = 0.9
    """lambda of eq. 10: gradient against colour variance."""
    variational_share: float = 0.7
    """Share of the points drawn by features (eq. 21)."""
    neighbors: int = 3
    """K of eq. 17."""
    neighbor_search: NeighborSearch = "kdtree"
    """Who finds them: scipy, or KeOps, on a GPU where there is one. They find the same; docs/performance.md says how fast."""
    overlap: float = 1.0
    """Factor on all scales after eqs. 14 and 17; the paper's coverage (1.0) is thin."""

    def __post_init__(self) -> None:
        _require(64 <= self.tile <= 16384, "sampling.tile", self.tile, "64 to 16384")
        _require(0 <= self.gradient_weight <= 1, "sampling.gradient_weight", self.gradient_weight, "0 to 1")
        _require(0 <= self.variational_share <= 1, "sampling.variational_share", self.variational_share, "0 to 1")
        _require(1 <= self.neighbors <= 16, "sampling.neighbors", self.neighbors, "1 to 16")
        _require(0.1 <= self.overlap <= 10, "sampling.overlap", self.overlap, "0.1 to 10")


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """``l1 |r| + l2 r^2 + ssim (1 - SSIM)``, each a mean over pixels and channels; eq. 22 has l1 = 0.9, ssim = 0.1."""

    l1: float = 0.9
    l2: float = 0.0
    ssim: float = 0.1
    ssim_from: float = 0.0
    """Share of the steps, all before the last, that are taken without SSIM: it costs as much as rendering, and pays late."""
    rate: float = 0.0
    """Share of rounding in the squared error of the file to come: the fit saves bits accordingly (fitting/rate.py). 0: it
    does not care."""
    ssim_stride: Literal[1, 2] = 1
    """SSIM at every pixel, or at every other one each way: the same mean to within noise, in well under half the time."""

    def __post_init__(self) -> None:
        for name in ("l1", "l2", "ssim"):
            _require(
                0 <= getattr(self, name) < math.inf, f"loss.{name}", getattr(self, name), "finite numbers from 0 on"
            )
        _require(self.l1 + self.l2 + self.ssim > 0, "loss", self, "at least one weight above 0")
        _require(0 <= self.rate <= 10, "loss.rate", self.rate, "0 to 10")
        _require(self.ssim_stride in (1, 2), "loss.ssim_stride", self.ssim_stride, "1 or 2")
        _require(0 <= self.ssim_from <= 1, "loss.ssim_from", self.ssim_from, "0 to 1")
        _require(
            not self.ssim_from or self.l1 + self.l2 > 0,
            "loss.ssim_from", self.ssim_from, "0 where SSIM is the only term",
        )  # fmt: skip

    def without_ssim(self) -> LossConfig:
        """The pointwise terms alone."""
        return dataclasses.replace(self, ssim=0.0, ssim_from=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """Adam, one learning rate per attribute.

    ``paper``: means move in [-1, 1]-normalised coordinates, scales are ``|raw|`` in pixels, rotation is
    ``2 pi sigmoid(raw)``. ``own``: means move in units of each Gaussian's standard deviations, along its own axes, scales are
    ``exp(raw)``, rotation is ``raw`` in radians; the same rates then suit every picture, ratio and Gaussian. ``relative``: as
    ``own``, but means move in units of the mean spacing of all Gaussians.
    """

    parametrisation: Literal["paper", "relative", "own"] = "paper"
    lr_xy: float = 1e-4
    lr_scale: float = 5e-2
    lr_rotation: float = 1e-3
    lr_color: float = 5e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-15
    decay_share: float = 0.0
    """Share of the steps, at the end, over which all rates fall; 0 keeps them constant."""
    decay: Literal["linear", "cosine"] = "linear"
    """Along a straight line, or slowly at first and at last: half a period of a cosine."""
    decay_floor: float = 0.02
    """What the rates fall to, as a share of their start."""

    def __post_init__(self) -> None:
        for name in ("lr_xy", "lr_scale", "lr_rotation", "lr_color"):
            rate = getattr(self, name)
            _require(0 <= rate < math.inf, f"optimizer.{name}", rate, "finite numbers from 0 on")
        for name in ("beta1", "beta2"):
            _require(0 <= getattr(self, name) < 1, f"optimizer.{name}", getattr(self, name), "0 to below 1")
        _require(0 < self.epsilon < math.inf, "optimizer.epsilon", self.epsilon, "finite numbers above 0")
        _require(0 <= self.decay_share <= 1, "optimizer.decay_share", self.decay_share, "0 to 1")
        _require(0 <= self.decay_floor <= 1, "optimizer.decay_floor", self.decay_floor, "0 to 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """Everything that decides the bytes of the file, beside the image itself."""

    preset: str = "balanced"
    ratio: float | None = 50.0
    """Raw bytes / file bytes. A promise, except under ``paper``, where it only sets N by eq. 5."""
    bytes: int | None = None
    """Size of the file, instead of a ratio: kept to like one."""
    psnr: float | None = None
    """dB that the file shall restore, up to a tenth more, instead of a size; takes several fits."""
    gaussians: int | None = None
    """Number of Gaussians to fit, instead of a size; those that show nothing are not written."""
    steps: int = 1000
    mode: Literal["auto", "exact", "blocked"] = "auto"
    """Exact: every step sweeps the image. Blocked: blocks take several steps at a time, their neighbours frozen, and a
    picture is read that many times less often. Auto: blocked on levels of pictures that are large."""
    steps_per_visit: int = 10
    """Steps that a block takes at a time in blocked mode, at most."""
    seed: int = 0
    device: Device = "cpu"
    """Where blocks are rendered and compared. A GPU rounds otherwise, so files differ, in quality only by chance. Auto: a
    GPU where that has been found faster, see streaming/device.py."""
    coarse_share: float = 0.0
    """Share of the steps taken on reduced levels, coarsest first."""
    relocate_share: float = 0.0
    """Share of the Gaussians moved by matching pursuit at each relocation, on average: more at first, less later; 0 for
    none."""
    relocate_every: int = 20
    """Steps between two relocations."""
    relocate_settle: int = 0
    """Steps after a relocation over which all rates grow from a fifth to what they were: newcomers change every gradient around
    them, and what Adam remembers of these is too small for a while."""
    relocate_until: float = 0.75
    """Share of the steps after which none is moved any more: the last ones need time to settle."""
    adaptive_count: bool = False
    """Whether moves of budget also change the number of Gaussians, to what a file of the wanted size pays for."""
    background: Literal["auto", "black"] = "black"
    """What Gaussians are added to: the picture's own colour, or nothing, as in SmartSplat eq. 4."""
    solve_iterations: int = 0
    """Conjugate-gradient iterations on the colours before the first step; 0 keeps the sampled colours."""
    finish_passes: int = 2
    """Passes over the image in which the rounded numbers of a file of a wanted size are fitted to it; 0 rounds each by
    itself."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        if sum(getattr(self, name) is not None for name in TARGETS) != 1:
            raise UsageError(
                "give one of a ratio, a number of bytes, a PSNR and a number of Gaussians",
                hint="--ratio 50, --bytes 500kB, --psnr 30, or --gaussians 10000",
            )
        if self.ratio is not None:
            _require(self.ratio > 0, "ratio", self.ratio, "above 0")
        if self.bytes is not None:
            _require(self.bytes >= 1, "bytes", self.bytes, "at least 1")
        if self.psnr is not None:
            _require(5 <= self.psnr <= 80, "psnr", self.psnr, "5 to 80 dB")
        if self.gaussians is not None:
            _require(self.gaussians >= 1, "gaussians", self.gaussians, "at least 1")
        _require(self.solve_iterations >= 0, "solve_iterations", self.solve_iterations, "0 or more")
        _require(self.steps >= 0, "steps", self.steps, "0 or more")
        _require(1 <= self.steps_per_visit <= 1000, "steps_per_visit", self.steps_per_visit, "1 to 1000")
        _require(self.seed >= 0, "seed", self.seed, "0 or more")
        _require(0 <= self.coarse_share <= 1, "coarse_share", self.coarse_share, "0 to 1")
        _require(0 <= self.relocate_share <= 0.5, "relocate_share", self.relocate_share, "0 to 0.5")
        _require(0 <= self.finish_passes <= 100, "finish_passes", self.finish_passes, "0 to 100")
        _require(self.relocate_every >= 1, "relocate_every", self.relocate_every, "1 or more")
        _require(self.relocate_settle >= 0, "relocate_settle", self.relocate_settle, "0 or more")
        _require(0 <= self.relocate_until <= 1, "relocate_until", self.relocate_until, "0 to 1")

    def replace(self, **changes: Any) -> FitConfig:
        """A copy with some fields changed, validated again; one of :data:`TARGETS` replaces the others."""
        if any(changes.get(name) is not None for name in TARGETS):
            changes = dict.fromkeys(TARGETS) | changes
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, as TOML and JSON take them; unset fields are left out."""
        return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}

    def summary(self) -> dict[str, Any]:
        """What tells these settings, in the shortest form: target, preset, steps, seed, and what differs from the preset.

        With the same version of the program, ``preset(...)`` and these are :meth:`to_dict` again.
        """
        ours, usual = self.to_dict(), PRESETS.get(self.preset, FitConfig()).to_dict()
        told = {name: ours[name] for name in (*TARGETS, "preset", "steps", "seed") if name in ours}
        return _differing(ours, usual) | told


_OWN = OptimizerConfig(
    parametrisation="own", lr_xy=0.3, lr_scale=0.18, lr_rotation=0.18, lr_color=0.045, beta1=0.9, beta2=0.99,
    decay_share=0.6,
)  # fmt: skip
_OWN_SHORT = dataclasses.replace(_OWN, decay_share=0.3)
_OWN_LONG = dataclasses.replace(
    _OWN, lr_xy=0.2, lr_scale=0.12, lr_rotation=0.12, lr_color=0.03, decay_share=1.0, decay="cosine"
)
_MOVING = FitConfig(
    preset="balanced", steps=600, coarse_share=0.5, relocate_share=0.2, relocate_settle=8, adaptive_count=True,
    background="auto", solve_iterations=8,
    loss=LossConfig(l1=0.0, l2=1.0, ssim=0.01, ssim_from=0.75, ssim_stride=2, rate=0.4), optimizer=_OWN,
)  # fmt: skip

PRESETS: Mapping[str, FitConfig] = {
    "paper": FitConfig(preset="paper", steps=50_000, finish_passes=0),
    "balanced": _MOVING,
    "fast": _MOVING.replace(
        preset="fast",
        steps=60,
        finish_passes=0,
        coarse_share=0.7,
        relocate_share=0.4,
        relocate_every=15,
        relocate_settle=0,
        loss=dataclasses.replace(_MOVING.loss, ssim_from=0.85),
        optimizer=_OWN_SHORT,
    ),
    "best": _MOVING.replace(
        preset="best",
        steps=2400,
        finish_passes=8,
        coarse_share=0.3,
        relocate_share=0.08,
        relocate_every=40,
        relocate_settle=16,
        optimizer=_OWN_LONG,
    ),
}


def _differing(ours: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of ``ours`` that ``usual`` does not have; of a table within, those of its entries."""
    nested = {name: _differing(value, usual[name]) for name, value in ours.items() if isinstance(value, Mapping)}
    plain = {name: value for name, value in ours.items() if name not in nested and usual.get(name) != value}
    return plain | {name: value for name, value in nested.items() if value}


def preset(name: str) -> FitConfig:
    """The preset called ``name``.

    Raises
    ------
    UsageError
        There is none of that name.
    """
    try:
        return PRESETS[name]
    except KeyError:
        raise UsageError(f"no preset is called {name!r}", hint=f"one of {', '.join(PRESETS)}") from None


def read_toml(path: Path, base: FitConfig) -> FitConfig:
    """``base`` with what the TOML file says: top-level keys, and tables [sampling], [loss], [optimizer].

    Raises
    ------
    UsageError
        The file is missing or not TOML, or it names an unknown key or a value of the wrong type or range.
    """
    try:
        given = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(
            f"{path}: {getattr(error, 'strerror', None) or error}",
            hint="--config takes a TOML file; see docs/configuration.md",
        ) from error
    if any(name in given for name in TARGETS):
        given = dict.fromkeys(TARGETS) | given
    merged: FitConfig = _merge(base, given, where=str(path))
    return merged


def _merge(base: Any, given: Mapping[str, Any], where: str) -> Any:
    hints = get_type_hints(type(base))
    changes: dict[str, Any] = {}
    for key, value in given.items():
        if key not in hints:
            raise UsageError(f"{where}: no setting is called {key!r}", hint=f"one of {', '.join(hints)}")
        old = getattr(base, key)
        if dataclasses.is_dataclass(old):
            if not isinstance(value, Mapping):
                raise UsageError(f"{where}: {key} must be a table", hint=f"[{key}] on a line of its own")
            changes[key] = _merge(old, value, f"{where} [{key}]")
        else:
            changes[key] = _checked(value, hints[key], f"{where}: {key}")
    return dataclasses.replace(base, **changes)


_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _checked(value: Any, hint: Any, where: str) -> Any:
    choices = get_args(hint) or (hint,)
    if get_origin(hint) is Literal:
        if value not in choices or isinstance(value, bool):
            raise UsageError(f"{where} = {value!r}", hint=f"one of {', '.join(map(str, choices))}")
        return value
    if value is None and type(None) in choices:
        return value
    if float in choices and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if not any(isinstance(value, c) for c in choices) or (isinstance(value, bool) and bool not in choices):
        kinds = " or ".join(_KINDS.get(choice, str(choice)) for choice in choices if choice is not type(None))
        raise UsageError(f"{where} = {value!r} is of the wrong type", hint=f"it takes {kinds}")
    return value
