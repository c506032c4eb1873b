"""Outputs that are whole or not there, beside files that are not ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from smartsplat_large.atomic_output import check_destination, part_file, part_folder
from smartsplat_large.errors import OutputExistsError, UsageError


def _zarr(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "zarr.json").write_text(text)
    return path


def test_a_neighbour_that_ends_in_old_is_kept(tmp_path: Path) -> None:
    path, mine = _zarr(tmp_path / "a.zarr", "{}"), tmp_path / "a.zarr.0.old"
    mine.mkdir()
    (mine / "keepsake").touch()
    with part_folder(path, overwrite=True) as part:
        (part / "zarr.json").write_text("new")
    assert (path / "zarr.json").read_text() == "new"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [path.name, mine.name]
    assert (mine / "keepsake").exists()


def test_an_interrupt_between_old_and_new_brings_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, rename = _zarr(tmp_path / "a.zarr", "old"), Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if self.name.endswith(".part"):
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), part_folder(path, overwrite=True) as part:
        (part / "zarr.json").write_text("new")
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert (path / "zarr.json").read_text() == "old"


def test_two_runs_never_share_a_part(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with part_file(path) as one, part_file(path) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one", "the outer one is put in place last"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("length", [251, 300])
def test_a_name_that_is_too_long_is_refused_before_the_work(tmp_path: Path, length: int) -> None:
    with pytest.raises(UsageError, match="File name too long"):
        check_destination(tmp_path / ("a" * length), overwrite=False)
    with pytest.raises(OutputExistsError, match="is a folder"), part_file(Path(), overwrite=True):
        pass
