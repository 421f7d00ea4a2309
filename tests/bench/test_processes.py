"""What is read of a process from outside."""

import os
import time
from pathlib import Path

import pytest

from bench.processes import cpu_seconds, last_words, resident_bytes, tree_of


def test_cpu_time_grows_with_work_and_not_with_rest() -> None:
    me = [os.getpid()]
    before = cpu_seconds(me)
    while time.process_time() < before + 0.05:
        pass
    assert cpu_seconds(me) - before == pytest.approx(0.05, abs=0.02)


def test_cpu_time_is_the_same_that_the_process_itself_reads() -> None:
    assert cpu_seconds([os.getpid()]) == pytest.approx(time.process_time(), abs=0.01)


def test_the_cpu_time_of_several_is_their_sum() -> None:
    me = os.getpid()
    assert cpu_seconds([me, me]) == pytest.approx(2 * cpu_seconds([me]), rel=0.01)


def test_memory_is_counted_of_all() -> None:
    me = os.getpid()
    assert resident_bytes([me, me]) >= 2 * (10 << 20)


def test_a_tree_begins_with_its_root() -> None:
    assert tree_of(os.getpid())[0] == os.getpid()


def test_last_words_are_the_last_lines_that_say_something(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("one\n\ntwo\nthree\nfour\n\n")
    assert last_words(log) == "two / three / four"
    log.write_text("")
    assert last_words(log) == "it said nothing"
