"""What a command reads and writes, settled before it begins: where, beside what, and not over itself."""

from __future__ import annotations

from pathlib import Path

from smartsplat_large.atomic_output import check_destination
from smartsplat_large.config import FitConfig
from smartsplat_large.errors import MissingDependencyError, UsageError
from smartsplat_large.places import Place, joined, place_of, shown
from smartsplat_large.remote_output import check_address
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


def state_place(target: Place, config: FitConfig, work: Place | None) -> Place | None:
    """Where a fit is saved: beside its output, or at the address of its work.

    A search for a quality takes several fits, none of which is.
    """
    if config.psnr is not None:
        return None
    name = f"{_name(target)}.state"
    if isinstance(work, str):
        return place_of(joined(work, name))
    return target.with_name(name) if isinstance(target, Path) else f"{target}.state"


def check_output_place(target: Place, *, overwrite: bool) -> None:
    """Do nothing if a file may be written to a path or an address.

    Raises
    ------
    OutputExistsError, UsageError, MissingDependencyError
        It may not.
    """
    if isinstance(target, Path):
        check_destination(target, overwrite=overwrite)
    else:
        check_address(target, overwrite=overwrite)


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


def fit_target(image: Place, output: str | Path | None) -> Place:
    """Where a fit writes: ``output``, by default beside the image, or here if that is at an address."""
    target = place_of(output) if output is not None else _beside(image)
    name = Path(_name(target))
    if name.suffix.lower() in _IMAGE_ENDINGS:
        raise UsageError(f"{target}: a fit writes a .ssplat file", hint=f"-o {name.with_suffix('.ssplat')}")
    require_apart(image, target)
    return target


def _beside(image: Place) -> Path:
    if isinstance(image, Path):
        # The image may be the zarr folder that one is in, which "." names.
        return (image if image.name.strip(".") else image.resolve()).with_suffix(".ssplat")
    if not _name(image):
        raise UsageError(f"{shown(image)}: has no name to call the file by", hint="-o OUT.ssplat")
    return Path(_name(image)).with_suffix(".ssplat")


def _name(place: Place) -> str:
    return place.name if isinstance(place, Path) else Path(shown(place).partition("://")[2]).name


def require_apart(source: Place, output: Place) -> None:
    """Do nothing unless ``output`` would replace what is read.

    Raises
    ------
    UsageError
        They are the same file or folder.
    """
    if isinstance(source, str) or isinstance(output, str):
        same = source == output
    else:
        same = str(source) != STDIN and output.exists() and output.samefile(source)
    if same:
        raise UsageError(f"{output}: is the input itself", hint="name another output")
