"""Sizes as people write them, and what is said of a disk."""

from __future__ import annotations

import platform
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from smartsplat_large.errors import DiskFullError, UsageError
from smartsplat_large.memory import GiB, MiB, parse_bytes, require_room, returned


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GiB", 4 << 30), ("500MB", 500_000_000), ("65536", 65536), (" 1.5 kib ", 1536), ("2g", 2 << 30), (".5KB", 500)],
)
def test_a_size_takes_units(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1", "0", "0.5", "4 XB", "9" * 400, "9" * 308 + "TiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("free", "said"),
    [
        (10 * GiB, ""),
        (10 * GiB - 1, "; 10.00 GiB are free, so it may not fit"),
        (GiB, "; 1.00 GiB are free, so it may not fit"),
    ],
)
def test_a_doubt_of_room_is_said(monkeypatch: pytest.MonkeyPatch, free: int, said: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=1 << 50, free=free))
    assert require_room(Path("/scans"), 10 * GiB, "a", hint="b") == said


def test_what_can_hardly_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=1 << 50, free=GiB // 2))
    with pytest.raises(DiskFullError, match=r"^a copy of 10 GiB; 512\.00 MiB are free, less than a tenth") as caught:
        require_room(Path("/scans"), 10 * GiB, "a copy of 10 GiB", hint="b")
    assert caught.value.hint == "b"


def test_nothing_is_said_of_a_place_of_which_nothing_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for unknown in ("s3://bucket/key", tmp_path / "absent"):
        assert require_room(unknown, 1 << 60, "a", hint="b") == ""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=0, free=0))
    assert require_room(tmp_path, 1 << 60, "a", hint="b") == ""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries of C are left alone")
def test_what_is_freed_is_returned() -> None:
    """Small arrays, of which the last one stays: what is below it in the heap, glibc keeps."""
    resident = psutil.Process().memory_info

    def freed() -> np.ndarray:
        return [np.ones(12_000) for _ in range(2000)][-1]

    last = freed()
    kept = resident().rss
    with returned():
        for _ in range(100):
            time.sleep(0.1)
            if resident().rss < kept - 100 * MiB:
                break
    assert resident().rss < kept - 100 * MiB
    assert last.all()
