"""Money: whole micro-dollars, rounded once."""

from decimal import Decimal

import pytest

from app.billing.prices import Usage, cents, gpu_micros, inference_micros, training_micros
from app.catalog.spec import GpuType, TokenPrices

PRICE = TokenPrices(
    prompt=Decimal("0.1"), cached_prompt=Decimal("0.05"), completion=Decimal("0.3"), training=Decimal(2)
)
GPU = GpuType(memory_gib=80, dollars_per_hour=Decimal("3.60"))  # a tenth of a cent a second


@pytest.mark.parametrize(
    ("prompt", "cached", "completion", "micros"),
    [(0, 0, 0, 0), (10, 0, 0, 1), (10, 10, 0, 1), (4, 0, 0, 0), (5, 0, 0, 1), (10**6, 0, 10**6, 400_000), (3, 2, 1, 1)],
)
def test_an_inference_costs_its_tokens(prompt: int, cached: int, completion: int, micros: int) -> None:
    assert inference_micros(Usage(prompt, cached, completion), PRICE) == micros


def test_reasoning_costs_as_the_rest_of_a_completion_unless_the_catalog_tells_another_price() -> None:
    usage, dearer = Usage(0, 0, 100, 40), PRICE.model_copy(update={"reasoning": Decimal(1)})
    assert inference_micros(usage, PRICE) == 30
    assert inference_micros(usage, dearer) == 18 + 40


def test_a_training_costs_its_tokens_and_its_gpu_time() -> None:
    assert gpu_micros(1.5, GPU) == 1500
    assert training_micros(1000, 1.5, PRICE, GPU) == 2000 + 1500


@pytest.mark.parametrize(("micros", "whole"), [(0, 0), (4_999, 0), (5_000, 1), (-5_000, -1), (10_000, 1), (-4_999, 0)])
def test_half_a_cent_rounds_away_from_zero(micros: int, whole: int) -> None:
    assert cents(micros) == whole
