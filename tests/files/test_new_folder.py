"""Folders that appear whole or not at all."""

from pathlib import Path

import pytest

from app.files.new_folder import AlreadyThere, new_folder


def test_a_folder_has_its_name_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model"
    with new_folder(target) as folder:
        (folder / "a").write_text("a")
        assert not target.exists()
    assert (target / "a").read_text() == "a"
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def fill_until_full(target: Path) -> None:
    with new_folder(target) as folder:
        (folder / "a").write_text("a")
        raise OSError("full")


def test_what_failed_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full"):
        fill_until_full(tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(AlreadyThere), new_folder(tmp_path / "model"):
        raise AssertionError("nothing may be done")
    with pytest.raises(AlreadyThere), new_folder(tmp_path / "other"):
        (tmp_path / "other").write_text("somebody was quicker")
    assert (tmp_path / "other").read_text() == "somebody was quicker"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "other"]
