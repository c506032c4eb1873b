"""Results on stdout: a table for people, or one JSON object."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import click

from smartsplat_large.memory import format_bytes

Rows = list[tuple[str, str]]
_DAMAGE_SHOWN = 3


def write(values: Mapping[str, Any], rows: Rows, *, as_json: bool) -> None:
    """``values`` as one JSON object on one line, or ``rows`` as a table."""
    if as_json:
        click.echo(json.dumps(_plain(values), allow_nan=False))
        return
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        click.echo(f"{name:<{width}}  {text}")


def evaluation_rows(values: Mapping[str, Any]) -> Rows:
    """Of ``eval``, and of what ``fit`` measured."""
    return [
        ("size", f"{values['width']} x {values['height']}"),
        ("gaussians", f"{values['gaussians']}"),
        ("ratio", ratio_text(values)),
        ("bits/pixel", f"{values['bpp']:.4f}"),
        ("PSNR", _measured(values["psnr"], "{:.2f} dB", "identical pictures")),
        ("SSIM", _measured(values["ssim"], "{:.4f}", "needs sides of 11 pixels")),
        ("MS-SSIM", _measured(values["ms_ssim"], "{:.4f}", "needs sides of more than 160 pixels")),
    ]


def fit_rows(values: Mapping[str, Any]) -> Rows:
    """Of ``fit``."""
    return [
        ("output", values["output"]),
        *evaluation_rows(values),
        ("preset", f"{values['preset']}, {values['steps']} steps, seed {values['seed']}"),
        ("seconds", f"{values['seconds']:.1f}"),
        ("memory", f"{format_bytes(values['peak_rss_bytes'])} at the peak"),
    ]


def picture_rows(values: Mapping[str, Any]) -> Rows:
    """Of ``decode`` and ``ingest``: a picture that was written."""
    return [("output", values["output"]), ("size", f"{values['width']} x {values['height']}")]


def info_rows(values: Mapping[str, Any]) -> Rows:
    """Of ``info``."""
    rows = [
        ("file", values["file"]),
        ("size", f"{values['width']} x {values['height']}, {values['channels']} channels of {values['bits']} bits"),
        ("gaussians", _gaussians_text(values)),
        ("ratio", ratio_text(values)),
        ("bits/pixel", f"{values['bpp']:.4f}"),
        ("fineness", f"{values['fineness']:.4g}"),
    ]
    if values["pixels_per_cm"]:
        rows.append(("resolution", "{:g} x {:g} pixels/cm".format(*values["pixels_per_cm"])))
    if values["icc_profile_bytes"]:
        rows.append(("profile", f"{values['icc_profile_bytes']} bytes"))
    for purpose, size in (values["ledger"] or {}).items():
        rows.append((f"  {purpose}", f"{size:>10} bytes {size / values['bytes']:>6.1%}"))
    made = {name: value for name, value in values["provenance"].items() if not isinstance(value, Mapping)}
    rows += [(name, f"{value}") for name, value in made.items()]
    if config := values["provenance"].get("config"):
        rows.append(("made with", _config_text(config)))
    return rows + ([("damage", line) for line in damage_lines(values["damage"])] or [("integrity", "whole")])


def damage_lines(damage: Sequence[str]) -> list[str]:
    """The first damaged parts, and of many how many more there are, up to where."""
    between = len(damage) - _DAMAGE_SHOWN - 1
    if between < 1:
        return list(damage)
    return [*damage[:_DAMAGE_SHOWN], f"{between} more, up to", damage[-1]]


def ratio_text(values: Mapping[str, Any]) -> str:
    """The ratio and the two numbers it comes from."""
    return f"{values['ratio']:.2f}  ({values['raw_bytes']} bytes of pixels in a file of {values['bytes']})"


def _gaussians_text(values: Mapping[str, Any]) -> str:
    # A small file is one block and knows no side.
    blocks = f" in {values['blocks']} blocks, {values['block']} pixels a side" if values["block"] else ""
    return f"{values['gaussians']}{blocks}"


def _config_text(config: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in config.items() if not isinstance(value, Mapping))


def _measured(value: float | None, form: str, why_not: str) -> str:
    return f"- ({why_not})" if value is None else form.format(value)


def _plain(value: Any) -> Any:
    """``value`` as JSON has it: no NaN and no infinity, which it cannot say."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
