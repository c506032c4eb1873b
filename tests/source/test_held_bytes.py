"""What decoders hold of images that cannot be streamed: told from the header, measured, and part of every plan."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import pyvips
import tifffile

from smartsplat_large.comparison import compare
from smartsplat_large.config import PRESETS
from smartsplat_large.errors import MemoryLimitError
from smartsplat_large.lattice import Size
from smartsplat_large.memory import GiB, MiB, parse_bytes
from smartsplat_large.source import ImageMeta, bands, open_source
from smartsplat_large.streaming.allowance import allow

WIDTH, HEIGHT = 400, 10000
SLACK = 4 * MiB
RETURNING = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(MiB), "MALLOC_TRIM_THRESHOLD_": str(MiB)}
"""glibc gives back at once what is freed."""
PEAK_IS_RESET = Path("/proc/self/clear_refs")
Saved = Callable[[Path, np.ndarray], object]


def _vips(kind: str, orientation: int = 1, **options: object) -> Saved:
    def write(path: Path, pixels: np.ndarray) -> None:
        image = pyvips.Image.new_from_array(pixels)
        image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
        path.write_bytes(getattr(image, f"{kind}save_buffer")(**options))

    return write


def _strips(number: int) -> Saved:
    """A TIFF three times as high: smaller strips are cached, which is not counted."""

    def write(path: Path, pixels: np.ndarray) -> None:
        high = np.concatenate([pixels] * 3)
        tifffile.imwrite(path, high, rowsperstrip=len(high) // number, compression="zlib", photometric="rgb")

    return write


STREAMED: dict[str, Saved] = {
    "png": _vips("png", compression=1),
    "jpeg": _vips("jpeg", subsample_mode="off"),
}
HELD: dict[str, Saved] = {
    "png-interlaced": _vips("png", compression=1, interlace=True),
    "png-turned": _vips("png", orientation=3, compression=1),
    "png-interlaced-turned": _vips("png", orientation=3, compression=1, interlace=True),
    "jpeg-progressive": _vips("jpeg", interlace=True, subsample_mode="off"),
    "jpeg-progressive-420": _vips("jpeg", interlace=True, subsample_mode="on"),
    "jpeg-turned": _vips("jpeg", orientation=3, subsample_mode="off"),
    "jpeg-progressive-turned": _vips("jpeg", orientation=3, interlace=True, subsample_mode="off"),
    "webp": _vips("webp", effort=0),
    "webp-lossless": _vips("webp", effort=0, lossless=True),
    "tiff-one-strip": _strips(1),
}
PIPED = ("png-interlaced", "png-turned", "jpeg-progressive", "webp-lossless")


def measure(*paths: str) -> dict[str, list[int]]:
    """For each file: bytes that are said to be held, the growth at the peak while it is read, and what of it stays."""
    found = {}
    for path in paths:
        with open_source(path) as source:
            PEAK_IS_RESET.write_text("5")
            before = psutil.Process().memory_info().rss
            for _ in bands(source, 64):
                pass
            after = psutil.Process().memory_info().rss
            found[Path(path).stem] = [source.meta.held_bytes, _peak_bytes() - before, after - before]
    return found


def _peak_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _write_to(pipe: Path, file: Path) -> None:
    with pipe.open("wb") as out:
        out.write(file.read_bytes())


@pytest.mark.skipif(not os.access(PEAK_IS_RESET, os.W_OK), reason="the peak of a process cannot be reset")
def test_what_is_held_is_what_is_told(tmp_path: Path) -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    noise = np.random.default_rng(7).integers(0, 16, (HEIGHT, WIDTH, 3))
    pixels = (np.stack([x // 2, y // 50, (x + y) // 55], -1) + noise).astype(np.uint8)
    files, small = [], []
    for name, save in (STREAMED | HELD).items():
        files.append(tmp_path / f"{name}.image")
        save(files[-1], pixels)
        small.append(tmp_path / f"small-{name}.image")
        save(small[-1], pixels[: 2 * WIDTH])
    writers = []
    for name in PIPED:
        files.append(tmp_path / f"piped-{name}.image")
        os.mkfifo(files[-1])
        writers.append(threading.Thread(target=_write_to, args=(files[-1], tmp_path / f"{name}.image"), daemon=True))
        writers[-1].start()
    done = subprocess.run(
        [sys.executable, __file__, *map(str, small + files)], env=RETURNING, capture_output=True, text=True, check=True
    )
    measured = json.loads(done.stdout)
    for writer in writers:
        writer.join()
    for name in (*STREAMED, *HELD, *(f"piped-{name}" for name in PIPED)):
        held, peak, stays = measured[name]
        assert (held == 0) == (name in STREAMED), name
        assert held / 1.5 <= peak <= held + SLACK, name
        assert stays <= SLACK, name


def _of_size(size: Size, path: Path, orientation: int = 1, **options: object) -> Path:
    """A small JPEG whose header says that it is larger."""
    _vips("jpeg", orientation, subsample_mode="off", **options)(path, np.zeros((64, 64, 3), np.uint8))
    data = bytearray(path.read_bytes())
    frame = data.index(b"\xff\xc2" if options.get("interlace") else b"\xff\xc0")
    data[frame + 5 : frame + 9] = size.height.to_bytes(2, "big") + size.width.to_bytes(2, "big")
    path.write_bytes(data)
    return path


def _meta(path: Path) -> ImageMeta:
    with open_source(path) as source:
        return source.meta


def test_a_plan_refuses_what_its_decoder_cannot_hold(tmp_path: Path) -> None:
    size, config = Size(30000, 30000), PRESETS["balanced"].replace(ratio=500.0)
    plain = allow(_meta(_of_size(size, tmp_path / "plain.jpg")), config, 4 * GiB, 2)
    meta = _meta(_of_size(size, tmp_path / "progressive.jpg", interlace=True))
    assert meta.held_bytes == 6 * size.pixels
    with pytest.raises(MemoryLimitError, match="copying 30000x30000 pixels") as caught:
        allow(meta, config, 4 * GiB, 2)
    hint = str(caught.value.hint)
    assert "a progressive JPEG" in hint
    assert "5.03 GiB" in hint
    enough = allow(meta, config, parse_bytes(hint.split()[1].rstrip(",")), 2)
    # Workers of a cluster do not decode it.
    assert enough.task_bytes == plain.task_bytes
    with pytest.raises(MemoryLimitError) as caught:
        allow(meta, config, GiB, 2)
    assert "JPEG" not in str(caught.value.hint)


def test_a_comparison_of_a_region_counts_the_decoder(tmp_path: Path) -> None:
    image = _of_size(Size(30000, 30000), tmp_path / "progressive.jpg", interlace=True)
    with pytest.raises(MemoryLimitError, match="to compare 64x64 pixels") as caught:
        compare(image, region=(0, 0, 64, 64))
    assert "a progressive JPEG" in str(caught.value.hint)


def test_a_temporary_file_is_told_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    turned, plain = (_of_size(Size(30000, 30000), tmp_path / f"{o}.jpg", orientation=o) for o in (6, 1))
    assert _meta(plain).remark is None
    assert str(_meta(turned).remark).startswith(
        f"while it is read, a temporary file takes 2.51 GiB in {tempfile.gettempdir()}"
    )
    smaller = _of_size(Size(7000, 7000), tmp_path / "smaller.jpg", orientation=6)
    for free, said in ((GiB, None), (MiB, "; 1.00 MiB are free, so it may not fit")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: SimpleNamespace(total=1 << 40, free=free))
        remark = _meta(smaller).remark
        assert remark is None if said is None else str(remark).endswith(said)


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))  # noqa: T201
