"""The way to an engine and back: a lease, the engine's bytes as they come, and in every case the charge."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import orjson
import structlog

from app.billing.charges import Charges
from app.billing.ledger import Entry
from app.billing.prices import Usage, inference_micros
from app.catalog.resolve import Target
from app.engines.connection import OK, ConnectionBroken, EngineConnection, EngineSilent
from app.engines.engine import Engine
from app.engines.pool import EnginePool
from app.errors import APIError, BadRequest, Unavailable
from app.inference.chunks import ChunkReader, EngineError
from app.inference.folding import Folding
from app.settings import Settings

log = structlog.get_logger()

MAX_ERROR_CHARS = 1000


class EngineLost(Unavailable):
    """The engine failed while it worked on the request; nothing is charged."""

    code = "engine_error"
    headers = {"Retry-After": "2"}


class Meter(Protocol):
    """Reads an engine's stream."""

    @property
    def usage(self) -> Usage: ...

    @property
    def is_done(self) -> bool: ...


@dataclass(frozen=True)
class Relay:
    """What one request needs of the gateway."""

    settings: Settings
    pool: EnginePool
    charges: Charges
    target: Target
    org_id: str
    request_id: str

    async def read(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The whole answer, charged."""
        reader, folding = ChunkReader(), Folding()
        async with self.stream(body, reader) as pieces:
            async for piece in pieces:
                for chunk in reader.feed(piece):
                    folding.feed(chunk)
        return folding.completion

    @asynccontextmanager
    async def stream(self, body: Mapping[str, Any], meter: Meter) -> AsyncIterator[AsyncIterator[bytes]]:
        """The answer's bytes as they come; leaving the block ends the generation. However the block ends, what `meter`
        saw of usage is charged by then, unless the engine failed.

        Raises EngineLost, BadRequest for what the engine refuses, and as `EnginePool.lease` does.
        """
        try:
            async with (
                self.pool.lease(self.target, org_id=self.org_id, body=body) as engine,
                self._ask(engine, body) as answer,
            ):
                yield self._pieces(engine, answer)
            if not meter.is_done:
                raise EngineLost("The engine's answer broke off; try again.")
        except EngineLost:
            raise
        except EngineError as error:
            raise refusal(_status_of(error.body), error.body) from error
        except EngineSilent as error:
            raise EngineLost(f"The engine of {self.target.model.id} has been {error}.") from error
        except ConnectionBroken as error:
            log.warning("engine lost", model=self.target.model.id, error=repr(error)[:300])
            raise EngineLost(f"The engine of {self.target.model.id} stopped while it worked; try again.") from error
        except BaseException:  # the client left: what was generated for it is charged
            await self.charge(meter.usage)
            raise
        await self.charge(meter.usage)

    @asynccontextmanager
    async def _ask(self, engine: Engine, body: Mapping[str, Any]) -> AsyncIterator[EngineConnection]:
        async with engine.client.chat(body, silence_seconds=self.settings.stream_silence_seconds) as answer:
            if answer.status != OK:
                raise refusal(answer.status, await answer.read_all())
            yield answer

    async def _pieces(self, engine: Engine, answer: EngineConnection) -> AsyncIterator[bytes]:
        while piece := await answer.read():
            engine.heard()
            yield piece

    async def charge(self, usage: Usage) -> None:
        """Committed when this returns; a repeat for the same request changes nothing."""
        if usage == Usage():
            return
        prices = self.target.model.dollars_per_million_tokens
        entry = Entry(
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
        await self.charges.record(entry)


def refusal(status: int, body: bytes) -> APIError:
    """The engine's own error, in our words: short, and with a code that clients know."""
    try:
        error = orjson.loads(body)["error"]
        message = str(error["message"])[:MAX_ERROR_CHARS]
        param = error.get("param")
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message, param = "The engine refused the request.", None
    if status in (400, 422):
        too_long = "context length" in message or "max_model_len" in message
        return BadRequest(
            message, param=str(param) if param else None, code="context_length_exceeded" if too_long else None
        )
    log.warning("engine error", status=status, message=message)
    return EngineLost("The engine could not answer this request; try again.")


def _status_of(body: bytes) -> int:
    """Inside a stream, the engine tells the status in the error itself."""
    try:
        return int(orjson.loads(body)["error"]["code"])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return 500
