"""What things cost: pure, in integer micro-dollars, rounded once."""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from app.catalog.spec import GpuType, TokenPrices

MICROS_PER_CENT = 10_000


@dataclass(slots=True)
class Usage:
    """Tokens of one request, as the engine counted them.

    `cached_tokens` are among the prompt's, `reasoning_tokens` among the completion's.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0

    def __bool__(self) -> bool:
        return self.prompt_tokens > 0 or self.completion_tokens > 0


def inference_micros(usage: Usage, price: TokenPrices) -> int:
    """A dollar for a million tokens is a micro-dollar for one."""
    fresh = usage.prompt_tokens - usage.cached_tokens
    prompt = fresh * price.prompt + usage.cached_tokens * price.cached_prompt
    completion = usage.completion_tokens * price.completion
    if price.reasoning is not None:
        completion += usage.reasoning_tokens * (price.reasoning - price.completion)
    return _round(prompt + completion)


def training_micros(trained_tokens: int, gpu_seconds: float, price: TokenPrices, gpu: GpuType) -> int:
    """Trained tokens and the GPU time they took; `gpu_seconds` counts every GPU."""
    return _round(trained_tokens * price.training) + gpu_micros(gpu_seconds, gpu)


def gpu_micros(gpu_seconds: float, gpu: GpuType) -> int:
    return _round(Decimal(str(gpu_seconds)) * gpu.micros_per_hour / 3600)


def cents(micros: int) -> int:
    """Half a cent rounds away from zero."""
    whole = (abs(micros) + MICROS_PER_CENT // 2) // MICROS_PER_CENT
    return whole if micros >= 0 else -whole


def _round(amount: Decimal) -> int:
    return int(amount.to_integral_value(ROUND_HALF_UP))
