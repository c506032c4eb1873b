"""What a command reads and writes, settled before it begins: where, beside what, and not over itself."""

from __future__ import annotations

from pathlib import Path

from smartsplat_large.atomic_output import check_destination
from smartsplat_large.config import FitConfig
from smartsplat_large.errors import MissingDependencyError, UsageError
from smartsplat_large.remote import Place, shown
from smartsplat_large.source.piped import STDIN, pipe_name
from smartsplat_large.streaming.cluster import has_dashboard

_IMAGE_ENDINGS = {".tif", ".tiff", ".png", ".jpg", ".jpeg", ".webp", ".svs", ".npy", ".zarr", ".ppm", ".pgm"}


def require_pipe_will_do(image: str | Path, output: str | Path | None, resume: bool) -> None:
    """Do nothing if a fit can do without what a pipe cannot give.

    Raises
    ------
    UsageError
        A name to write beside, or a second reading, is wanted of it.
    """
    if str(image) == STDIN and output is None:
        raise UsageError(f"{pipe_name(image)}: has no name to write beside", hint="-o OUT.ssplat")
    if resume:
        raise UsageError(
            f"{pipe_name(image)}: is a pipe, which cannot be read again to resume a fit",
            hint="ingest it, and fit the working copy: that can be resumed",
        )


def state_folder(target: Path, config: FitConfig) -> Path | None:
    """Where a fit is saved; a search for a quality takes several fits, none of which is."""
    return None if config.psnr is not None else target.with_name(f"{target.name}.state")


def report_target(wanted: str | Path | None, overwrite: bool) -> Path | None:
    """Where to write a performance report, if one is wanted; refused where it cannot be made."""
    if wanted is None:
        return None
    if not has_dashboard():
        raise MissingDependencyError(
            "a performance report needs the packages distributed and bokeh",
            hint="pip install 'smartsplat-large[dashboard]'",
        )
    report = Path(wanted)
    check_destination(report, overwrite=overwrite)
    return report


def fit_target(image: Place, output: str | Path | None) -> Path:
    """Where a fit writes: ``output``, by default beside the image, or here if that is at an address."""
    target = Path(output) if output is not None else _beside(image)
    if target.suffix.lower() in _IMAGE_ENDINGS:
        raise UsageError(f"{target}: a fit writes a .ssplat file", hint=f"-o {target.with_suffix('.ssplat').name}")
    require_apart(image, target)
    return target


def _beside(image: Place) -> Path:
    if isinstance(image, Path):
        # The image may be the zarr folder that one is in, which "." names.
        return (image if image.name.strip(".") else image.resolve()).with_suffix(".ssplat")
    name = Path(shown(image).partition("://")[2]).name
    if not name:
        raise UsageError(f"{shown(image)}: has no name to call the file by", hint="-o OUT.ssplat")
    return Path(name).with_suffix(".ssplat")


def require_apart(source: Place, output: Path) -> None:
    """Do nothing unless ``output`` would replace what is read.

    Raises
    ------
    UsageError
        They are the same file or folder.
    """
    if isinstance(source, Path) and str(source) != STDIN and output.exists() and output.samefile(source):
        raise UsageError(f"{output}: is the input itself", hint="name another output")
