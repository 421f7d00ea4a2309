"""Buckets that fill up again, as tables of times."""

import pytest

from app.orgs.rates import Bucket, as_duration


def bucket(per_minute: int) -> Bucket:
    return Bucket(per_minute, full_at=0, heard_at=0, used_at=0)


@pytest.mark.parametrize("per_minute", [1, 7, 60, 599, 100_000])
def test_a_full_bucket_holds_a_minutes_worth(per_minute: int) -> None:
    full = bucket(per_minute)
    for n_taken in range(min(per_minute, 1000)):
        assert int(full.left(1000)) == per_minute - n_taken
        full.take(1, 1000)
    full.take(max(0, per_minute - 1000), 1000)
    assert full.left(1000) < 1
    assert full.left(1000 + full.wait_seconds(1000)) >= 1
    assert full.reset_seconds(1000) == pytest.approx(60)


def test_what_is_overdrawn_flows_in_first() -> None:
    owing = bucket(60)
    owing.take(90, 0)
    assert owing.left(0) == pytest.approx(-30, abs=1e-3)
    assert owing.wait_seconds(0) == pytest.approx(31)
    assert owing.left(30.9) < 1 <= owing.left(31.1)


def test_nothing_is_left_of_nothing() -> None:
    assert bucket(0).left(0) < 1
    assert bucket(0).wait_seconds(0) == 60


def test_what_others_took_comes_on_top_of_what_was_taken_meanwhile() -> None:
    shared = bucket(60)
    shared.take(10, 100)
    shared.take(5, 100)  # after the ten were written
    shared.hear(full_in_seconds=30, shared_seconds=10, now=100)  # ten of ours, twenty of others'
    assert shared.left(100) == pytest.approx(25, abs=1e-3)
    assert shared.unshared_seconds == pytest.approx(5)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0204, "20ms"), (1, "1s"), (7.66, "7.66s"), (59.99, "59.99s"), (60, "1m0s"), (3671, "61m11s")],
)
def test_a_duration_is_written_as_openai_does(seconds: float, text: str) -> None:
    assert as_duration(seconds) == text
