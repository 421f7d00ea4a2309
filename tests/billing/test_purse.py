"""What requests hold of what their gateway holds: whole micro-dollars, as tables of cases."""

import pytest

from app.billing.purse import Purse


def test_requests_hold_no_more_than_is_granted() -> None:
    purse = Purse(granted=10)
    assert [purse.take(4), purse.take(4), purse.take(4), purse.take(2)] == [True, True, False, True]
    purse.give_back(4)
    assert (purse.free, purse.take(5), purse.take(4)) == (4, False, True)


def test_the_store_goes_on_holding_a_charge_until_it_is_in_the_ledger() -> None:
    purse = Purse(granted=10, held=6)
    purse.spend(4)
    purse.give_back(6)
    assert (purse.free, purse.kept) == (6, 10)
    purse.committed(4)
    assert (purse.free, purse.kept) == (6, 6)


def test_a_charge_without_a_hold_is_not_spent_again() -> None:
    purse = Purse(granted=3)
    purse.spend(5)
    assert (purse.take(1), purse.kept) == (False, 3)
    purse.committed(5)
    assert purse.kept == 0


@pytest.mark.parametrize(
    ("purse", "need", "available", "change"),
    [
        (Purse(), 10, 100, 10),
        (Purse(), 10, 7, 7),
        (Purse(), 10, 0, 0),
        (Purse(granted=10, held=10, peak=10), 10, 1000, 10),
        (Purse(granted=20, held=20, peak=20), 10, 1000, 20),
        (Purse(granted=20, held=20, peak=20), 10, 30, 15),
        (Purse(granted=20, held=20, peak=20), 10, 12, 10),
        (Purse(granted=100, held=10, peak=10), 0, 1000, -80),
        (Purse(granted=100), 0, 1000, -100),
        (Purse(granted=100, held=60, peak=60), 0, -50, -40),
        (Purse(granted=100, held=60, peak=60), 0, -10, -10),
        (Purse(granted=10, held=12), 0, -50, 0),
    ],
)
def test_as_much_is_asked_of_the_store_as_use_lets_expect(purse: Purse, need: int, available: int, change: int) -> None:
    assert purse.change(need, available) == change


def test_all_that_is_not_held_is_given_to_who_lacks_it() -> None:
    assert Purse(granted=100, held=40, peak=90).change(0, 0, is_wanted=True) == -60


def test_what_was_usual_is_forgotten_by_halves() -> None:
    purse = Purse(granted=100)
    purse.take(64)
    purse.give_back(64)
    seen = []
    for _ in range(4):
        purse.begin_period()
        seen.append(purse.usual)
    assert seen == [64, 32, 16, 8]
