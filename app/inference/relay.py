"""The way to an engine and back: a lease, the engine's bytes as they come, and in every case the charge."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
import structlog

from app.billing.charges import Charges
from app.billing.ledger import Entry
from app.billing.prices import Usage, inference_micros
from app.catalog.resolve import Target
from app.engines.answer import EngineAnswer
from app.engines.connection import OK, ConnectionBroken, EngineSilent
from app.engines.engine import Engine
from app.engines.pool import EnginePool
from app.inference.bounds import count_chars
from app.inference.chat_request import INTERVAL, ChatRequest, engine_body
from app.inference.chunks import ChunkReader, EngineError
from app.inference.engine_errors import ContextExceeded, EngineLost, broken_off, lost, refusal, refused_in_stream
from app.inference.folding import Folding
from app.orgs.allowances import Allowance
from app.settings import Settings

log = structlog.get_logger()

LAST_WORD_SECONDS = 0.5
MAX_TOKEN_CHARS = 64  # on average; blanks come by the hundred in one token
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
    allowance: Allowance | None = None

    async def read(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The whole answer, charged."""
        reader, folding = ChunkReader(), Folding()
        async with self.stream(body, reader) as pieces:
            async for piece in pieces:
                folding.feed(*reader.feed(piece))
        return folding.completion

    def body(self, asked: ChatRequest) -> dict[str, Any]:
        """What the engine is sent."""
        if self.settings.log_prompts:
            log.info("asked", request=self.request_id, org=self.org_id, messages=asked.messages)
        return engine_body(
            asked,
            engine_name=self.target.engine_name,
            cache_salt=self.cache_salt,
            context_length=self.target.model.context_length,
        )

    @asynccontextmanager
    async def stream(self, body: Mapping[str, Any], meter: Meter) -> AsyncIterator[AsyncIterator[bytes]]:
        """The answer's bytes as they come; leaving the block ends the generation. However the block ends, what `meter`
        saw of usage is charged by then, unless the engine failed.

        Raises EngineLost, ContextExceeded, BadRequest for what the engine refuses, and as `EnginePool.lease` does.
        """
        self._check_length(body)
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
        except BaseException:  # the client left: what was generated for it is charged
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
        """What has come and was not read yet; from an engine that tells of its tokens some at a time, what comes."""
        with suppress(EngineError, OSError):
            async with asyncio.timeout(seconds):
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
        """The tokens of a chat body's prompt. Raises as `stream` does."""
        prompt = {name: body[name] for name in PROMPT_FIELDS if name in body}
        silence_seconds = self.settings.stream_silence_seconds
        try:
            async with (
                self.pool.lease(self.target, org_id=self.org_id) as engine,
                engine.client.tokenize(prompt, silence_seconds=silence_seconds) as answer,
            ):
                told = await answer.read_all()
        except (ConnectionBroken, EngineSilent) as error:
            raise lost(self.target, error) from error
        if answer.status != OK:
            raise refusal(answer.status, told)
        counted = orjson.loads(told)
        return TokenCount(counted["count"], counted["max_model_len"])

    async def charge(self, usage: Usage) -> None:
        """Committed when this returns; a repeat for the same request changes nothing."""
        if usage != Usage():
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
            source=f"request:{self.request_id}",
            kind="inference",
            amount_micros=-inference_micros(usage, prices),
            model=self.target.model.id,
            gpu=str(self.target.gpu),
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
        )
