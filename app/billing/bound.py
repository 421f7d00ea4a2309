"""The most that a request can cost, before it is asked: arithmetic."""

from dataclasses import dataclass

from app.catalog.spec import TokenPrices

# What chat templates put around what a client wrote: a preface for tools, a usual system message.
TEMPLATE_TOKENS = 512
UNLIMITED_TOKENS = 1 << 31
MILLION = 1_000_000


@dataclass(slots=True)
class Bound:
    """The most that a request can cost: its prompt, and each of its completion tokens, at the dearest."""

    n_bytes: int
    n: int
    prompt_micros: int
    micros: int

    def tokens_for(self, micros: int, price: TokenPrices) -> int:
        """How many tokens each of the answers may have for so much money in all."""
        a_token = price.dearest[1] * self.n
        return (micros - self.prompt_micros) * MILLION // a_token if a_token else UNLIMITED_TOKENS


def bound(n_bytes: int, tokens: int, n: int, context_length: int, price: TokenPrices) -> Bound:
    """Of a body of `n_bytes` as it goes to the engine, for `n` answers of up to `tokens` each.

    No tokenizer makes more tokens of a text than it has bytes, and no prompt is longer than the context.
    """
    a_prompt_token, a_token = price.dearest
    prompt = -(-min(n_bytes + TEMPLATE_TOKENS, context_length) * a_prompt_token // MILLION)
    return Bound(n_bytes, n, prompt, prompt - (-n * min(tokens, context_length) * a_token // MILLION))
