"""The most that a request can cost, in whole micro-dollars."""

from decimal import Decimal

import pytest

from app.billing.bound import TEMPLATE_TOKENS, bound
from app.billing.prices import Usage, inference_micros
from app.catalog.spec import TokenPrices

PRICE = TokenPrices(prompt=Decimal(1), cached_prompt=Decimal("0.5"), completion=Decimal(2), training=Decimal(0))


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
