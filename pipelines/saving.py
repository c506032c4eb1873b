"""What saving the state of a fit costs: seconds, bytes, and the share of the time between two saves.

    python pipelines/saving.py [--gaussians 200000 2000000 10000000] [--folder .] [--json FILE]

Runs in the environment that pipelines/check.py sets up. Saves a descent of a colour picture three times, and
reads the last save back; on the disk that holds ``--folder``. "wait" is the part of the seconds that
is not the processor's; "share" is of the time of a fit that saves as often as it may.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from reporting import fixed, guarded, note, parser, publish, table

from smartsplat_large.config import preset
from smartsplat_large.fitting.optimizer import AdamState
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Size
from smartsplat_large.memory import MiB
from smartsplat_large.progress import Silent
from smartsplat_large.streaming.checkpoint import Checkpoint
from smartsplat_large.streaming.state import Account, Best, Place, descent_snapshot

TIMES = 3
SIDE = 30_000
IDENTITY = {"version": "", "state format": 0, "image": {}, "settings": {}, "plan": {}}


@dataclass(frozen=True, slots=True)
class Row:
    """One number of Gaussians."""

    gaussians: int
    bytes: int
    save_s: float
    wait_s: float
    read_s: float
    pause_s: float
    """Between two saves, at least."""

    @property
    def share(self) -> float:
        return self.save_s / (self.save_s + self.pause_s)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--gaussians", nargs="+", type=int, default=[200_000, 2_000_000, 10_000_000])
    arguments.add_argument("--folder", type=Path, default=Path())
    given = arguments.parse_args()
    rows = [_measured(count, given.folder) for count in given.gaussians]
    headings = ("Gaussians", "MiB", "save s", "of them wait", "read s", "pause s", "share %")
    cells = [
        (row.gaussians, fixed(row.bytes / MiB, 0), fixed(row.save_s, 2), fixed(row.wait_s, 2), fixed(row.read_s, 2),
         fixed(row.pause_s, 0), fixed(100 * row.share, 1))
        for row in rows
    ]  # fmt: skip
    publish(table(headings, cells), given.json, rows)


def _measured(count: int, folder: Path) -> Row:
    note(f"{count} Gaussians")
    size, place, random = Size(SIDE, SIDE), Place(), np.random.default_rng(0)
    gaussians = Gaussians(
        random.random((count, 2)) * SIDE,
        *(random.random(shape, np.float32) + 0.5 for shape in ((count, 2), (count,), (count, 3))),
    )
    state, best = AdamState.start(gaussians, size, preset("balanced").optimizer), Best(gaussians)
    # Storage leaves out chunks of zeros.
    for moments in (state.mean, state.square):
        moments[:] = random.random(moments.shape, np.float32)
    with tempfile.TemporaryDirectory(prefix="smartsplat-", dir=folder) as name:
        checkpoint = _checkpoint(Path(name))
        checkpoint.hold(lambda: descent_snapshot(state, best, place, Account()))
        saves = []
        for place.taken in range(1, TIMES + 1):
            busy = time.process_time()
            seconds = _seconds(checkpoint.commit)
            saves.append((seconds, seconds - time.process_time() + busy))
        stored = sum(path.stat().st_size for path in Path(name).rglob("*") if path.is_file()) // 2
        read = _seconds(lambda: _checkpoint(Path(name)))
        save, wait = saves[-1]
        return Row(count, stored, save, wait, read, checkpoint.pause_s)


def _checkpoint(folder: Path) -> Checkpoint:
    made = Checkpoint(folder / "state", IDENTITY, Silent())
    made.open(folder / "output", resume=True)
    return made


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    os.environ.pop("SMARTSPLAT_COMMIT_S", None)
    guarded(main)
