"""What requests hold of what their gateway holds: whole micro-dollars, as tables of cases."""

from decimal import Decimal

import pytest

from app.billing.allowance import TEMPLATE_TOKENS, Allowance, bound
from app.billing.prices import Usage, inference_micros
from app.catalog.spec import TokenPrices

PRICE = TokenPrices(prompt=Decimal(1), cached_prompt=Decimal("0.5"), completion=Decimal(2), training=Decimal(0))


def test_requests_hold_no_more_than_is_granted() -> None:
    allowance = Allowance(granted=10)
    assert [allowance.take(4), allowance.take(4), allowance.take(4), allowance.take(2)] == [True, True, False, True]
    allowance.give_back(4)
    assert (allowance.free, allowance.take(5), allowance.take(4)) == (4, False, True)


def test_the_store_goes_on_holding_a_charge_until_it_is_in_the_ledger() -> None:
    allowance = Allowance(granted=10, held=6)
    allowance.spend(4)
    allowance.give_back(6)
    assert (allowance.free, allowance.kept) == (6, 10)
    allowance.committed(4)
    assert (allowance.free, allowance.kept) == (6, 6)


def test_a_charge_without_a_hold_is_not_spent_again() -> None:
    allowance = Allowance(granted=3)
    allowance.spend(5)
    assert (allowance.take(1), allowance.kept) == (False, 3)
    allowance.committed(5)
    assert allowance.kept == 0


@pytest.mark.parametrize(
    ("allowance", "need", "available", "change"),
    [
        (Allowance(), 10, 100, 10),
        (Allowance(), 10, 7, 7),
        (Allowance(), 10, 0, 0),
        (Allowance(granted=10, held=10, peak=10), 10, 1000, 10),
        (Allowance(granted=20, held=20, peak=20), 10, 1000, 20),
        (Allowance(granted=20, held=20, peak=20), 10, 30, 15),
        (Allowance(granted=20, held=20, peak=20), 10, 12, 10),
        (Allowance(granted=100, held=10, peak=10), 0, 1000, -80),
        (Allowance(granted=100), 0, 1000, -100),
        (Allowance(granted=100, held=60, peak=60), 0, -50, -40),
        (Allowance(granted=100, held=60, peak=60), 0, -10, -10),
        (Allowance(granted=10, held=12), 0, -50, 0),
    ],
)
def test_as_much_is_asked_of_the_store_as_use_lets_expect(
    allowance: Allowance, need: int, available: int, change: int
) -> None:
    assert allowance.change(need, available) == change


def test_all_that_is_not_held_is_given_to_who_lacks_it() -> None:
    assert Allowance(granted=100, held=40, peak=90).change(0, 0, is_wanted=True) == -60


def test_what_was_usual_is_forgotten_by_halves() -> None:
    allowance = Allowance(granted=100)
    allowance.take(64)
    allowance.give_back(64)
    seen = []
    for _ in range(4):
        allowance.begin_period()
        seen.append(allowance.usual)
    assert seen == [64, 32, 16, 8]


@pytest.mark.parametrize(("n_bytes", "tokens", "n"), [(0, 1, 1), (100, 50, 1), (100, 50, 8), (10**6, 10**6, 2)])
def test_no_answer_costs_more_than_its_bound(n_bytes: int, tokens: int, n: int) -> None:
    context = 2048
    most = bound(n_bytes, tokens, n, context, PRICE)
    dearest = Usage(min(n_bytes + TEMPLATE_TOKENS, context), 0, n * min(tokens, context))
    assert most.micros == inference_micros(dearest, PRICE)


def test_a_bound_tells_how_long_an_answer_some_money_pays_for() -> None:
    most = bound(88, 1000, 2, 2048, PRICE)
    assert most.prompt_micros == 600
    assert [most.tokens_for(micros, PRICE) for micros in (604, 607, 608, 1000)] == [1, 1, 2, 100]
