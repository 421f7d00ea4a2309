"""What is remembered is young, and gone when it is to be forgotten."""

import time

from app.remembered import MAX_REMEMBERED, Remembered
from tests.eventually import until


def test_what_was_added_is_found_until_it_is_forgotten() -> None:
    known: Remembered[str, int] = Remembered(60)
    assert known.find("a") is None
    known.add("a", 1)
    assert known.find("a") == 1
    known.forget()
    assert known.find("a") is None


def test_nothing_is_older_than_the_limit_even_if_others_are_added() -> None:
    known: Remembered[str, int] = Remembered(0.2)
    began = time.monotonic()
    known.add("a", 1)

    def is_gone() -> bool:
        known.add("b", 2)
        return known.find("a") is None

    until(is_gone, within_seconds=2)
    assert time.monotonic() - began >= 0.2


def test_no_more_than_so_many_are_kept() -> None:
    known: Remembered[int, int] = Remembered(60)
    for number in range(MAX_REMEMBERED + 1):
        known.add(number, number)
    assert len(known._known) == 1
    assert known.find(MAX_REMEMBERED) == MAX_REMEMBERED
