"""What is told of a start's length, by the starts before it."""

from pathlib import Path

import pytest

from app.engines.start_times import estimate_seconds, remember_start


def test_the_estimate_is_the_median_of_the_last_starts_of_the_same_model_on_the_same_gpu(tmp_path: Path) -> None:
    file = tmp_path / "times.json"
    assert estimate_seconds(file, "a", "CPU") is None
    for seconds in (900, 20, 22, 2.5, 3, 21):
        remember_start(file, "a", "CPU", seconds)
    assert estimate_seconds(file, "a", "CPU") == 20
    assert estimate_seconds(file, "a", "A100") is None
    assert estimate_seconds(file, "b", "CPU") is None


@pytest.mark.parametrize("torn", ["", '{"a CPU": [1', "[]"])
def test_a_file_that_a_crash_cut_off_is_begun_anew(tmp_path: Path, torn: str) -> None:
    file = tmp_path / "times.json"
    file.write_text(torn)
    assert estimate_seconds(file, "a", "CPU") is None
    remember_start(file, "a", "CPU", 5)
    assert estimate_seconds(file, "a", "CPU") == 5


def test_a_disk_that_takes_nothing_is_no_reason_to_fail(tmp_path: Path) -> None:
    remember_start(tmp_path / "nowhere" / "times.json", "a", "CPU", 5)
