"""Columns in mapped files: the same numbers, little of them in memory, nothing left behind."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from smartsplat_large import columns
from smartsplat_large.errors import DiskFullError

MiB = 1 << 20
LIBRARIES = MiB
"""What a process takes beside its columns, while it goes through them: 0.4 MiB were measured."""
TRIES = 12


def test_a_mapped_column_is_an_array_like_any_other(tmp_path: Path) -> None:
    with columns.mapped(tmp_path):
        column = columns.zeros((1 << 20, 3), np.float32)
        column[5] = 1, 2, 3
        part = column[4:6]
        copy, chosen = columns.copied(column), columns.taken(column, np.array([5, 0, 5]))
        both = columns.joined([column[:6], chosen])
    assert type(column) is np.ndarray
    assert column.flags.writeable
    assert part[1].tolist() == [1, 2, 3]
    assert not part[0].any()
    assert copy.dtype == np.float32
    assert (copy == column).all()
    assert copy.sum() == 6
    assert chosen.tolist() == [[1, 2, 3], [0, 0, 0], [1, 2, 3]]
    assert both.shape == (9, 3)
    assert both.sum() == 18


def test_columns_outlive_the_block_and_leave_no_file(tmp_path: Path) -> None:
    with columns.mapped(tmp_path):
        column = columns.empty(1 << 20)
        column[:] = 7
        assert not list(tmp_path.iterdir())
    gc.collect()
    column += 1
    assert (column == 8).all()


def test_files_begin_where_memory_ends(tmp_path: Path) -> None:
    def files() -> int:
        return len(columns._held[-1]._files)

    with columns.mapped(tmp_path, in_memory=20 * MiB):
        first, second = columns.empty(1 << 20), columns.empty(1 << 20)
        assert files() == 0
        third = columns.zeros(1 << 20)
        assert files() == 1
        first[:], second[:] = 1, 2
        assert not third.any()
        del first
        again = columns.empty(1 << 20)
        assert files() == 1
        again[:] = 3
        assert (second == 2).all()


def test_outside_columns_are_in_memory() -> None:
    assert columns.empty((3, 2), np.int32).flags.owndata
    assert not columns.zeros(1 << 20).any()


def test_what_is_given_back_is_used_again(tmp_path: Path) -> None:
    with columns.mapped(tmp_path):
        places = set()
        for _ in range(5):
            column = columns.empty(1 << 19)
            places.add(column.ctypes.data)
            view = column[1:]
            del column
            other = columns.empty(1 << 19)
            assert other.ctypes.data != view.ctypes.data - 8, "a view keeps the whole column"
            del view, other
    assert len(places) <= 2


@pytest.mark.skipif(not columns._STATM.exists(), reason="only Linux tells how much is resident")
def test_little_of_them_is_resident(tmp_path: Path) -> None:
    """Columns of 768 MiB, of which 16 may be resident, and some for the thread to come late: it does not do so every time."""
    program = f"""
import re
from pathlib import Path
from smartsplat_large import columns

def of_memory(name):
    return int(re.search(rf"{{name}}:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10

kept, before, peaks = [], of_memory("VmRSS"), []
with columns.mapped(Path({str(tmp_path)!r})):
    while len(peaks) < {TRIES} and min(peaks, default={1 << 40}) > {columns.RESIDENT + columns.UNSEEN + LIBRARIES}:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is from now on
        kept = kept or [columns.zeros(1 << 24) for _ in range(6)]
        for column in kept:
            for rows in columns.chunks(len(column)):
                column[rows] += 1
        assert all(column[rows].min() > len(peaks) for column in kept for rows in columns.chunks(len(column)))
        peaks.append(of_memory("VmHWM") - before)
print(*peaks)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert min(map(int, done.stdout.split())) <= columns.RESIDENT + columns.UNSEEN + LIBRARIES


def test_a_full_disk_is_told_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(columns, "_reserve", full)
    with columns.mapped(tmp_path), pytest.raises(DiskFullError, match="No space left on device"):
        columns.empty(1 << 20)


def test_true_rows_are_those_of_numpy() -> None:
    mask = np.random.default_rng(0).random(200_000) < 0.3
    assert (columns.true_rows(mask) == np.flatnonzero(mask)).all()
    assert columns.true_rows(mask[:0]).dtype == np.int64


def test_chunks_part_the_rows() -> None:
    assert [(s.start, s.stop) for s in columns.chunks(7, 3)] == [(0, 3), (3, 6), (6, 7)]
    assert not list(columns.chunks(0))
