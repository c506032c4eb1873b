"""Feed the reader of .ssplat files with forged ones, and keep those that it does not answer with an error of its own.

    python pipelines/fuzz.py [--minutes 60] [--seed 0] [--findings DIR] [--plain]

Runs in the environment that pipelines/check.py sets up. Small files are mutated, by bytes and by fields; the checksums
of nine in ten are set right again, so that mutations get through to the parser and the entropy decoder. Where ``atheris``
can be imported (it is not among the dependencies), libFuzzer steers by the branches of ``smartsplat_large.codec``;
``--plain`` does without. A case is a file opened, verified, decoded and rendered. It may take 10 s of a processor, and the
memory that ``allowance`` states: it runs in a process that the system ends beyond that. Exits with 1 if anything was
found: a file a finding, with what happened in ``.txt`` beside it.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import hashlib
import importlib
import inspect
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from smartsplat_large.codec import (
    SplatFile,
    container,
    contexts,
    directory,
    entropy,
    layout,
    models,
    payload,
    reader,
    standard,
    version2,
)
from smartsplat_large.codec.container import Cursor, FormatError, check, check_bytes, sealed_bytes
from smartsplat_large.codec.entropy import Histogram, Kernel
from smartsplat_large.codec.standard import Standard
from smartsplat_large.codec.tokens import STREAMS
from smartsplat_large.codec.writer import Extras, pack, quantized
from smartsplat_large.errors import SplatFileError
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Size, Window
from smartsplat_large.memory import MiB
from smartsplat_large.render.cpu import CpuRenderer
from smartsplat_large.streaming.view import View

CASE_S = 10
FIXED_BYTES, BYTES_PER_GAUSSIAN = 512 * MiB, 600
"""What a case may take beside the program: always, and for each Gaussian that a file may announce."""
LARGEST_BYTES = 1 << 15
OLD = Path(__file__).parents[1] / "tests" / "data" / "golden" / "version2.ssplat"
"""No writer of version 2 is left."""
WINDOW = Window(3, 5, 40, 30)
MODULES = (container, contexts, directory, entropy, layout, models, payload, reader, standard, version2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--findings", type=Path, default=Path("findings"), metavar="DIR")
    parser.add_argument("--plain", action="store_true", help="mutate without looking at branches")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        run_cases(given.child, given.findings, given.seed, given.minutes, guided=not given.plain)
        return
    with tempfile.TemporaryDirectory(prefix="smartsplat-") as folder:
        raise SystemExit(supervise(given, Path(folder)))


def supervise(given: argparse.Namespace, folder: Path) -> int:
    """Run processes of cases until the time is over; one that died leaves the case that it died of."""
    ends, seed = time.monotonic() + 60 * given.minutes, given.seed
    given.findings.mkdir(parents=True, exist_ok=True)
    while (left := ends - time.monotonic()) > 0:
        again = ["--seed", str(seed), "--findings", str(given.findings), "--minutes", str(left / 60)]
        command = [sys.executable, __file__, "--child", str(folder), *again, *(["--plain"] if given.plain else [])]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            keep(
                given.findings, (folder / "case.ssplat").read_bytes(), f"exit {done.returncode}\n{done.stderr[-4000:]}"
            )
        seed += 1
    cases = sum(int(path.read_text()) for path in folder.glob("*.count"))
    found = sorted(given.findings.glob("*.ssplat"))
    print(f"{cases} cases, {len(found)} findings", *found, sep="\n")
    return 1 if found else 0


def keep(findings: Path, case: bytes, what: str) -> None:
    """One file for each way to fail: the place in the code, or what ended the process."""
    places = [line for line in what.splitlines() if line.lstrip().startswith(("File", "exit"))]
    name = hashlib.sha256("\n".join(places[-2:] or [what]).encode()).hexdigest()[:12]
    if not (findings / f"{name}.ssplat").exists():
        (findings / f"{name}.ssplat").write_bytes(case)
        (findings / f"{name}.txt").write_text(what)


def run_cases(folder: Path, findings: Path, seed: int, minutes: float, guided: bool) -> None:
    """Cases one after the other, in this process."""
    seeds = samples()
    for raw in seeds:
        judge(raw, folder, findings)  # compiles
    limit = resident_bytes() + max(allowance(raw) for raw in seeds)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    counter = folder / f"{seed}.count"
    counts = collections.Counter[str]()

    def run(case: bytes) -> None:
        judge(case, folder, findings)
        counts["cases"] += 1
        if counts["cases"] % 64 == 0:
            counter.write_text(str(counts["cases"]))

    with contextlib.suppress(ImportError):
        if guided:
            steer(run, seeds, folder, seed, minutes)
    ends, rng = time.monotonic() + 60 * minutes, random.Random(seed)
    while time.monotonic() < ends:
        run(mutated(rng.choice(seeds), rng, seeds))


def steer(run: Callable[[bytes], None], seeds: list[bytes], folder: Path, seed: int, minutes: float) -> None:
    """libFuzzer's loop. It ends the process."""
    atheris: Any = importlib.import_module("atheris")

    for module in MODULES:
        for function in functions_of(module):
            atheris.instrument_func(function)
    corpus = folder / "corpus"
    corpus.mkdir(exist_ok=True)
    for number, raw in enumerate(seeds):
        (corpus / f"sample{number}").write_bytes(raw)

    def mutate(data: bytes, limit: int, number: int) -> bytes:
        rng = random.Random(number)
        if rng.random() < 0.5:
            return mutated(data, rng, seeds)[:limit]
        return maybe_resealed(atheris.Mutate(data, limit), rng)

    options = [
        f"-seed={seed + 1}",
        f"-max_total_time={int(60 * minutes)}",
        f"-max_len={LARGEST_BYTES}",
        "-rss_limit_mb=0",
    ]
    options += [f"-artifact_prefix={folder}/", "-timeout=600"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], run, custom_mutator=mutate)
    atheris.Fuzz()


