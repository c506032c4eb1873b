"""The commands. Each parses, calls its namesake of the package, and prints what comes back.

The package loads its heavy modules when it is first called, not when it is imported: ``--help`` need not wait for them.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click

import smartsplat_large
from smartsplat_large.cli import comparisons, results
from smartsplat_large.cli.options import (
    device_option,
    fit_config,
    json_option,
    memory_option,
    overwrite_option,
    preset_option,
    quiet_option,
    to_numbers,
    to_optional_bytes,
    to_region,
    to_words,
    workers_option,
)
from smartsplat_large.cli.progress import shown
from smartsplat_large.config import Device
from smartsplat_large.errors import MissingDependencyError, SplatFileError, UsageError
from smartsplat_large.lattice import Window
from smartsplat_large.streaming.cluster import has_dashboard

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(
    context_settings=_CONTEXT,
    no_args_is_help=False,
    epilog="\b\nExamples:\n  smartsplat-large fit huge.tif --ratio 100\n"
    "  smartsplat-large decode huge.ssplat -o corner.png --region 0,0,2048,2048\n"
    "  smartsplat-large eval huge.ssplat huge.tif --json",
)
@click.version_option(smartsplat_large.__version__, message="smartsplat-large %(version)s")
def program() -> None:
    """Turn an image of any size into a small file of 2-D Gaussians, and back.

    Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 2 usage, 3 bad input, 4 does not fit in
    memory or on disk, 5 interrupted (--resume goes on with a fit), 1 a fault of this program.
    """


@program.command(
    short_help="Fit Gaussians to an image.",
    epilog="\b\nExamples:\n  smartsplat-large fit huge.tif\n"
    "  smartsplat-large fit huge.tif -o small.ssplat --ratio 200 --memory 2GiB\n"
    "  smartsplat-large fit photo.png --preset fast --gaussians 20000 --json",
)
@click.argument("image")
@click.option("-o", "--output", metavar="OUT.ssplat", help="Where to write.  [IMAGE's name, ending in .ssplat]")
@click.option("--ratio", type=float, metavar="R", help="Bytes of the pixels / bytes of the file.  [50]")
@click.option(
    "--bytes", "size_bytes", metavar="SIZE", callback=to_optional_bytes, help="Size of the file, instead of a ratio."
)
@click.option("--psnr", type=float, metavar="DB", help="PSNR of the restored picture, instead of a ratio.")
@click.option("--gaussians", type=int, metavar="N", help="Number of Gaussians, instead of a ratio.")
@preset_option
@click.option("--steps", type=int, metavar="N", help="Optimiser steps.  [the preset's]")
@memory_option
@workers_option
@click.option("--scheduler", metavar="ADDRESS", help="Run on the dask cluster at this address.")
@click.option("--dashboard/--no-dashboard", default=None, help="Serve dask's dashboard.  [on, if installed]")
@click.option(
    "--performance-report",
    type=click.Path(path_type=Path),
    metavar="FILE.html",
    help="Write dask's report of its tasks there.",
)
@click.option("--resume", is_flag=True, help="Go on where an interrupted fit was last saved; the file is the same.")
@click.option("--work", metavar="FOLDER|URL", help="Where the working copy lies; at a URL, the saved state, too.")
@overwrite_option
@click.option("--seed", type=int, metavar="N", help="Same seed, same file.  [0]")
@device_option
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), metavar="FILE.toml",
    help="Settings on top of the preset; flags win over them.",
)  # fmt: skip
@json_option
@quiet_option
def fit(
    image: str, output: str | None, ratio: float | None, size_bytes: int | None, psnr: float | None, gaussians: int | None,
    preset_name: str | None, steps: int | None, memory_bytes: int, workers: int | None, scheduler: str | None,
    dashboard: bool | None, performance_report: Path | None, resume: bool, work: str | None, overwrite: bool, seed: int | None,
    device: Device | None, config_file: Path | None, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Fit Gaussians to IMAGE and write them to a .ssplat file.

    IMAGE is TIFF, BigTIFF, OME-TIFF, SVS, OME-Zarr, zarr, PNG, JPEG, WebP, npy, PPM or PGM, of any size, in a file or at
    a URL; - is standard input.
    """
    if dashboard and not has_dashboard():
        raise MissingDependencyError(
            "--dashboard needs the packages distributed and bokeh", hint="pip install 'smartsplat-large[dashboard]'"
        )
    config = fit_config(
        preset_name=preset_name, file=config_file, steps=steps, seed=seed, device=device,
        targets={"ratio": ratio, "bytes": size_bytes, "psnr": psnr, "gaussians": gaussians},
    )  # fmt: skip
    with shown(quiet=quiet) as progress:
        done = smartsplat_large.fit(
            image, output, config=config, memory_bytes=memory_bytes, workers=workers, scheduler=scheduler,
            dashboard=dashboard, performance_report=performance_report, resume=resume, work=work, overwrite=overwrite,
            progress=progress,
        )  # fmt: skip
    values = dataclasses.asdict(done)
    results.write(values, results.fit_rows(values), as_json=as_json)


