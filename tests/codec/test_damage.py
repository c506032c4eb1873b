from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from smartsplat_large.codec import SplatFile, encode
from smartsplat_large.codec.container import (
    MAGIC,
    Head,
    check_bytes,
    head_from_bytes,
    head_to_bytes,
    index_to_bytes,
    prefix_length,
    sealed,
    varint,
)
from smartsplat_large.codec.entropy import Histogram, Kernel, Models
from smartsplat_large.codec.layout import Layout
from smartsplat_large.codec.models import streams_of
from smartsplat_large.codec.payload import Frame
from smartsplat_large.errors import SplatFileError
from smartsplat_large.lattice import Size, Window

SIZE = Size(1400, 1000)


@pytest.fixture
def raw(batch) -> bytes:
    return encode(batch(12000, SIZE), size=SIZE, bits=8, metadata={"a": 1}, icc_profile=b"profile").data


def written(tmp_path, raw: bytes):
    path = tmp_path / "a.ssplat"
    path.write_bytes(raw)
    return path


def outcome(path) -> str:
    """``refused``, ``found`` or ``unnoticed``."""
    try:
        with SplatFile(path) as file:
            return "found" if file.verify() else "unnoticed"
    except SplatFileError as error:
        return "refused" if str(error).startswith(str(path)) and "\n" not in str(error) else "badly told"


def test_every_flipped_byte_is_noticed(tmp_path, raw):
    rng = np.random.default_rng(0)
    places = [*range(80), *rng.integers(0, len(raw), 150).tolist(), len(raw) - 1]
    for place in places:
        flipped = bytearray(raw)
        flipped[place] ^= 1 << int(rng.integers(8))
        assert outcome(written(tmp_path, bytes(flipped))) in ("found", "refused"), place


def test_every_cut_is_noticed(tmp_path, raw):
    for length in [*range(60), *range(60, len(raw), len(raw) // 60), len(raw) - 1]:
        assert outcome(written(tmp_path, raw[:length])) in ("found", "refused"), length
    assert outcome(written(tmp_path, raw)) == "unnoticed"
    assert outcome(written(tmp_path, raw + b"x")) == "found"


def test_damage_stays_in_its_block(tmp_path, raw):
    whole = SplatFile(written(tmp_path, raw))
    victim = next(entry for entry in whole.index[1:] if entry.length > 100)
    everything = whole.gaussians()
    flipped = bytearray(raw)
    flipped[victim.offset + 50] ^= 4
    file = SplatFile(written(tmp_path, bytes(flipped)))
    with pytest.raises(
        SplatFileError,
        match=f"block {victim.number} layer {victim.layer} .pixels {victim.window}. at byte {victim.offset}",
    ):
        file.gaussians(victim.window)
    rest = file.gaussians(on_damage="skip")
    assert [damage.window for damage in file.damage] == [victim.window]
    lost = {tuple(row) for row in everything.xy} - {tuple(row) for row in rest.xy}
    x, y = np.array(sorted(lost)).T
    assert len(lost) + len(rest) == len(everything)
    assert victim.window.x <= x.min() <= x.max() < victim.window.x_end
    assert victim.window.y <= y.min() <= y.max() < victim.window.y_end
    far = Window(SIZE.width - 1 if victim.window.x == 0 else 0, 0, 1, 1)
    assert victim.number not in file.layout.touching(far)
    assert len(file.gaussians(far))


def test_damaged_extras_do_not_hinder_the_picture(tmp_path, raw):
    at = raw.index(b"profile")
    file = SplatFile(written(tmp_path, raw[:at] + b"P" + raw[at + 1 :]))
    assert file.header.icc_profile is None
    assert file.header.metadata == {"a": 1}
    assert [damage.part for damage in file.verify()] == ["colour profile"]
    assert len(file.gaussians()) == file.header.count


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"SS", "cut short at byte 2"),
        (b"II*\0" + b"\0" * 60, "is no .ssplat file"),
        (MAGIC + b"\x07" + b"\0" * 60, "is of format version 7; this program reads versions 2 to 3"),
        (MAGIC + b"\x03" + b"\xff" * 60, "header is damaged"),
        (sealed(MAGIC + b"\x03" + varint(3) + b"\xff\xff\xff"), "header is damaged"),
    ],
)
def test_what_is_no_file_of_ours(tmp_path, content, words):
    with pytest.raises(SplatFileError, match=words) as caught:
        SplatFile(written(tmp_path, content))
    assert caught.value.hint


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(SplatFileError, match="No such file"):
        SplatFile(tmp_path / "none.ssplat")
    with pytest.raises(SplatFileError, match="is a folder"):
        SplatFile(tmp_path)