def functions_of(module: ModuleType) -> list[FunctionType]:
    """Functions and methods that a module defines, but for compiled ones."""
    own = [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__]
    methods = [value for kind in own if inspect.isclass(kind) for value in vars(kind).values()]
    return [value for value in own + methods if isinstance(value, FunctionType)]


def judge(case: bytes, folder: Path, findings: Path) -> None:
    """Run a case; what it should not have done is kept."""
    path = folder / "case.ssplat"
    path.write_bytes(case)
    signal.setitimer(signal.ITIMER_PROF, CASE_S)  # without a handler, it ends the process
    try:
        read_all(path)
    except SplatFileError:
        pass
    except BaseException as error:  # a panic of a library in Rust is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        keep(findings, case, traceback.format_exc())
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def read_all(path: Path) -> None:
    """Whatever a reader does with a file."""
    with SplatFile(path) as file:
        file.verify()
        window = WINDOW.intersection(file.header.size.window)
        file.gaussians(window, margin=2, on_damage="skip")
        whole = file.gaussians(on_damage="skip")
        for column in (whole.xy, whole.scale, whole.rotation, whole.color):
            assert np.isfinite(column).all()
        View(file, CpuRenderer(file.header.background), skip_damage=True).read(window)
        file.ledger()


def allowance(raw: bytes) -> int:
    """Memory that reading a file of so many bytes may take."""
    most = directory.COUNT_SLACK + directory.COUNT_PER_BYTE * max(len(raw), LARGEST_BYTES)
    return FIXED_BYTES + BYTES_PER_GAUSSIAN * most


def resident_bytes() -> int:
    """Address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def samples() -> list[bytes]:
    """Small files that have between them all that a file may have."""
    rng = np.random.default_rng(0)
    extras = Extras(background=(3, 5, 7), metadata={"a": [1, 2]}, icc_profile=b"profile", pixels_per_cm=(100.0, 100.0))
    return [
        sample(rng, 40, 1, Size(60, 50)),
        sample(rng, 60, 2, Size(1, 3000)),
        sample(rng, 300, 3, Size(200, 150), extras=extras, layers=(6, 4, 1), block=6),
        sample(rng, 200, 4, Size(150, 150), bits=16, block=6, extras=Extras(background=(9, 0, 300, 65535))),
        sample(rng, 100, 3, Size(90, 70), far=True, step=-500),
        OLD.read_bytes(),
    ]


def sample(
    rng: np.random.Generator, count: int, channels: int, size: Size, *, bits: int = 8, block: int = 0,
    layers: tuple[int, ...] = (1,), far: bool = False, step: int = -100, extras: Extras | None = None,
) -> bytes:  # fmt: skip
    """A file of drawn Gaussians; ``block`` is the exponent of its blocks."""
    extent = (size.width, size.height)
    xy = rng.random((count, 2)) * extent + (rng.normal(0, 1e4, (count, 2)) if far else 0)
    scale = np.exp(rng.normal(0.5, 0.7, (count, 2))).astype(np.float32)
    color = rng.normal(0, 0.3, (count, channels)).astype(np.float32)
    drawn = Gaussians(xy, scale, rng.uniform(-1.5, 1.5, count).astype(np.float32), color)
    _, plan = quantized(drawn, size, step)
    plan = dataclasses.replace(plan, leaf=0, block_exponent=block, least_octaves=layers)
    symbols, _ = quantized(drawn, size, step, plan)
    return pack(symbols, plan, bits, step, extras or Extras()).data


def mutated(raw: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """One to four changes, then the checksums."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        raw = rng.choice((flipped, overwritten, cut, spliced, refielded, remodeled))(raw, rng, others)
    return maybe_resealed(raw[:LARGEST_BYTES], rng)


