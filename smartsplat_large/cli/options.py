"""What options take, beyond what click knows, and the settings that those of ``fit`` amount to."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from smartsplat_large.config import PRESETS, FitConfig, preset, read_toml
from smartsplat_large.errors import UsageError
from smartsplat_large.lattice import Window
from smartsplat_large.memory import parse_bytes

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_PRESET = "balanced"


def to_bytes(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Callback of an option: ``4GiB``, ``500MB``, ``65536``."""
    return parse_bytes(value)


def to_optional_bytes(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """As :func:`to_bytes`; nothing for nothing."""
    return None if value is None else parse_bytes(value)


def to_region(ctx: click.Context, param: click.Parameter, value: str | None) -> Window | None:
    """Callback of an option: ``X,Y,W,H``. Whether it lies in the picture is for the command to say."""
    if value is None:
        return None
    numbers = [part.strip() for part in value.split(",")]
    if len(numbers) != 4 or not all(re.fullmatch(r"[+-]?[0-9]{1,18}", number) for number in numbers):
        raise UsageError(
            f"--region {value!r} is not X,Y,W,H", hint="four whole numbers, in pixels of the full size: 0,0,1024,768"
        )
    return Window(*map(int, numbers))


def to_numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> list[float] | None:
    """Callback of an option: ``20,50,100``. Which numbers make sense is for the command to say."""
    try:
        return None if value is None else [float(part) for part in value.split(",")]
    except ValueError:
        raise UsageError(
            f"{param.opts[0]} {value!r} is not a list of numbers", hint="write for example 20,50,100"
        ) from None


def to_words(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    """Callback of an option: ``jpeg,avif``."""
    return None if value is None else [part.strip() for part in value.split(",")]


def json_option(command: Command) -> Command:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")(command)


def quiet_option(command: Command) -> Command:
    """``--quiet``."""
    return click.option("-q", "--quiet", is_flag=True, help="Show no progress.")(command)


def overwrite_option(command: Command) -> Command:
    """``--overwrite``."""
    return click.option("--overwrite", is_flag=True, help="Replace an output that exists, once the new one is whole.")(
        command
    )


def workers_option(command: Command) -> Command:
    """``--workers``."""
    kind = click.IntRange(min=1)
    return click.option(
        "--workers", type=kind, metavar="N", help="Threads. They do not change the result.  [all cores]"
    )(command)


def device_option(command: Command) -> Command:
    """``--device``."""
    return click.option(
        "--device", type=click.Choice(["auto", "cpu", "cuda"]), help="Where to render: cuda is a GPU.  [auto]"
    )(command)


def preset_option(command: Command) -> Command:
    """``--preset NAME``, with what each costs (docs/configuration.md)."""
    return click.option(
        "--preset", "preset_name", type=click.Choice(list(PRESETS)),
        help="Recipe. A megapixel takes two cores 0.5 to 1 s with fast, 7 to 12 s with balanced, 25 to 45 s with best, "
        f"half an hour with paper, the published one.  [{DEFAULT_PRESET}]",
    )(command)  # fmt: skip


def memory_option(command: Command) -> Command:
    """``--memory``."""
    return click.option(
        "--memory", "memory_bytes", metavar="SIZE", callback=to_bytes, default="4GiB", show_default=True,
        help="Most memory to use.",
    )(command)  # fmt: skip


def fit_config(
    *,
    preset_name: str | None,
    file: Path | None,
    targets: dict[str, float | int | None],
    steps: int | None,
    seed: int | None,
    device: str | None = None,
) -> FitConfig:
    """The preset, what the file says on top of it, and the flags on top of both; ``targets`` by name, one at most.

    Raises
    ------
    UsageError
        A value is out of range, or the flags contradict each other.
    """
    aims = {name: value for name, value in targets.items() if value is not None}
    if len(aims) > 1:
        raise UsageError(f"{' and '.join('--' + name for name in aims)} exclude each other", hint="give one of them")
    name = preset_name or (read_toml(file, PRESETS[DEFAULT_PRESET]).preset if file else DEFAULT_PRESET)
    config = preset(name).replace(device="auto")
    if file:
        config = read_toml(file, config)
    changes: dict[str, Any] = {"preset": name} | aims
    changes |= {
        key: value for key, value in (("steps", steps), ("seed", seed), ("device", device)) if value is not None
    }
    return config.replace(**changes)
