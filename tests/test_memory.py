"""Sizes as people write them."""

from __future__ import annotations

import pytest

from smartsplat_large.errors import UsageError
from smartsplat_large.memory import parse_bytes


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
