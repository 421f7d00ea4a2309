"""The way to an engine and back: a lease, the engine's bytes as they come, and in every case the charge."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import anyio
import orjson
import structlog

from app.billing.bound import Bound, bound
from app.billing.charges import Charges
from app.billing.funds import ASK_AGAIN_SECONDS, Hold
from app.billing.ledger import Entry, InsufficientFunds
from app.billing.prices import Usage, inference_micros
from app.catalog.resolve import Target
from app.engines.answer import EngineAnswer
from app.engines.connection import OK, ConnectionBroken, EngineSilent
from app.engines.engine import Engine
from app.engines.pool import EnginePool
from app.inference.chat_request import INTERVAL, ChatRequest, engine_body
from app.inference.chunks import ChunkReader, EngineError
from app.inference.engine_errors import ContextExceeded, EngineLost, broken_off, lost, refusal, refused_in_stream
from app.inference.folding import Folding
from app.inference.messages import count_chars
from app.orgs.allowances import Allowance
from app.settings import Settings

log = structlog.get_logger()

LAST_WORD_SECONDS = 0.5
MAX_TOKEN_CHARS = 64  # on average; blanks come by the hundred in one token
LIMITS = ("max_tokens", "max_completion_tokens", "min_tokens")
PROMPT_FIELDS = ("model", "messages", "tools", "chat_template_kwargs")


class Meter(Protocol):
    """Reads an engine's stream."""

    @property
    def usage(self) -> Usage: ...

    @property
    def is_done(self) -> bool: ...

    def feed(self, data: bytes) -> object: ...


@dataclass(frozen=True)
class TokenCount:
    """Of a prompt, and how many of prompt and answer together the engine takes."""

    tokens: int
    limit: int


