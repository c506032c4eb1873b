"""One large picture through the whole program, every step a command of its own, with seconds and peak memory.

    python pipelines/large_picture.py huge.tif [--ratio 200] [--memory 4GiB] [--preset balanced] [--keep FOLDER] [--json FILE]

Runs in the environment that pipelines/check.py sets up. Fits, decodes to BigTIFF, decodes a window in this process from cold
and warm, evaluates, and holds the PSNR that ``eval`` prints against a plain numpy computation on the decoded file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from reporting import fixed, guarded, note, parser, publish, table

import smartsplat_large
from smartsplat_large.lattice import Window
from smartsplat_large.memory import format_bytes
from smartsplat_large.source import bands, open_source

WINDOW = 1024


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("picture", type=Path)
    arguments.add_argument("--ratio", type=float, default=200.0)
    arguments.add_argument("--memory", default="4GiB")
    arguments.add_argument("--preset", default="balanced")
    arguments.add_argument("--keep", type=Path, help="a folder for the files that are made")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="smartsplat-") as folder:
        kept = given.keep or Path(folder)
        splats, decoded = kept / "large.ssplat", kept / "decoded.tif"
        quality = ("--ratio", str(given.ratio), "--preset", given.preset, "--memory", given.memory)
        rows = [
            command("fit", given.picture, "-o", splats, *quality, "--overwrite", "--json"),
            command("decode", splats, "-o", decoded, "--overwrite"),
            command("eval", splats, given.picture, "--json"),
        ]
        cold, warm = window_seconds(splats)
        score = rows[2]["result"]
        plain = plain_psnr(given.picture, decoded)
        facts = {
            "bytes": score["bytes"], "ratio": score["ratio"], "gaussians": score["gaussians"], "psnr": score["psnr"],
            "ms_ssim": score["ms_ssim"], "psnr_by_numpy": plain, "window_cold_s": cold, "window_warm_s": warm,
        }  # fmt: skip
        publish(report(rows, facts), given.json, rows, picture=given.picture.name, **facts)
    raise SystemExit(abs(plain - score["psnr"]) > 1e-3 or score["ratio"] < given.ratio)


def command(*arguments: str | Path) -> dict[str, Any]:
    """Run one command; its seconds, the peak memory of all its processes, and what it printed as JSON."""
    note(f"$ smartsplat-large {' '.join(map(str, arguments))}")
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "smartsplat_large", *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(os.waitstatus_to_exitcode(status))
    result = json.loads(printed) if "--json" in arguments else {}
    peak = max(usage.ru_maxrss * 1024, result.get("peak_rss_bytes", 0))
    return {
        "command": str(arguments[0]),
        "seconds": time.perf_counter() - began,
        "peak_rss_bytes": peak,
        "result": result,
    }


def window_seconds(splats: Path) -> tuple[float, float]:
    """Seconds for a window in the middle: from opening the file, and again with its blocks parsed; kernels compiled."""
    times = []
    for _ in range(2):
        began = time.perf_counter()
        with smartsplat_large.open(splats) as picture:
            x, y = (max(0, (side - WINDOW) // 2) for side in (picture.width, picture.height))
            region = Window(x, y, min(WINDOW, picture.width), min(WINDOW, picture.height))
            picture.read(region)
            times.append(time.perf_counter() - began)
            began = time.perf_counter()
            picture.read(region)
            times.append(time.perf_counter() - began)
    return times[2], times[3]


def plain_psnr(original: Path, decoded: Path) -> float:
    """PSNR of two files, by numpy, in strips."""
    with open_source(original) as a, open_source(decoded) as b:
        total = 0.0
        for (_, x), (_, y) in zip(bands(a, 512), bands(b, 512), strict=True):
            total += float(np.square(x.astype(np.float64) - y).sum())
        samples, peak = a.meta.size.pixels * a.meta.channels, 256**a.meta.dtype.itemsize - 1
    return float(10 * np.log10(peak**2 * samples / total))


def report(rows: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """What each command took, and what came of it."""
    took = table(
        ("command", "seconds", "peak memory"),
        [(r["command"], fixed(r["seconds"], 1), format_bytes(r["peak_rss_bytes"])) for r in rows],
    )
    return (
        took
        + "\n\n"
        + table(("figure", "value"), [(k, f"{v:.6g}" if isinstance(v, float) else v) for k, v in facts.items()])
    )


if __name__ == "__main__":
    guarded(main)
