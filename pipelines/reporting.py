"""What the measuring recipes share: arguments, centre crops, markdown tables, JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import re
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smartsplat_large import __version__
from smartsplat_large.config import FitConfig, preset
from smartsplat_large.errors import SmartSplatError, UsageError
from smartsplat_large.lattice import Size, Window
from smartsplat_large.source import open_source, read_window


def guarded(main: Callable[[], None]) -> None:
    """Run a recipe; what the package refuses ends it in one line with a way out, and the exit code."""
    try:
        main()
    except SmartSplatError as error:
        note(f"error: {error}\nhint: {error.hint}" if error.hint else f"error: {error}")
        raise SystemExit(error.exit_code) from None


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with ``--json``, described by the first line of a recipe's docstring."""
    made = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    made.add_argument("--json", type=Path, metavar="FILE", help="write the measurements there, too")
    return made


def configured(name: str) -> FitConfig:
    """``fast``, ``paper=5000`` or ``balanced:relocate_share=0.0:loss.ssim=0.0``.

    Raises
    ------
    UsageError
        No preset or setting is called so, or a value does not fit it.
    """
    base, *changes = name.split(":")
    base, _, steps = base.partition("=")
    config = preset(base).replace(steps=int(steps)) if steps else preset(base)
    for change in changes:
        config = _changed(config, change)
    return config


def _changed(config: FitConfig, change: str) -> FitConfig:
    try:
        ((key, value),) = tomllib.loads(change).items()
        if not isinstance(value, dict):
            return dataclasses.replace(config, **{key: value})
        return dataclasses.replace(config, **{key: dataclasses.replace(getattr(config, key), **value)})
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{change!r}: {error}", hint='write for example loss.ssim=0.0 or sampling.means="random"'
        ) from error


def parse_size(text: str) -> Size:
    """``1920x1080`` as a size."""
    match = re.fullmatch(r"(\d+)x(\d+)", text.lower())
    if not match or not (int(match[1]) and int(match[2])):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write for example 1920x1080")
    return Size(int(match[1]), int(match[2]))


def lossless_copy(path: Path, crop: Size | None, folder: Path) -> Path:
    """``path`` itself, or with ``crop`` its middle as a .npy file in ``folder``.

    Raises
    ------
    UsageError
        The picture is smaller than ``crop``.
    """
    if crop is None:
        return path
    with open_source(path) as source:
        size = source.meta.size
        if crop.width > size.width or crop.height > size.height:
            raise UsageError(f"{path}: {size} pixels, the crop takes {crop}", hint="take a smaller --crop")
        window = Window((size.width - crop.width) // 2, (size.height - crop.height) // 2, crop.width, crop.height)
        copy = folder / f"{path.stem}-{crop}.npy"
        np.save(copy, read_window(source, window))
    return copy


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A markdown table, its columns aligned; numbers to the right."""
    cells = [list(headings), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headings))]
    right = [
        all(re.match(r"[-+]?\d", row[i]) or row[i] in ("", "-") for row in cells[1:]) for i in range(len(headings))
    ]
    rule = ["-" * (w - r) + ":" * r for w, r in zip(widths, right, strict=True)]
    lines = [[c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)] for row in cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])


def fixed(value: float | None, digits: int) -> str:
    """A number with so many decimals, a dash for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def note(message: str) -> None:
    """Say on stderr what is being done, apart from the table on stdout."""
    print(message, file=sys.stderr, flush=True)


def publish(markdown: str, path: Path | None, rows: Sequence[Any], **settings: object) -> None:
    """Print the table; write its measurements (dataclasses or dicts) and what made them to ``path``, if given."""
    print(markdown)
    keep(path, rows, **settings)


def keep(path: Path | None, rows: Sequence[Any], **settings: object) -> None:
    """Write measurements and what made them to ``path``, if given."""
    if path is None:
        return
    plain = [dataclasses.asdict(row) if dataclasses.is_dataclass(row) else row for row in rows]  # type: ignore[arg-type]
    made_by = {"version": __version__, "python": platform.python_version(), "processors": os.cpu_count()}
    text = json.dumps(made_by | {"settings": settings, "rows": plain}, indent=1, default=str)
    path.write_text(text + "\n")