def flipped(raw: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    """A bit; the header's as often as all the rest."""
    at = rng.randrange(max(1, min(len(raw), 64 if rng.random() < 0.5 else len(raw))))
    return raw[:at] + bytes(byte ^ 1 << rng.randrange(8) for byte in raw[at : at + 1]) + raw[at + 1 :]


def overwritten(raw: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    """Some bytes by bytes that numbers are made of."""
    at = rng.randrange(len(raw) + 1)
    some = bytes(rng.choice((0, 1, 127, 128, 255, rng.randrange(256))) for _ in range(rng.choice((1, 1, 2, 4, 9))))
    return raw[:at] + some + raw[at + rng.choice((0, len(some))) :]


def cut(raw: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    """A piece is missing."""
    at = rng.randrange(len(raw) + 1)
    return raw[:at] + raw[at + rng.choice((1, 2, 16, len(raw))) :]


def spliced(raw: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """A piece of another file."""
    other, at = rng.choice(others), rng.randrange(len(raw) + 1)
    start, length = rng.randrange(len(other)), rng.choice((4, 16, 200))
    return raw[:at] + other[start : start + length] + raw[at + rng.choice((0, length)) :]


def refielded(raw: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    """A number of the header by another one."""

    def change(head: container.Head) -> container.Head:
        number = rng.choice((0, 1, 2, rng.randrange(300), rng.randrange(1 << 20), 1 << rng.randrange(34)))
        if rng.random() < 0.5:
            name = rng.choice(("channels", "bits", "count", "step_index", "index_bytes", "icc_bytes", "metadata_bytes"))
            limited = {"channels": number % 4 + 1, "bits": rng.choice((8, 16))}
            chosen: dict[str, Any] = {name: limited.get(name, number)}
            return dataclasses.replace(head, **chosen)
        name = rng.choice(("size", "leaf", "block_exponent", "wide", "least_octaves"))
        plan, wide = head.layout, head.layout.wide
        changed: dict[str, Any] = {
            "size": Size(max(number, 1), rng.choice((1, plan.size.height, max(number, 1)))),
            "leaf": number % 31 - 6,
            "block_exponent": number % 41,
            "wide": dataclasses.replace(
                wide, **{rng.choice(("x", "y", "columns", "rows", "depth")): number % (1 << 30)}
            ),
            "least_octaves": (*sorted(rng.sample(range(2, 25), rng.randrange(4)), reverse=True), 1),
        }
        return dataclasses.replace(head, layout=dataclasses.replace(plan, **{name: changed[name]}))

    return reheaded(raw, change)


def remodeled(raw: bytes, rng: random.Random, _: list[bytes]) -> bytes:
    """Another kernel, standard model or histogram."""

    def change(head: container.Head) -> container.Head:
        old = head.models
        families, histograms = dict(old.families), dict(old.histograms)
        name = rng.choice(list(STREAMS))
        if rng.random() < 0.3 and name in families:
            families[name] = Kernel(rng.randrange(-127, 128), rng.randrange(64), rng.randrange(4))
        elif rng.random() < 0.3 and name in families:
            families[name] = Standard(tuple(rng.randrange(-8, 8) for _ in range(3)))
        else:
            first, length = rng.randrange(300), rng.choice((1, 1, 2, 20))
            levels = bytes(rng.choice((0, 1, 40, 255)) for _ in range(length))
            histograms[name, rng.randrange(70)] = Histogram(first, levels)
        split = rng.randrange(16) if rng.random() < 0.2 else old.split
        return dataclasses.replace(head, models=entropy.Models(families, histograms, split))

    return reheaded(raw, change)


def reheaded(raw: bytes, change: Callable[[container.Head], container.Head]) -> bytes:
    """``raw`` with another header; as it was, where it has none or the new one cannot be written."""
    try:
        start, end = container.prefix_length(raw)
        head = container.head_from_bytes(raw[start:end], raw[len(container.MAGIC)])
        return container.head_to_bytes(change(head)) + raw[end + check_bytes(end) :]
    except (FormatError, ValueError, OverflowError, KeyError):
        return raw


def maybe_resealed(raw: bytes, rng: random.Random) -> bytes:
    return resealed(raw) if rng.random() < 0.9 else raw


def resealed(raw: bytes) -> bytes:
    """``raw`` with the checksums that its bytes should have, as far as its parts can be told from each other."""
    out = bytearray(raw)

    def seal(at: int, length: int) -> int:
        right = check(bytes(out[at : at + length])) if length else b""
        if at + length + len(right) <= len(out):
            out[at + length : at + length + len(right)] = right
        return at + length + len(right)

    with contextlib.suppress(FormatError):
        start, end = container.prefix_length(raw)
        at = seal(0, end)
        head = container.head_from_bytes(bytes(out[start:end]), out[len(container.MAGIC)])
        listed, blocks = at, head.layout.blocks - 1
        at += sealed_bytes(head.index_bytes)
        at = seal(at, head.icc_bytes)
        at = seal(at, head.metadata_bytes)
        if blocks * head.layout.layers > head.index_bytes:
            return bytes(out)
        cursor = Cursor(bytes(out[listed : listed + head.index_bytes]))
        lengths = iter([cursor.varint() for _ in range(blocks * head.layout.layers)])
        place = listed + cursor.at
        for wide_bytes in head.wide_bytes:
            at = seal(at, wide_bytes)
            for length in (next(lengths) for _ in range(blocks)):
                right = check(bytes(out[at : at + length])) if length else b""
                if place + len(right) <= listed + head.index_bytes:
                    out[place : place + len(right)] = right
                place, at = place + len(right), at + length
        seal(listed, head.index_bytes)
    return bytes(out)


if __name__ == "__main__":
    main()
