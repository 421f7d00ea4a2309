"""Nothing in a run folder is ever met half done."""

import json
from pathlib import Path

import pytest

from workers.run_folder import Metrics, appears_whole, checkpoint_folders


def test_a_folder_has_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    with appears_whole(tmp_path / "adapter") as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "adapter").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]
    assert (tmp_path / "adapter" / "a").read_text() == "1"


def test_a_failure_in_the_middle_leaves_neither_the_folder_nor_its_half(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), appears_whole(tmp_path / "adapter") as folder:
        folder.write_text("a folder is no file")
    assert list(tmp_path.iterdir()) == []


def test_a_half_left_by_a_crash_is_swept(tmp_path: Path) -> None:
    (tmp_path / "adapter.tmp").mkdir()
    (tmp_path / "adapter.tmp" / "torn").write_text("x")
    with appears_whole(tmp_path / "adapter") as folder:
        (folder / "a").write_text("1")
    assert [path.name for path in (tmp_path / "adapter").iterdir()] == ["a"]


def test_checkpoints_come_newest_first_and_unfinished_ones_are_none(tmp_path: Path) -> None:
    for name in ("step-2", "step-10", "step-11.tmp", "other"):
        (tmp_path / name).mkdir()
    assert [path.name for path in checkpoint_folders(tmp_path)] == ["step-10", "step-2"]


def test_a_torn_line_does_not_swallow_the_next(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"kind": "step", "step": 4, "trained_tokens": 9}\n{"kind": "st')
    Metrics(path).finish()
    last = json.loads(path.read_bytes().split(b"\n")[-2])
    assert (last["kind"], last["step"], last["trained_tokens"]) == ("finished", 4, 9)


def test_the_end_is_told_once(tmp_path: Path) -> None:
    Metrics(tmp_path / "metrics.jsonl").finish()
    Metrics(tmp_path / "metrics.jsonl").finish()
    assert (tmp_path / "metrics.jsonl").read_bytes().count(b"finished") == 1
