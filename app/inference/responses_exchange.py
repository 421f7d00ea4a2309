"""One request to /responses and its answer: how it comes about, apart from how it is sent."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.error_handlers import as_api_error
from app.errors import APIError, BadRequest
from app.ids import new_id
from app.inference import responses_store as stored
from app.inference.chat_request import ChatRequest
from app.inference.chunks import ChunkReader
from app.inference.folding import Folding
from app.inference.relay import Relay
from app.inference.responses_best_of import best_of
from app.inference.responses_items import Item, input_items
from app.inference.responses_object import Response, new_response
from app.inference.responses_request import ResponseCreate
from app.inference.responses_sealing import Close
from app.inference.responses_stream import Event, ResponseEvents, finished_response
from app.inference.responses_words import in_responses_words
from app.store.idempotency import claim_key
from app.store.session import Store


class Exchange:
    """Answers once, as `events()` or `whole()`. Who stops listening ends the generation.

    What was answered is in the store before anybody hears of its end. A background response is kept from its beginning
    by who runs it: `queue()`, then `events()`.
    """

    def __init__(
        self,
        relay: Relay,
        store: Store,
        asked: ResponseCreate,
        chat: ChatRequest,
        *,
        seal: Close,
        idempotency: tuple[str | None, Any] = (None, None),
    ) -> None:
        response_id = new_id("resp")
        self._relay = relay
        self._store = store
        self._asked = asked
        self.idempotency = idempotency
        self._unstored: Sequence[Item] = ()
        self.items = input_items(asked, response_id)
        self._begun = new_response(
            asked,
            response_id=response_id,
            created_at=int(time.time()),
            status="queued" if asked.background else "in_progress",
        )
        self._seal = seal if asked.wants_reasoning_sealed else None
        self._events = ResponseEvents(self._begun, seal=self._seal)
        self._chat = chat
        self.org_id = relay.org_id
        self.gpu = str(relay.target.gpu)
        self.keep_alive_seconds = relay.settings.keep_alive_seconds

    @property
    def response(self) -> Response:
        """As far as the events have come."""
        return self._events.response

    def adopt(self, conversation: Sequence[Item]) -> None:
        """What was said before is stored nowhere: it is kept with this response."""
        self._unstored = conversation

    async def whole(self) -> Response:
        """The finished response. Raises whatever goes wrong on the way; then nothing is kept."""
        with in_responses_words():
            completion = await self._relay.read(self._relay.body(self._chat))
        response = finished_response(self._begun, best_of(self._asked, completion), seal=self._seal)
        await self._keep(response)
        return response

    def queue(self) -> list[Event]:
        """The events of a response that waits for its turn."""
        return self._events.queue()

    async def events(self) -> AsyncGenerator[list[Event]]:
        """Together what comes together; to be closed by who leaves early.

        Raises what goes wrong before the first of them; later failures are events, those that nobody foresaw too: they
        are logged, and a client that reads a stream is told of its end.
        """
        try:
            async with aclosing(self._generated()) as batches:
                async for batch in batches:
                    yield batch
            yield await self._kept(self._events.finish())
        except Exception as error:  # once a stream has begun, nobody above can answer
            if not self._events.has_begun:
                raise
            yield await self.failed(error)

    async def prepared(self) -> AsyncGenerator[list[Event]]:
        """The events of a response without output: the engine is made ready, and nothing is generated."""
        await self._relay.ensure_ready()
        yield self._events.start()
        yield await self._kept(self._events.finish_unasked())

    async def failed(self, error: Exception) -> list[Event]:
        """The events that tell of a failure, from the first one on if none has been told; none after the end."""
        if self._events.is_over:
            return []
        told = as_api_error(error)
        start = [] if self._events.has_begun else self._events.start()
        code = "invalid_prompt" if isinstance(told, BadRequest) else told.code
        return await self._kept([*start, *self._events.fail(told.message, code)])

    async def claim(self, session: AsyncSession, *, answer: Response | None = None) -> str:
        """The response that answers this request: ours, or one that the same idempotency key made before.

        `answer`: ours, where it is stored nowhere. Raises Conflict.
        """
        key, request = self.idempotency
        return await claim_key(session, self.org_id, key, request, self.response["id"], answer=answer)

    async def save(self, session: AsyncSession, response: Response) -> None:
        stored.add(session, self.org_id, response, self.items, before=self._unstored)
        await session.flush()

    async def _generated(self) -> AsyncGenerator[list[Event]]:
        streams = streams_from_engine(self._asked)
        reader, folding = ChunkReader(), None if streams else Folding()
        body = self._relay.body(self._chat.model_copy(update={"stream": streams}))
        with in_responses_words():
            async with self._relay.stream(body, reader) as pieces:
                yield self._events.start()
                async for piece in pieces:
                    if folding is None:
                        yield [event for chunk in reader.feed(piece) for event in self._events.feed(chunk)]
                    else:
                        folding.feed(*reader.feed(piece))
        self._relay.check_funds(reader.usage)
        if folding:
            yield self._events.replay(best_of(self._asked, folding.completion))

    async def _kept(self, last: list[Event]) -> list[Event]:
        """The last events, once the response is in the store; or that it could not be stored."""
        try:
            await self._keep(self.response)
        except Exception as error:  # noqa: BLE001 - as in `events`
            return [*last[:-1], error_event(as_api_error(error), last[-1]["sequence_number"])]
        return last

    async def _keep(self, response: Response) -> None:
        """Stored, and for who sends the same again under its key; one that failed is then answered afresh."""
        is_stored, key = self._asked.store, self.idempotency[0]
        is_repeated = key is not None and response["status"] != "failed"
        if self._asked.background or not (is_stored or is_repeated):
            return
        async with self._store.begin() as session:
            if is_repeated:
                await self.claim(session, answer=None if is_stored else response)
            if is_stored:
                await self.save(session, response)


def streams_from_engine(asked: ResponseCreate) -> bool:
    """The best of several is known only when all are there."""
    return asked.n_samples == asked.n


def error_event(error: APIError, sequence_number: int) -> Event:
    """Ends a stream without a word of the response."""
    told = {"code": error.code, "message": error.message, "param": error.param}
    return {"type": "error", "sequence_number": sequence_number, **told}
