"""The same picture at equal bytes through our codec and through those that people use: :func:`compare`."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from smartsplat_large import api, page, rivals
from smartsplat_large.array_types import Pixels
from smartsplat_large.atomic_output import check_destination, part_file
from smartsplat_large.config import PRESETS, FitConfig
from smartsplat_large.errors import UsageError
from smartsplat_large.lattice import Size
from smartsplat_large.memory import PROGRAM, Footprint, GiB, require
from smartsplat_large.metrics import Score
from smartsplat_large.picture import Region, window_in
from smartsplat_large.places import shown
from smartsplat_large.progress import Progress, Silent
from smartsplat_large.reports import Comparison, Contest, FitReport, Measured
from smartsplat_large.source import ArraySource, open_source, read_window
from smartsplat_large.streaming.budget import gaussian_budget
from smartsplat_large.streaming.workers import default_count

OURS = "smartsplat"
ANCHOR = "jpeg"
RATIOS = (20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)


def compare(
    image: str | Path,
    output: str | Path | None = None,
    *,
    ratios: Sequence[float] = RATIOS,
    config: FitConfig | None = None,
    codecs: Sequence[str] | None = None,
    region: Region | None = None,
    memory_bytes: int = 4 * GiB,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Compress a picture to each ratio by fitting and by every rival codec, and measure what each file restores.

    Parameters
    ----------
    output
        A self-contained HTML page with curves, the table and crops side by side; by default none is written.
    ratios
        Raw bytes / bytes of a file; a file is the largest within that budget.
    config
        How to fit, its ratio apart; by default the preset ``balanced``.
    codecs
        Names of :data:`smartsplat_large.rivals.RIVALS`; by default its usual ones. JPEG is what BD-rates are against.
    region
        Only this window of the picture, in pixels.
    memory_bytes
        Refuse a picture that the rivals, which take it whole, cannot hold within this.

    Raises
    ------
    SourceError
        The picture is not 8-bit grey or RGB, or cannot be read.
    UsageError, MemoryLimitError, DiskFullError, OutputExistsError
    """
    progress, config = progress or Silent(), config or PRESETS["balanced"]
    target = _target(output, overwrite)
    ratios, names = _ratios(ratios), _names(codecs)
    pixels = _pixels(image, region, memory_bytes)
    gallery = page.Gallery(pixels)
    threads = workers or default_count()
    results = _fitted(
        pixels, Path(shown(str(image))).stem, ratios, config, memory_bytes - pixels.nbytes, threads, gallery, progress
    )
    for name in names:
        results += _rivalled(name, pixels, ratios, threads, gallery, progress)
    titles = {OURS: {"title": "SmartSplat", "settings": f"preset {config.preset}, {config.steps} steps"}} | {
        name: {"title": rivals.RIVALS[name].title, "settings": rivals.RIVALS[name].settings} for name in names
    }
    height, width, channels = pixels.shape
    report = Comparison(
        image=shown(str(image)), width=width, height=height, channels=channels, raw_bytes=pixels.nbytes, preset=config.preset,
        steps=config.steps, seed=config.seed, codecs=titles, results=results, bd_rate=bd_rates(results),
        output=None if target is None else str(target),
    )  # fmt: skip
    if target is not None:
        with part_file(target, overwrite=overwrite) as part:
            part.write_text(page.html(report, gallery), encoding="utf-8")
    return report


def bd_rates(results: Sequence[Contest]) -> dict[str, dict[str, float | None]]:
    """Percent of bytes against JPEG by codec, at equal PSNR and at equal MS-SSIM; files at full size only."""
    curves: dict[str, list[Measured]] = {}
    for contest in results:
        curves.setdefault(contest.codec, []).extend([contest.direct] if contest.direct else [])
    anchor = curves.get(ANCHOR, [])
    return {
        name: {
            "psnr": rivals.bd_rate(_over_psnr(anchor), _over_psnr(curve)),
            "ms_ssim": rivals.bd_rate(_over_ms_ssim(anchor), _over_ms_ssim(curve)),
        }
        for name, curve in curves.items()
        if name != ANCHOR
    }


def _over_psnr(files: list[Measured]) -> list[tuple[float, float]]:
    return [(file.bpp, file.psnr) for file in files if file.psnr is not None]


def _over_ms_ssim(files: list[Measured]) -> list[tuple[float, float]]:
    """In decibels of what is missing to 1: MS-SSIM itself crowds there."""
    found = [(file.bpp, file.ms_ssim) for file in files if file.ms_ssim is not None and file.ms_ssim < 1]
    return [(rate, -10 * math.log10(1 - value)) for rate, value in found]


def _target(output: str | Path | None, overwrite: bool) -> Path | None:
    if output is None:
        return None
    target = Path(output)
    if target.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{target}: a comparison writes an HTML page", hint=f"-o {target.stem or 'report'}.html")
    check_destination(target, overwrite=overwrite)
    return target


