"""The page that describes the format is enough to read it; what was once written stays readable."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import smartsplat_large as ss
from smartsplat_large.codec import SplatFile, encode
from smartsplat_large.errors import SplatFileError
from smartsplat_large.lattice import Size

sys.path.insert(0, str(Path(__file__).parent))
import second_decoder

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
GOLDEN_SYMBOLS = {
    "version2": "c3508e0db85229fa32562ab712041ae2760f68f4b178293cd6f9cc15eb2aa1f6",
    "version3": "5457cbdb9b4fd54b1b070d2e15c304882e68c2f074644206301b5dac6c4f589e",
}


def assert_same(path: Path) -> None:
    found = second_decoder.Picture(path.read_bytes())
    with SplatFile(path) as file:
        ours = file.gaussians()
        assert found.background == file.header.background
    for name in ("xy", "scale", "rotation", "color"):
        np.testing.assert_array_equal(getattr(found, name), getattr(ours, name))
    with ss.open(path) as picture:
        pixels = picture.read((0, 0, *found.size.tolist()))
    np.testing.assert_allclose(found.pixels().reshape(pixels.shape), pixels, rtol=0, atol=1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("count", "size"), [(1, Size(7, 5)), (300, Size(200, 90)), (7000, Size(1000, 700))])
def test_both_decoders_agree_to_the_bit(batch, tmp_path, channels, count, size):
    path = tmp_path / "a.ssplat"
    path.write_bytes(encode(batch(count, size, channels), size=size, bits=8, metadata={"a": 1}).data)
    assert_same(path)


@pytest.mark.parametrize(("bits", "background"), [(8, (200,)), (16, (300,)), (8, (0, 255, 7)), (16, (1, 0, 65535, 9))])
def test_both_decoders_see_the_background(batch, tmp_path, bits, background):
    path, size = tmp_path / "a.ssplat", Size(90, 50)
    about = dict(size=size, bits=bits, background=background, pixels_per_cm=(3.0, 4.0), icc_profile=b"icc")
    path.write_bytes(encode(batch(20, size, len(background)), **about).data)
    assert_same(path)
    with SplatFile(path) as file:
        assert file.header.background == tuple(level / (2**bits - 1) for level in background)
        assert (file.header.pixels_per_cm, file.header.icc_profile) == ((3.0, 4.0), b"icc")


@pytest.mark.parametrize("name", GOLDEN_SYMBOLS)
def test_golden_files_read_as_they_did_when_they_were_written(name):
    with SplatFile(GOLDEN / f"{name}.ssplat") as file:
        rows = [
            np.column_stack([s.cell, s.octave, s.mean, s.aspect, s.turn, s.place, s.color]) for _, s in file.payloads()
        ]
        assert (file.header.count, file.layout.layers, file.layout.blocks) == (sum(map(len, rows)), 3, 5)
        assert not file.verify()
        assert sum(file.ledger().values()) == file.size_bytes
    assert hashlib.sha256(np.concatenate(rows).astype("<i8").tobytes()).hexdigest() == GOLDEN_SYMBOLS[name]


def test_both_decoders_agree_on_the_golden_file():
    assert_same(GOLDEN / "version3.ssplat")


@settings(deadline=None, max_examples=300, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
@pytest.mark.parametrize("name", GOLDEN_SYMBOLS)
def test_hostile_bytes_are_refused_or_skipped(tmp_path_factory, name, data):
    raw = bytearray((GOLDEN / f"{name}.ssplat").read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.one_of(st.integers(0, 80), st.integers(0, len(raw) - 1)))
        raw[at] = data.draw(st.integers(0, 255))
    length = data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))
    body = second_decoder.Bytes(bytes(raw))
    # With a good seal on the header, what it says is believed: the bounds must hold without it.
    body.read(5)
    end = body.varint() + body.tell()
    if data.draw(st.booleans()):
        seal = second_decoder.seal(bytes(raw[:end]))
        raw[end : end + len(seal)] = seal
    path = tmp_path_factory.mktemp("hostile") / "a.ssplat"
    path.write_bytes(bytes(raw[:length]))
    try:
        with SplatFile(path) as file:
            file.gaussians(on_damage="skip")
            file.verify()
    except SplatFileError:
        pass