@program.command(
    short_help="Restore the picture, or a window of it.",
    epilog="\b\nExamples:\n  smartsplat-large decode huge.ssplat -o huge.tif\n"
    "  smartsplat-large decode huge.ssplat -o small.jpg --level 4\n"
    "  smartsplat-large decode huge.ssplat -o detail.png --region 4096,2048,1024,768 --scale 2",
)
@click.argument("file", metavar="FILE.ssplat")
@click.option("-o", "--output", required=True, metavar="OUT.(tif|ome.tif|zarr|png|jpg|npy)", help="Where to write.")
@click.option("--region", callback=to_region, metavar="X,Y,W,H", help="Only this window, in pixels of the full size.")
@click.option("--level", type=int, metavar="K", help="Halve the size K times.")
@click.option("--scale", type=float, metavar="S", help="Resize by any factor, also above 1.")
@click.option("--skip-damage", is_flag=True, help="Leave damaged blocks of the file out instead of stopping.")
@device_option
@workers_option
@overwrite_option
@json_option
@quiet_option
def decode(
    file: str, output: str, region: Window | None, level: int | None, scale: float | None, skip_damage: bool,
    device: Device | None, workers: int | None, overwrite: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Restore the picture of a .ssplat file, or a window of it, at any zoom."""
    with shown(quiet=quiet) as progress:
        values = smartsplat_large.decode(
            file, output, region=region, level=level, scale=scale, overwrite=overwrite, workers=workers,
            skip_damage=skip_damage, device=device or "auto", progress=progress,
        )  # fmt: skip
    for part in results.damage_lines(values["damage"]):
        click.echo(f"warning: {file}: {part}", err=True)
    results.write(values, results.picture_rows(values), as_json=as_json)


@program.command(
    "eval",
    short_help="Measure a file against its image.",
    epilog="\b\nExample:\n  smartsplat-large eval huge.ssplat huge.tif --json",
)
@click.argument("file", metavar="FILE.ssplat")
@click.argument("image")
@workers_option
@json_option
@quiet_option
def evaluate(file: str, image: str, workers: int | None, as_json: bool, quiet: bool) -> None:
    """Compare a .ssplat file with the IMAGE it was made from: PSNR, SSIM, MS-SSIM, and what they cost."""
    with shown(quiet=quiet) as progress:
        values = dataclasses.asdict(smartsplat_large.evaluate(file, image, workers=workers, progress=progress))
    results.write(values, results.evaluation_rows(values), as_json=as_json)


@program.command(
    short_help="Show what a file holds, and check it.",
    epilog="\b\nExample:\n  smartsplat-large info huge.ssplat",
)
@click.argument("file", metavar="FILE.ssplat")
@json_option
def info(file: str, as_json: bool) -> None:
    """Show what a .ssplat file holds, where its bytes go, how it was made, and whether it is whole.

    Reads the whole file. Where it is damaged, the damage is listed and the exit code is 3.
    """
    values = smartsplat_large.info(file)
    results.write(values, results.info_rows(values), as_json=as_json)
    if values["damage"]:
        raise SplatFileError(
            f"{file}: {len(values['damage'])} damaged part(s), first {values['damage'][0]}",
            hint="fetch the file again; decode --skip-damage restores the rest",
        )


@program.command(
    short_help="Write a multiscale working copy.",
    epilog="\b\nExamples:\n  smartsplat-large ingest scan.jpg -o scan.zarr\n"
    "  render scene | smartsplat-large ingest - -o scene.zarr",
)
@click.argument("image")
@click.option("-o", "--output", required=True, metavar="OUT.zarr", help="Where to write.")
@workers_option
@overwrite_option
@json_option
@quiet_option
def ingest(image: str, output: str, workers: int | None, overwrite: bool, as_json: bool, quiet: bool) -> None:
    """Write IMAGE as a multiscale OME-Zarr working copy, which every command reads quickly by windows.

    IMAGE may be a named pipe, or - for standard input, and is then read as it comes.
    """
    if not output.rstrip("/").endswith(".zarr"):
        raise UsageError(
            f"{output}: a working copy is a folder that ends in .zarr", hint=f"-o {Path(output).stem}.zarr"
        )
    with shown(quiet=quiet) as progress:
        meta = smartsplat_large.ingest(image, output, overwrite=overwrite, workers=workers, progress=progress)
    values: dict[str, Any] = {
        "output": output, "width": meta.size.width, "height": meta.size.height, "channels": meta.channels,
        "bits": 8 * meta.dtype.itemsize, "raw_bytes": meta.raw_bytes, "levels": len(meta.levels),
    }  # fmt: skip
    results.write(values, results.picture_rows(values), as_json=as_json)


@program.command(
    short_help="Measure against JPEG, WebP, JPEG XL, AVIF and JPEG 2000.",
    epilog="\b\nExamples:\n  smartsplat-large compare photo.png -o report.html\n"
    "  smartsplat-large compare huge.tif --region 4096,2048,2048,2048 --ratios 50,100,200\n"
    "  smartsplat-large compare photo.png --codecs jpeg,avif --preset fast --json",
)
@click.argument("image")
@click.option("-o", "--output", metavar="REPORT.html", help="Also write a page with curves and crops side by side.")
@click.option(
    "--ratios", callback=to_numbers, metavar="R,R,...", help="Bytes of the pixels / bytes of a file.  [20,50,...,1000]"
)
@click.option(
    "--codecs", callback=to_words, metavar="NAME,...", help="Rivals to measure.  [jpeg,webp,jpegxl,avif,jpeg2000]"
)
@click.option("--region", callback=to_region, metavar="X,Y,W,H", help="Only this window, in pixels.")
@preset_option
@click.option("--steps", type=int, metavar="N", help="Optimiser steps.  [the preset's]")
@click.option("--seed", type=int, metavar="N", help="Of the fits.  [0]")
@memory_option
@workers_option
@overwrite_option
@json_option
@quiet_option
def compare(
    image: str, output: str | None, ratios: list[float] | None, codecs: list[str] | None, region: Window | None,
    preset_name: str | None, steps: int | None, seed: int | None, memory_bytes: int, workers: int | None,
    overwrite: bool, as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Compress IMAGE to equal bytes by fitting and by other codecs, and measure what each file restores.

    IMAGE must be 8-bit grey or RGB; the other codecs hold all of it, or of its --region, in memory. Each is searched for
    its largest file within the bytes of every ratio.
    """
    config = fit_config(preset_name=preset_name, file=None, targets={}, steps=steps, seed=seed)
    with shown(quiet=quiet) as progress:
        done = smartsplat_large.compare(
            image, output, config=config, codecs=codecs, region=region, memory_bytes=memory_bytes, workers=workers,
            overwrite=overwrite, progress=progress, **({} if ratios is None else {"ratios": ratios}),
        )  # fmt: skip
    comparisons.write(done, as_json=as_json)