def _ratios(given: Sequence[float]) -> list[float]:
    """Rising, each once."""
    if not given or not all(1 < ratio < math.inf for ratio in given):
        raise UsageError(
            f"ratios {', '.join(map('{:g}'.format, given)) or 'of none'}", hint="numbers above 1: 20,50,100"
        )
    return sorted(set(map(float, given)))


def _names(given: Sequence[str] | None) -> list[str]:
    """In the order of the table of rivals, each once."""
    for name in given or ():
        if name not in rivals.RIVALS:
            raise UsageError(f"no codec is called {name!r}", hint=f"one or more of {','.join(rivals.RIVALS)}")
    return [name for name in rivals.RIVALS if name in (rivals.USUAL if given is None else given)]


def _pixels(image: str | Path, region: Region | None, memory_bytes: int) -> Pixels:
    """The picture, or a window of it, whole in memory; refused before it is read where that cannot be."""
    with open_source(image) as source:
        meta = source.meta
        rivals.require_supported(np.empty((0, 0, meta.channels), meta.dtype), meta.name)
        window = window_in(region, meta.size, meta.name)
        size = Size(window.width, window.height)
        raw_bytes = size.pixels * meta.channels
        reading = Footprint(program=PROGRAM, gaussians=0, working=raw_bytes, decoder=meta.held_bytes)
        for needed in (reading, rivals.footprint(size, meta.channels)):
            require(
                needed, memory_bytes, f"{meta.name}: to compare {size} pixels",
                hint="a crop: --region X,Y,W,H; or a higher --memory",
            )  # fmt: skip
        return read_window(source, window)


def _fitted(
    pixels: Pixels, name: str, ratios: list[float], config: FitConfig, memory_bytes: int, threads: int,
    gallery: page.Gallery, progress: Progress,
) -> list[Contest]:  # fmt: skip
    """Our files. They hold neither profile nor resolution, as little as those of the rivals do."""
    settings = {ratio: config.replace(ratio=ratio) for ratio in ratios}
    meta = ArraySource(pixels, name=name).meta
    for each in settings.values():
        gaussian_budget(meta, each)  # Refuses a ratio before the first fit, not before the last.
    found = []
    with tempfile.TemporaryDirectory(prefix="smartsplat-") as folder:
        copy, file = Path(folder) / f"{name}.npy", Path(folder) / "fit.ssplat"
        np.save(copy, pixels)
        for ratio in ratios:
            progress.note(f"{name}: ratio {ratio:g}")
            done = api.fit(
                copy, file, config=settings[ratio], memory_bytes=memory_bytes, workers=threads, overwrite=True,
                resume=None, progress=progress,
            )  # fmt: skip
            began = time.perf_counter()
            with api.open(file) as opened:
                restored = opened.read()
            gallery.add(OURS, ratio, restored)
            direct = _ours(done, time.perf_counter() - began)
            found.append(Contest(codec=OURS, wanted_ratio=ratio, budget_bytes=_budget(pixels, ratio), direct=direct))
    return found


def _ours(done: FitReport, decode_s: float) -> Measured:
    return Measured(
        bytes=done.bytes, ratio=done.ratio, bpp=done.bpp, psnr=done.psnr, ssim=done.ssim, ms_ssim=done.ms_ssim,
        encode_s=done.seconds, decode_s=decode_s, setting=f"{done.gaussians} Gaussians",
    )  # fmt: skip


def _rivalled(
    name: str, pixels: Pixels, ratios: list[float], threads: int, gallery: page.Gallery, progress: Progress
) -> list[Contest]:
    """The files of one rival."""
    rival = rivals.Rival(rivals.RIVALS[name], pixels, threads)
    progress.start(rivals.RIVALS[name].title, len(ratios), "ratios")
    found = []
    for ratio in ratios:
        limit = _budget(pixels, ratio)
        direct = rival.direct(limit)
        reduced = None if direct else rival.reduced(limit)
        if shown := direct or reduced:
            gallery.add(name, ratio, shown.pixels)
        files = {"direct": _measured(direct, pixels), "reduced": _measured(reduced, pixels)}
        found.append(Contest(codec=name, wanted_ratio=ratio, budget_bytes=limit, **files))
        progress.advance()
    return found


def _budget(pixels: Pixels, ratio: float) -> int:
    return math.floor(pixels.nbytes / ratio)


def _measured(file: rivals.Rendition | None, pixels: Pixels) -> Measured | None:
    if file is None:
        return None
    return Measured(
        bytes=file.bytes, ratio=pixels.nbytes / file.bytes, bpp=8 * file.bytes / (pixels.shape[0] * pixels.shape[1]),
        psnr=_finite(file.score), ssim=file.score.ssim(), ms_ssim=file.score.ms_ssim(), encode_s=file.encode_s,
        decode_s=file.decode_s, setting=file.setting, factor=file.factor,
    )  # fmt: skip


def _finite(score: Score) -> float | None:
    """As reports have it: None for identical pictures."""
    psnr = score.psnr()
    return psnr if math.isfinite(psnr) else None