@dataclass(slots=True)
class Relay:
    """What one request needs of the gateway."""

    settings: Settings
    pool: EnginePool
    charges: Charges
    target: Target
    org_id: str
    request_id: str
    cache_salt: str
    key_id: str | None = None
    allowance: Allowance | None = None
    hold: Hold | None = None
    place: Allowance | None = None  # where it counts as one of those under way
    affordable_tokens: int | None = None  # of the whole answer, where funds end before it may

    async def read(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The whole answer, charged."""
        reader, folding = ChunkReader(), Folding()
        async with self.stream(body, reader) as pieces:
            async for piece in pieces:
                folding.feed(*reader.feed(piece))
        return folding.completion

    def body(self, asked: ChatRequest) -> dict[str, Any]:
        """What the engine is sent."""
        return engine_body(
            asked,
            engine_name=self.target.engine_name,
            cache_salt=self.cache_salt,
            context_length=self.target.model.context_length,
            can_limit_thoughts=self.target.model.can_limit_thoughts,
        )

    def note(self, body: Mapping[str, Any]) -> None:
        """In the log, where prompts are wanted there."""
        if self.settings.log_prompts:
            log.info("asked", request=self.request_id, org=self.org_id, messages=body["messages"])

    @asynccontextmanager
    async def stream(self, body: Mapping[str, Any], meter: Meter) -> AsyncIterator[AsyncIterator[bytes]]:
        """The answer's bytes as they come; leaving the block ends the generation. However the block ends, what `meter`
        saw of usage is charged by then, unless the engine failed or a bug ended it.

        Raises TooManyAtOnce, InsufficientFunds, EngineLost, ContextExceeded, BadRequest for what the engine refuses,
        and as `EnginePool.lease` does.
        """
        self._check_length(body)
        self.note(body)
        try:
            self.take_place()
            body = await self._with_funds(body)
            async with self._charged(body, meter) as pieces:
                yield pieces
        finally:
            self.let_go()

    def hold_now(self, body: Mapping[str, Any], n_bytes: int) -> bool:
        """Whether there are funds at hand for the dearest answer to `body`, of `n_bytes`. `let_go` when it is over."""
        self.hold = self.charges.funds.hold_now(self.org_id, self._to_hold(body, n_bytes))
        return self.hold is not None

    async def hold_soon(self, body: Mapping[str, Any], n_bytes: int) -> None:
        """The same, once the store was asked; others' money is not waited for. Raises InsufficientFunds, FundsHeld."""
        micros = self._to_hold(body, n_bytes)
        self.hold = await self.charges.funds.hold(self.org_id, micros, wait_seconds=ASK_AGAIN_SECONDS)

    def take_place(self) -> None:
        """Among the requests that may run at once. `let_go` when it is over. Raises TooManyAtOnce."""
        if self.allowance:
            self.allowance.begin()
            self.place = self.allowance

    def let_go(self) -> None:
        """Again is harmless."""
        if self.hold:
            self.hold.release()
        if self.place:
            self.place.end()
            self.place = None

    def check_funds(self, usage: Usage) -> None:
        """Raises InsufficientFunds for an answer that ended because they did."""
        if self.affordable_tokens is not None and usage.completion_tokens >= self.affordable_tokens:
            raise InsufficientFunds

    async def _with_funds(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Held for it. Where nobody said how long the answer may be, it is made as long as there are funds for it."""
        most = self._bound(body, len(orjson.dumps(body)))
        may_be_shorter = not any(limit in body for limit in LIMITS)
        least = self._bound({**body, "max_tokens": 1}, most.n_bytes).micros if may_be_shorter else None
        self.hold = await self.charges.funds.hold(self.org_id, most.micros, least=least)
        if self.hold.micros >= most.micros:
            return body
        tokens = most.tokens_for(self.hold.micros, self.target.model.dollars_per_million_tokens)
        self.affordable_tokens = tokens * most.n
        return {**body, "max_tokens": tokens}

    def _to_hold(self, body: Mapping[str, Any], n_bytes: int) -> int:
        """Something must be left for what is free too."""
        return max(1, self._bound(body, n_bytes).micros)

    def _bound(self, body: Mapping[str, Any], n_bytes: int) -> Bound:
        model = self.target.model
        most = model.context_length
        tokens = min(body.get("max_tokens", most), body.get("max_completion_tokens", most))
        return bound(n_bytes, tokens, body.get("n", 1), most, model.dollars_per_million_tokens)

    @asynccontextmanager
    async def _charged(self, body: Mapping[str, Any], meter: Meter) -> AsyncIterator[AsyncIterator[bytes]]:
        try:
            async with (
                self.pool.lease(self.target, org_id=self.org_id, body=body) as engine,
                self._ask(engine, body) as answer,
            ):
                try:
                    yield self._pieces(engine, answer)
                except (asyncio.CancelledError, GeneratorExit):
                    await self._hear_out(answer, meter, LAST_WORD_SECONDS if INTERVAL in body else 0)
                    raise
            if not meter.is_done:
                raise broken_off()
        except EngineLost:
            raise
        except EngineError as error:
            raise refused_in_stream(error) from error
        except (ConnectionBroken, EngineSilent) as error:
            raise lost(self.target, error) from error
        except (asyncio.CancelledError, GeneratorExit, OSError):  # the client left: what was made for it is charged
            await self.charge(meter.usage)
            raise
        await self.charge(meter.usage)

    def _check_length(self, body: Mapping[str, Any]) -> None:
        """What cannot fit is not read: megabytes would keep the engine from everybody else's requests."""
        context_length = self.target.model.context_length
        if count_chars(body["messages"]) > context_length * MAX_TOKEN_CHARS:
            message = f"The messages are far longer than this model's context length of {context_length} tokens."
            raise ContextExceeded(message, param="messages")

    async def _hear_out(self, answer: EngineAnswer, meter: Meter, seconds: float) -> None:
        """What has come and was not read yet; then, from an engine that does not tell of each token, what comes."""
        for patience_seconds in (0, seconds):
            # Not asyncio's timeout: in a task that is being cancelled it ends the task before Python 3.11.4.
            with suppress(EngineError, OSError), anyio.move_on_after(patience_seconds):
                meter.feed(await answer.read())

    @asynccontextmanager
    async def _ask(self, engine: Engine, body: Mapping[str, Any]) -> AsyncIterator[EngineAnswer]:
        async with engine.client.chat(body, silence_seconds=self.settings.stream_silence_seconds) as answer:
            if answer.status != OK:
                raise refusal(answer.status, await answer.read_all())
            yield answer

    async def _pieces(self, engine: Engine, answer: EngineAnswer) -> AsyncIterator[bytes]:
        while piece := await answer.read():
            engine.heard()
            yield piece

    async def ensure_ready(self) -> None:
        """Raises as `EnginePool.lease` does."""
        async with self.pool.lease(self.target, org_id=self.org_id):
            pass

    async def count(self, body: Mapping[str, Any]) -> TokenCount:
        """The tokens of a chat body's prompt. Raises as `stream` does, but for funds: it is free."""
        self._check_length(body)
        prompt = {name: body[name] for name in PROMPT_FIELDS if name in body}
        silence_seconds = self.settings.stream_silence_seconds
        try:
            self.take_place()
            async with (
                self.pool.lease(self.target, org_id=self.org_id) as engine,
                engine.client.tokenize(prompt, silence_seconds=silence_seconds) as answer,
            ):
                told = await answer.read_all()
        except (ConnectionBroken, EngineSilent) as error:
            raise lost(self.target, error) from error
        finally:
            self.let_go()
        if answer.status != OK:
            raise refusal(answer.status, told)
        counted = orjson.loads(told)
        return TokenCount(counted["count"], counted["max_model_len"])

    async def charge(self, usage: Usage) -> None:
        """Committed when this returns; a repeat for the same request changes nothing."""
        if usage:
            self.spend(usage)
            await self.charges.record(self.entry(usage))

    def spend(self, usage: Usage) -> None:
        """Of what may be used in a minute, where that is limited."""
        if self.allowance:
            self.allowance.spend(usage.prompt_tokens + usage.completion_tokens)

    def entry(self, usage: Usage) -> Entry:
        """What `usage` costs, under the request's id."""
        prices = self.target.model.dollars_per_million_tokens
        return Entry(
            org_id=self.org_id,
            key_id=self.key_id,
            source=f"request:{self.request_id}",
            kind="inference",
            amount_micros=-inference_micros(usage, prices),
            model=self.target.model.id,
            gpu=str(self.target.gpu),
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            reasoning_tokens=usage.reasoning_tokens,
        )
