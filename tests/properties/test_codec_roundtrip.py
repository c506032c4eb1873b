"""Whatever the Gaussians: quantised symbols come back equal from the bytes, and the file keeps its promises."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from smartsplat_large.codec import SplatFile, encode
from smartsplat_large.codec.entropy import Decoder, Encoder, Tables, Tally
from smartsplat_large.codec.layout import plan_layout, wide_frame
from smartsplat_large.codec.models import fit_models, models_from_bytes, models_to_bytes
from smartsplat_large.codec.payload import Scope, code_block, coded_order
from smartsplat_large.codec.quantize import quantize
from smartsplat_large.gaussians import Gaussians
from smartsplat_large.lattice import Size

QUICK = settings(deadline=None, max_examples=40, derandomize=True, suppress_health_check=list(HealthCheck))


@st.composite
def batches(draw: st.DrawFn) -> tuple[Gaussians, Size]:
    size = Size(draw(st.integers(1, 5000)), draw(st.integers(1, 5000)))
    count, channels = draw(st.integers(1, 30)), draw(st.integers(1, 4))
    numbers = st.floats(0, 1, width=32)
    unit = draw(hnp.arrays(np.float64, (count, 5 + channels), elements=numbers))
    reach = draw(st.sampled_from([0.0, 0.5, 40.0]))
    xy = (unit[:, :2] * (1 + 2 * reach) - reach) * (size.width, size.height)
    span = draw(st.sampled_from([0.1, 1.0]))
    scale = np.exp(np.log(0.05) + unit[:, 2:4] * span * (np.log(1e5) - np.log(0.05))).astype(np.float32)
    bright = draw(st.sampled_from([0.0, 0.01, 1.0, 50.0]))
    color = ((2 * unit[:, 5:] - 1) * bright).astype(np.float32)
    return Gaussians(xy, scale, (unit[:, 4] * 12 - 6).astype(np.float32), color), size


@QUICK
@given(batches(), st.sampled_from([1e-5, 0.02, 5.0]))
def test_symbols_come_back_equal(made: tuple[Gaussians, Size], step: float) -> None:
    gaussians, size = made
    channels = gaussians.channels
    layout = plan_layout(size, len(gaussians))
    symbols = quantize(gaussians, step, layout.leaf)
    frame = wide_frame(layout, symbols.cell)
    symbols = symbols.take(coded_order(symbols.cell, frame))
    scope = Scope(frame, layout.leaf, channels)
    tally = Tally()
    code_block(tally, scope, symbols, len(symbols))
    models = fit_models(tally, channels)
    encoder = Encoder(Tables(models))
    code_block(encoder, scope, symbols, len(symbols))
    again = models_from_bytes(models_to_bytes(models, channels), channels)
    found = code_block(Decoder(Tables(again), encoder.finish()), scope, None, len(symbols))
    for name in ("cell", "octave", "mean", "aspect", "turn", "place", "color"):
        np.testing.assert_array_equal(getattr(found, name), getattr(symbols, name))


@QUICK
@given(batches())
def test_files_read_back(tmp_path_factory, made: tuple[Gaussians, Size]) -> None:
    gaussians, size = made
    encoded = encode(gaussians, size=size, bits=8)
    path = tmp_path_factory.mktemp("roundtrip") / "a.ssplat"
    path.write_bytes(encoded.data)
    with SplatFile(path) as file:
        found = file.gaussians()
        assert len(found) == file.header.count == len(encoded.kept)
        assert file.header.size == size
        assert file.verify() == []
        assert sum(file.ledger().values()) == file.size_bytes == encoded.size_bytes
        for column in (found.xy, found.scale, found.rotation, found.color):
            assert np.isfinite(column).all()
