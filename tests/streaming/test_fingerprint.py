"""What a saved fit belongs to: every change of it is named."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import fsspec
from cut_fits import CONFIG, picture

from smartsplat_large.streaming.fingerprint import differences, fingerprint
from smartsplat_large.streaming.plan import plan_fit


def test_every_change_is_named(tmp_path: Path) -> None:
    image, source = tmp_path / "a.png", picture()
    image.write_bytes(b"some bytes")
    plan = plan_fit(source.meta.size, 3, 1, 90, CONFIG, memory_bytes=1 << 40, workers=1)
    before = fingerprint(image, source, CONFIG, plan)
    assert differences(json.loads(json.dumps(before)), fingerprint(image, source, CONFIG, plan)) == []

    other = CONFIG.replace(steps=30, loss=dataclasses.replace(CONFIG.loss, l2=0.5), ratio=20.0)
    assert differences(before, fingerprint(image, source, other, dataclasses.replace(plan, block=64))) == [
        "setting ratio was not set, is 20.0", "setting steps was 12, is 30", "setting loss.l2 was 1.0, is 0.5",
        "setting gaussians was 90, is not set",
    ]  # fmt: skip
    assert differences(before, fingerprint(image, source, CONFIG, dataclasses.replace(plan, block=64))) == [
        f"the memory limit leads to another plan: block was {plan.block}, is 64"
    ]
    found = image.stat()
    image.write_bytes(b"same bytes")
    os.utime(image, ns=(found.st_atime_ns, found.st_mtime_ns))
    (changed,) = differences(before, fingerprint(image, source, CONFIG, plan))
    assert changed.startswith("the image has changed: its content was ")
    image.write_bytes(b"more bytes than before")
    assert "the image has changed: its bytes was 10, is 22" in differences(
        before, fingerprint(image, source, CONFIG, plan)
    )
    now = before | {"version": "9.9"}
    assert differences(before, now) == [f"written by version {before['version']}, this is 9.9"]


def test_an_image_replaced_in_a_store_is_named() -> None:
    system, source = fsspec.filesystem("memory"), picture()
    plan = plan_fit(source.meta.size, 3, 1, 90, CONFIG, memory_bytes=1 << 40, workers=1)
    for path, url, named in (
        ("/far/a.png", "memory://far/a.png", "mark in the store was "),
        ("/far/a.zarr/zarr.json", "memory://far/a.zarr", "list of files was 1 (names, sizes and marks: "),
    ):
        system.pipe_file(path, b"some bytes")
        before = fingerprint(url, source, CONFIG, plan)
        assert differences(json.loads(json.dumps(before)), fingerprint(url, source, CONFIG, plan)) == []
        assert before["image"]["bytes"] == 10
        system.pipe_file(path, b"some bytes")
        (changed,) = differences(before, fingerprint(url, source, CONFIG, plan))
        assert changed.startswith(f"the image has changed: its {named}")
