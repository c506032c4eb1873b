from __future__ import annotations

import pickle
import threading

import numpy as np
import pytest

from smartsplat_large.codec import SplatFile, encode, write_atomic
from smartsplat_large.codec.byte_file import ByteFile
from smartsplat_large.errors import OutputExistsError, UsageError
from smartsplat_large.gaussians import Gaussians, half_extent
from smartsplat_large.lattice import Size, Window

LARGE = Size(1400, 1000)


def same(a: Gaussians, b: Gaussians) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("xy", "scale", "rotation", "color"))


def test_header_and_extras_survive(batch, reopened):
    extras = {
        "metadata": {"program": "x", "seed": 3},
        "icc_profile": bytes(range(256)) * 9,
        "pixels_per_cm": (40.0, 80.0),
    }
    with reopened(batch(50, Size(300, 200)), Size(300, 200), **extras) as file:
        header = file.header
        assert (header.size, header.channels, header.bits, header.block) == (Size(300, 200), 3, 8, 0)
        assert {name: getattr(header, name) for name in extras} == extras
        assert header.fineness == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_channels_and_depth(batch, tmp_path, channels, bits):
    size = Size(64, 64)
    given = batch(40, size, channels)
    encoded = encode(given, size=size, bits=bits, fineness=50)
    path = tmp_path / "a.ssplat"
    write_atomic(path, encoded.parts)
    file = SplatFile(path)
    found = file.gaussians()
    assert (file.header.channels, file.header.bits) == (channels, bits)
    # The order is that of the cells: compare the strongest by place.
    nearest = np.linalg.norm(found.xy[:, None] - given.xy[encoded.kept], axis=2).argmin(axis=0)
    assert np.abs(found.color[nearest] - given.color[encoded.kept]).mean() < 5e-3


def test_one_gaussian_is_enough_and_none_is_refused(batch, reopened):
    size = Size(64, 64)
    one = batch(1, size)
    assert len(reopened(one, size).gaussians()) == 1
    black = Gaussians(one.xy, one.scale, one.rotation, one.color * 0)
    assert len(reopened(black, size).gaussians()) == 1
    with pytest.raises(ValueError, match="0 Gaussians of 3 channels"):
        encode(Gaussians.empty(3), size=size, bits=8)
    with pytest.raises(ValueError, match="not finite"):
        encode(Gaussians(one.xy * np.nan, one.scale, one.rotation, one.color), size=size, bits=8)


@pytest.mark.parametrize(("side", "count"), [(1, 7000), (4, 20_000)])
def test_thousands_of_faint_gaussians_in_a_few_pixels_are_read_again(tmp_path, side, count):
    """Their blocks are larger than the picture, whose cells alone count."""
    rng = np.random.default_rng(0)
    scale = np.exp(rng.uniform(-4, 0.2, (count, 2))).astype(np.float32)
    color = rng.normal(0, 1e-3, (count, 1)).astype(np.float32)
    given = Gaussians(rng.random((count, 2)) * side, scale, np.zeros(count, np.float32), color)
    encoded = encode(given, size=Size(side, side), bits=8, fineness=1.0)
    write_atomic(path := tmp_path / "a.ssplat", encoded.parts)
    with SplatFile(path) as file:
        assert len(file.gaussians()) == len(encoded.kept) > 1000


def test_what_cannot_show_is_left_out(batch):
    size = Size(100, 100)
    given = batch(20, size)
    far = Gaussians(given.xy + np.array([0, 5000]), given.scale, given.rotation, given.color)
    faint = Gaussians(given.xy, given.scale, given.rotation, given.color * np.float32(1e-9))
    kept = encode(Gaussians.concatenate([far, given, faint]), size=size, bits=8).kept
    assert set(kept) <= set(range(20, 40))
    assert len(kept) > 15


def test_small_files_have_small_overhead(batch):
    size = Size(768, 512)
    encoded = encode(batch(36, size), size=size, bits=8, fineness=0.6)
    assert encoded.size_bytes <= 242
    assert len(encoded.parts[0]) <= 37