def forged(**changes: object) -> bytes:
    return head_to_bytes(forged_head(**changes)) + sealed(b"\x12\x34\x56\x78")


def forged_head(**changes: object) -> Head:
    layout = Layout(Size(100, 100), 3, 0, Frame(0, 0, 2, 2, 3))
    head = {
        "channels": 3, "bits": 8, "count": 5, "step_index": 0, "layout": layout, "wide_bytes": (4,), "index_bytes": 0,
        "models": Models({name: Kernel() for name in streams_of(3)}),
    }  # fmt: skip
    return Head(**(head | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"count": 1 << 32}, "announces 4294967296 Gaussians"),
        ({"layout": Layout(Size(1 << 30, 1 << 30), 3, 8, Frame(0, 0, 2, 2, 27)), "index_bytes": 5}, "cut short"),
        (
            {"layout": Layout(Size(1 << 30, 1 << 30), 3, 8, Frame(0, 0, 2, 2, 27)), "index_bytes": 2},
            "payloads cannot be",
        ),
        ({"layout": Layout(Size(100, 100), 3, 0, Frame(0, 0, 1 << 20, 1 << 20, 3))}, "a block of"),
        ({"layout": Layout(Size(1 << 30, 1 << 30), 3, 31, Frame(0, 0, 2, 2, 27)), "index_bytes": 2}, "a block of"),
    ],
)
def test_forged_sizes_are_refused_before_they_are_allocated(tmp_path, changes, words):
    with pytest.raises(SplatFileError, match=words):
        SplatFile(written(tmp_path, forged(**changes)))


def test_forged_symbols_are_damage_not_a_crash(tmp_path):
    rng = np.random.default_rng(0)
    head = forged()[: -4 - 2]
    for _ in range(40):
        file = SplatFile(written(tmp_path, head + sealed(rng.bytes(4))))
        file.gaussians(on_damage="skip")


def test_more_gaussians_than_announced_are_damage(tmp_path, raw):
    start, end = prefix_length(raw)
    head = head_from_bytes(raw[start:end])
    fewer = head_to_bytes(dataclasses.replace(head, count=head.count - 1)) + raw[end + check_bytes(end) :]
    with SplatFile(written(tmp_path, fewer)) as file:
        with pytest.raises(SplatFileError, match=f"more Gaussians than the {head.count - 1} announced"):
            file.gaussians()
        assert len(file.gaussians(on_damage="skip")) < head.count


def test_steps_beyond_what_colours_can_say_are_refused(tmp_path):
    with pytest.raises(SplatFileError, match="the number 5122 at byte"):
        SplatFile(written(tmp_path, forged(step_index=2561)))


def test_cells_that_few_bytes_cannot_mean_are_refused(tmp_path):
    # A payload of one byte in each block of 2048 x 2048 cells: seconds of work a block.
    layout = Layout(Size(1 << 16, 1 << 16), 0, 14, Frame(0, 0, 2, 2, 3))
    index = index_to_bytes([b"1"] * 16)
    front = head_to_bytes(forged_head(layout=layout, index_bytes=len(index)))
    with pytest.raises(SplatFileError, match="spreads its Gaussians over 67108868 cells"):
        SplatFile(written(tmp_path, front + sealed(index) + sealed(b"1234") + b"1" * 16))


def test_a_forged_block_of_nothing_has_a_ledger(tmp_path):
    models = Models({name: Kernel() for name in streams_of(3)}, {("count", 0): Histogram(0, b"\1")})
    path = written(tmp_path, forged(models=models))
    with SplatFile(path) as file:
        assert not len(file.gaussians())
        assert sum(file.ledger().values()) == path.stat().st_size
