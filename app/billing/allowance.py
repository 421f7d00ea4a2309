"""What a gateway may let an organisation spend, and what a request may cost: arithmetic, without a store or a clock.

Of what is *granted* to the gateway, requests under way *hold* the most that each may cost. A charge comes off what is
granted at once; until it is known to be committed it is *pending*, and the store goes on holding it too. So the store
never holds less than may still be spent.
"""

from dataclasses import dataclass

from app.catalog.spec import TokenPrices

# What chat templates put around what a client wrote: a preface for tools, a usual system message.
TEMPLATE_TOKENS = 512
UNLIMITED_TOKENS = 1 << 31
MILLION = 1_000_000


@dataclass(slots=True)
class Allowance:
    """All in micro-dollars. `usual` is the most that was in use at once of late, and halves when it is not."""

    granted: int = 0
    held: int = 0
    pending: int = 0
    peak: int = 0
    usual: int = 0

    @property
    def free(self) -> int:
        return self.granted - self.held

    @property
    def kept(self) -> int:
        """What the store has to hold as things are."""
        return max(0, self.granted + self.pending)

    def take(self, micros: int) -> bool:
        held = self.held + micros
        if held > self.granted:
            return False
        self.held = held
        self.peak = max(self.peak, held)
        return True

    def give_back(self, micros: int) -> None:
        self.held -= micros

    def spend(self, micros: int) -> None:
        self.granted -= micros
        self.pending += micros
        self.peak += micros  # as much again will be wanted

    def committed(self, micros: int) -> None:
        self.pending -= micros

    def begin_period(self) -> None:
        self.usual, self.peak = max(self.peak, self.usual // 2), self.held

    def change(self, need: int, available: int, *, is_wanted: bool = False) -> int:
        """How much more to ask of what is `available` (less, where negative) so that `need` can be taken.

        Something for the next requests comes with it, though never more than half of what there is, and none of it
        stays where another gateway lacks it.
        """
        lacking = need - self.free
        if available < 0:
            return max(available, min(0, -self.free))
        spare = 0 if is_wanted else 2 * max(self.usual, self.peak)
        ahead = max(lacking, spare - self.granted)
        if lacking > available:
            return available if lacking > 0 else 0
        return max(lacking, min(ahead, available // 2)) if ahead > 0 else ahead


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
