"""What other programs import: :func:`fit`, :func:`decode`, :func:`evaluate`, :func:`info`, :func:`ingest`, :func:`open`.

Each mirrors one command of ``smartsplat-large``. Errors are those of :mod:`smartsplat_large.errors`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smartsplat_large import columns
from smartsplat_large.codec import Encoded, SplatFile, write_atomic
from smartsplat_large.config import PRESETS, Device, FitConfig
from smartsplat_large.dashboard import Record
from smartsplat_large.errors import UsageError
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.memory import Footprint, GiB, format_bytes, program_on, require, require_room, returned
from smartsplat_large.metrics import Score
from smartsplat_large.paths import (
    check_output_place,
    fit_target,
    report_target,
    require_apart,
    require_pipe_will_do,
    state_place,
)
from smartsplat_large.picture import Region, SplatImage, output_window, pitch_of, view_of
from smartsplat_large.places import Place, joined, place_of
from smartsplat_large.progress import Progress, Silent
from smartsplat_large.remote_output import passing_folder, put
from smartsplat_large.render.choice import renderer_on
from smartsplat_large.reports import Evaluation, FitReport, peak_rss_bytes
from smartsplat_large.sampling import sample
from smartsplat_large.sink import band_height, check_output, write_image
from smartsplat_large.source import ImageMeta, ImageSource, open_source, working_copy
from smartsplat_large.source import ingest as ingest_source
from smartsplat_large.source.piped import is_pipe
from smartsplat_large.streaming.allowance import Allowance
from smartsplat_large.streaming.background import background_of
from smartsplat_large.streaming.budget import encode_within
from smartsplat_large.streaming.checkpoint import Checkpoint, is_delivered
from smartsplat_large.streaming.cluster import has_dashboard
from smartsplat_large.streaming.cluster_loss import loss_named
from smartsplat_large.streaming.device import allow_on_device, require_device
from smartsplat_large.streaming.evaluate import score_file
from smartsplat_large.streaming.fingerprint import fingerprint
from smartsplat_large.streaming.fit import fit_gaussians
from smartsplat_large.streaming.population import most_gaussians
from smartsplat_large.streaming.quality import QualityTask, encode_to_psnr
from smartsplat_large.streaming.view import View
from smartsplat_large.streaming.workers import Workers, default_count, open_workers

_BANDS_HELD = 4
"""Full-width bands that live at once in a decoding: parts of the next, the one joined, the one written, its tiles."""


def fit(
    image: str | Path,
    output: str | Path | None = None,
    *,
    config: FitConfig | None = None,
    memory_bytes: int = 4 * GiB,
    workers: int | None = None,
    scheduler: str | None = None,
    dashboard: bool | None = False,
    performance_report: str | Path | None = None,
    overwrite: bool = False,
    resume: bool | None = False,
    work: str | Path | None = None,
    progress: Progress | None = None,
) -> FitReport:
    """Fit Gaussians to an image of any size and write them to a ``.ssplat`` file.

    Parameters
    ----------
    image
        A path, also that of a named pipe, or a URL: ``https://``, or whatever fsspec knows; ``-`` is standard input.
    output
        A path, or a URL that fsspec writes to; by default beside the image, with the ending ``.ssplat``.
    config
        By default the preset ``balanced``, at ratio 50.
    memory_bytes
        Limit on the resident memory of this process; the plan is refused if it cannot keep to it.
    workers
        Threads; by default all cores. Does not change the result.
    scheduler
        Address of a dask cluster to run on, instead of threads.
    dashboard
        Serve dask's dashboard, with a page about the fit among the others, where its packages are installed; None: if they
        are.
    performance_report
        Where to write dask's report of what its workers did, as a page. It takes the dashboard's packages, and starts it
        where there is no scheduler.
    resume
        Go on where an interrupted fit of the same image and settings was last saved, in the folder ``OUTPUT.state``; the
        file is the same, byte for byte, as if it had not been interrupted. None: save nothing, as for passing files.
    work
        A folder or a URL for the working copy, by default the temporary folder; of a URL also for the saved state. The
        workers of a ``scheduler`` read it there.

    Raises
    ------
    UsageError, SourceError, MemoryLimitError, DiskFullError, OutputExistsError
    ClusterLostError
        The scheduler went away, or a worker with what a task needs.
    Interrupted
        A ``KeyboardInterrupt`` came and the state is saved.
    """
    began = time.perf_counter()
    config, progress = config or PRESETS["balanced"], progress or Silent()
    require_device(config, elsewhere=scheduler is not None)
    piped = is_pipe(image)
    if piped:
        require_pipe_will_do(image, output, bool(resume))
    with open_source(image) as source:
        meta = source.meta
        target = fit_target(place_of(image), output)
        at_work = None if work is None else place_of(work)
        state = None if resume is None or piped else state_place(target, config, at_work)
        if resume and config.psnr is not None:
            progress.note(f"{target}: a search for a PSNR saves no state to resume; it starts anew")
        ours = bool(resume) and state is not None and is_delivered(state, target)
        check_output_place(target, overwrite=overwrite or ours)
        if meta.remark:
            progress.note(f"{meta.name}: {meta.remark}")
        report = report_target(performance_report, overwrite)
        watched = report is not None or (has_dashboard() if dashboard is None else dashboard)
        threads, elsewhere = workers or default_count(), scheduler is not None
        config, allowed = allow_on_device(meta, config, memory_bytes, threads, elsewhere=elsewhere)
        identity = {} if state is None else fingerprint(place_of(image), source, config, allowed.plan)
        checkpoint = Checkpoint(state, identity, progress)
        # Workers elsewhere read a copy on disk; one in memory would travel with every task.
        room = 0 if scheduler else allowed.spare_bytes
        limit_bytes = allowed.limit_bytes if config.psnr is None else None
        record = Record(progress, meta.name, meta.size, limit_bytes) if watched else None
        progress = record or progress
        with passing_folder(at_work) as folder, _columns_in(folder, config, allowed, progress), returned():
            checkpoint.open(target, resume=bool(resume))
            levels = 1 if checkpoint.delivered else allowed.levels
            checkpoint.announce(most_gaussians(allowed.count, config), meta.channels)
            with (
                open_workers(
                    workers,
                    scheduler=scheduler,
                    dashboard=watched,
                    record=record,
                    task_bytes=allowed.task_bytes,
                    performance_report=report,
                    progress=progress,
                ) as pool,
                checkpoint,
                loss_named(scheduler),
                working_copy(source, room, folder, levels=levels, progress=progress, workers=allowed.threads) as copy,
            ):
                if not checkpoint.delivered:
                    encoded = _encoded(copy, config, allowed, folder, pool, progress, checkpoint)
                    with checkpoint.delivering(encoded.parts):
                        write_atomic(target, encoded.parts, overwrite=overwrite)
                measured = _verified(_reachable(target, folder, pool), copy, meta, pool, progress)
                if record is not None:
                    record.verified(measured.bytes, measured.psnr)
                checkpoint.remove()
    return FitReport(
        **dataclasses.asdict(measured), output=str(target), seconds=time.perf_counter() - began,
        peak_rss_bytes=peak_rss_bytes(), steps=config.steps, preset=config.preset, seed=config.seed,
    )  # fmt: skip


@contextlib.contextmanager
def _columns_in(folder: Place, config: FitConfig, allowed: Allowance, progress: Progress) -> Iterator[None]:
    """For the length of a ``with`` block, columns of all Gaussians that memory does not hold are files.

    They lie in ``folder``, if it is one. Where they are large that is said, unless a search for a PSNR has yet to find how many
    Gaussians it takes.
    """
    if allowed.column_bytes is None:
        yield
        return
    here = folder if isinstance(folder, Path) else Path(tempfile.gettempdir())
    in_files = allowed.plan.column_bytes - allowed.column_bytes
    if in_files > 0 and config.psnr is None:
        announced = f"the Gaussians will take up to {format_bytes(in_files)} in {here}"
        doubt = require_room(here, in_files, announced, hint="--work FOLDER for another disk, or more --memory")
        if doubt or in_files > GiB:
            progress.note(announced + doubt)
    with columns.mapped(here, allowed.column_bytes):
        yield


def _encoded(
    copy: ImageSource, config: FitConfig, allowed: Allowance, folder: Place, pool: Workers, progress: Progress,
    checkpoint: Checkpoint,
) -> Encoded:  # fmt: skip
    """The file of a fit: at the PSNR that is wanted, or of the Gaussians and bytes that are allowed."""
    renderer, kept_bytes = renderer_on(config.device, background_of(copy, config)), allowed.spare_bytes
    if config.psnr is not None:
        return encode_to_psnr(
            QualityTask(copy, renderer, config, allowed.planned, allowed.count, kept_bytes, folder, pool, progress),
            config.psnr,
        )  # fmt: skip
    meta = copy.meta

    def initial() -> Gaussians:
        return checkpoint.resumed_gaussians or sample(
            copy.read, meta.size, meta.channels, meta.dtype, allowed.count, config.sampling, config.seed,
            workers=allowed.threads, progress=progress,
        )  # fmt: skip

    # Nothing here keeps what a fit begins with alive.
    best = fit_gaussians(
        copy, renderer, initial(), allowed.plan, config, pool, progress, kept_bytes, checkpoint, allowed.limit_bytes
    )  # fmt: skip
    return encode_within(best.gaussians, copy, renderer, config, allowed.limit_bytes, pool, progress)


def _reachable(written: Place, folder: Place, pool: Workers) -> Place:
    """A file that was written, where all workers see it."""
    if not pool.remote or isinstance(folder, Path) or isinstance(written, str):
        return written
    there: str = joined(folder, "written.ssplat")
    put(there, written.read_bytes())
    return there


def _verified(written: Place, source: ImageSource, meta: ImageMeta, pool: Workers, progress: Progress) -> Evaluation:
    """What a file that was just written is worth, by decoding it again."""
    with SplatFile(written) as file:
        return _evaluation(score_file(source, view_of(file), pool, progress, stage="verify"), file, meta)


def decode(
    file: str | Path,
    output: str | Path,
    *,
    region: Region | None = None,
    level: int | None = None,
    scale: float | None = None,
    device: Device = "auto",
    overwrite: bool = False,
    workers: int | None = None,
    memory_bytes: int = 4 * GiB,
    skip_damage: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Restore a picture, or a window of it, to the format that the ending of ``output`` names; streaming.

    Parameters
    ----------
    file
        A path, or a URL: ``https://``, or whatever fsspec knows. Of either, only the parts that are needed are read.
    region
        In level-0 pixels, inside the picture; by default all of it.
    level, scale
        Shrink by ``2**level``, or resize by ``scale``; at most one of them.
    device
        Where it is rendered; ``auto`` is ``cpu``, which was found faster. Pixels of two devices may differ by one level.
    memory_bytes
        Refuse a picture so wide that the rows in work would take more.
    skip_damage
        Leave damaged blocks out, and name them in the result, instead of raising.

    Returns
    -------
    dict
        ``output``, ``width``, ``height``, and ``damage``: one line for every part that was broken, in the order of the file.
    """
    progress = progress or Silent()
    with SplatFile(file) as opened:
        view = view_of(opened, pitch_of(level, scale), skip_damage, device)
        window = output_window(view, region, str(file))
        size = dataclasses.replace(view.size, width=window.width, height=window.height)
        header = opened.header
        if isinstance(opened.path, Path):
            require_apart(opened.path, Path(output))
        check_output(output, size, header.channels, view.dtype, overwrite)
        band_bytes = band_height(output) * size.width * header.channels * view.dtype.itemsize
        held = Footprint(program=program_on(device), gaussians=0, working=_BANDS_HELD * band_bytes)
        require(held, memory_bytes, f"decoding {size} pixels", hint="a --region, or a smaller --scale")
        progress.start("decode", size.megapixels, "MP")
        stored = header.pixels_per_cm
        density = None if stored is None else (stored[0] / view.pitch, stored[1] / view.pitch)
        with open_workers(workers, progress=progress) as pool:
            bands = view.bands(window, band_height(output), pool)
            write_image(
                output, size, header.channels, view.dtype, _counted(bands, progress),
                icc_profile=header.icc_profile, pixels_per_cm=density, overwrite=overwrite,
                workers=max(1, pool.count // 2),  # rendering goes on meanwhile
            )  # fmt: skip
        damage = [str(d) for d in sorted(opened.damage, key=lambda damage: damage.offset)]
        return dict(output=str(output), width=size.width, height=size.height, damage=damage)


def _counted(bands: Any, progress: Progress) -> Any:
    for band in bands:
        yield band
        progress.advance(band.shape[0] * band.shape[1] / 1e6)


def evaluate(
    file: str | Path, image: str | Path, *, workers: int | None = None, progress: Progress | None = None
) -> Evaluation:
    """Compare a file with the image it was made from, streaming; both are read by windows.

    Raises
    ------
    UsageError
        They differ in size, channels or depth.
    """
    progress = progress or Silent()
    with (
        SplatFile(file) as opened,
        open_source(image) as source,
        tempfile.TemporaryDirectory(prefix="smartsplat-") as folder,
    ):
        view = view_of(opened)
        _require_alike(view, source)
        with (
            open_workers(workers, progress=progress) as pool,
            working_copy(source, GiB // 2, Path(folder), levels=1, progress=progress, workers=pool.count) as copy,
        ):
            return _evaluation(score_file(copy, view, pool, progress), opened, source.meta)


def _require_alike(view: View, source: ImageSource) -> None:
    header, meta = view.file.header, source.meta
    ours = (header.size, header.channels, view.dtype)
    if ours != (meta.size, meta.channels, meta.dtype):
        raise UsageError(
            f"{view.file.path} is {header.size} x {header.channels} {view.dtype}, "
            f"{meta.name} is {meta.size} x {meta.channels} {meta.dtype}",
            hint="evaluate a file against the image it was made from",
        )


def _evaluation(score: Score, file: SplatFile, meta: ImageMeta) -> Evaluation:
    psnr = score.psnr()
    return Evaluation(
        psnr=psnr if math.isfinite(psnr) else None, ssim=score.ssim(), ms_ssim=score.ms_ssim(),
        bytes=file.size_bytes, raw_bytes=meta.raw_bytes, ratio=meta.raw_bytes / file.size_bytes,
        bpp=8 * file.size_bytes / meta.size.pixels, gaussians=file.header.count,
        width=meta.size.width, height=meta.size.height,
    )  # fmt: skip


def info(file: str | Path) -> dict[str, Any]:
    """What a file says of itself, where its bytes go, and whether they are whole.

    Returns
    -------
    dict
        Plain values: width, height, channels, bits, gaussians, bytes, raw_bytes, ratio, bpp, block, blocks, fineness,
        ledger (bytes by purpose; None for a damaged file), provenance, icc_profile_bytes, pixels_per_cm, damage.
    """
    with SplatFile(file) as opened:
        header = opened.header
        raw = header.size.pixels * header.channels * header.bits // 8
        damage = [str(d) for d in opened.verify()]
        return dict(
            file=str(file), width=header.size.width, height=header.size.height, channels=header.channels,
            bits=header.bits, gaussians=header.count, bytes=opened.size_bytes, raw_bytes=raw,
            ratio=raw / opened.size_bytes, bpp=8 * opened.size_bytes / header.size.pixels,
            block=header.block, blocks=len(opened.index), fineness=header.fineness,
            ledger=None if damage else opened.ledger(), provenance=header.metadata,
            icc_profile_bytes=len(header.icc_profile or b""), pixels_per_cm=header.pixels_per_cm, damage=damage,
        )  # fmt: skip


def ingest(
    image: str | Path,
    output: str | Path,
    *,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> ImageMeta:
    """Write a multiscale OME-Zarr working copy of an image, streaming, of a pipe as it comes; returns what is known of it.

    Both may be URLs that fsspec knows; ``image`` also ``https://``.
    """
    progress = progress or Silent()
    with open_source(image) as source, open_workers(workers, progress=progress) as pool:
        require_apart(place_of(image), place_of(output))
        with ingest_source(
            source, place_of(output), overwrite=overwrite, progress=progress, workers=pool.count
        ) as copy:
            return copy.meta


def open(file: str | Path) -> SplatImage:
    """Open a ``.ssplat`` file for reading windows."""
    return SplatImage(file)