def test_a_window_holds_every_gaussian_that_reaches_it(batch, reopened):
    with reopened(batch(12000, LARGE), LARGE) as file:
        assert file.header.block == 512
        everything = file.gaussians()
        assert len(everything) == file.header.count
        extent = half_extent(everything.scale, everything.rotation)
        rows = {tuple(row) for row in everything.xy}
        assert len(rows) == len(everything)
        for window in (Window(0, 0, 1, 1), Window(700, 300, 64, 64), Window(1399, 999, 1, 1)):
            part = {tuple(row) for row in file.gaussians(window).xy}
            low, high = everything.xy - extent, everything.xy + extent
            touches = (
                (high > (window.x, window.y)) & (low < (window.x_end, window.y_end))
            ).all(axis=1)  # fmt: skip
            assert {tuple(row) for row in everything.xy[touches]} <= part
            assert len(part) < len(everything)


def test_the_order_is_the_same_in_every_window(batch, reopened):
    file = reopened(batch(12000, LARGE), LARGE)
    position = {tuple(row): i for i, row in enumerate(file.gaussians().xy)}
    places = [position[tuple(row)] for row in SplatFile(file.path).gaussians(Window(600, 10, 300, 300)).xy]
    assert places == sorted(places)


def test_a_window_reads_only_the_bytes_that_touch_it(batch, reopened, monkeypatch):
    path = reopened(batch(12000, LARGE), LARGE).path
    spans: list[tuple[int, int]] = []
    plain = ByteFile.read

    def spying(self: ByteFile, offset: int, length: int) -> bytes:
        raw = plain(self, offset, length)
        if raw:
            spans.append((offset, len(raw)))
        return raw

    monkeypatch.setattr(ByteFile, "read", spying)
    file = SplatFile(path)
    file.gaussians(Window(0, 0, 100, 100))
    touching = set(file.layout.touching(Window(0, 0, 100, 100)))
    wanted = {at for entry in file.index if entry.number in touching for at in range(entry.offset, entry.end)}
    payload = [(offset, length) for offset, length in spans if offset >= file.index[0].offset]
    assert sorted(wanted) == sorted(at for offset, length in payload for at in range(offset, offset + length))
    borders = sum(at - 1 not in wanted for at in wanted)
    assert len(payload) == borders < sum(entry.number in touching for entry in file.index)
    assert sum(length for _, length in spans) < file.size_bytes / 2


def test_files_pickle_and_serve_threads(batch, reopened):
    file = reopened(batch(12000, LARGE), LARGE)
    wanted = file.gaussians()
    copy = pickle.loads(pickle.dumps(file))
    found: list[Gaussians] = []
    threads = [threading.Thread(target=lambda: found.append(copy.gaussians())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert all(same(wanted, other) for other in found)


def test_the_cache_is_bounded_and_changes_nothing(batch, reopened):
    path = reopened(batch(12000, LARGE), LARGE).path
    small, none = SplatFile(path, cached_gaussians=3000), SplatFile(path, cached_gaussians=0)
    for _ in range(2):
        assert same(small.gaussians(), none.gaussians())
    assert sum(map(len, small._cache.values())) <= 3000
    assert not none._cache


def test_encoding_twice_gives_the_same_bytes(batch):
    given = batch(7000, LARGE)
    first, second = (encode(given, size=LARGE, bits=8).data for _ in range(2))
    assert first == second


def test_the_ledger_accounts_for_every_byte(batch, reopened):
    file = reopened(batch(7000, LARGE), LARGE, metadata={"a": "b"}, icc_profile=b"p" * 50)
    ledger = file.ledger()
    assert sum(ledger.values()) == file.path.stat().st_size
    assert ledger["icc"] == 52
    assert ledger["positions"] + ledger["scales"] + ledger["rotations"] + ledger["colors"] == sum(file.block_bytes())
    assert min(ledger.values()) > 0


def test_writing_is_all_or_nothing(tmp_path):
    path = tmp_path / "a.ssplat"
    assert write_atomic(path, [b"one", b"two"]) == 6
    with pytest.raises(OutputExistsError):
        write_atomic(path, [b"other"])

    def failing():
        yield b"part"
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomic(path, failing(), overwrite=True)
    assert path.read_bytes() == b"onetwo"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OutputExistsError):
        write_atomic(tmp_path, [b""])
    with pytest.raises(UsageError):
        write_atomic(tmp_path / "no" / "a.ssplat", [b""])
