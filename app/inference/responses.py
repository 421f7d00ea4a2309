"""The routes of /responses, built on chat completions; the state is in our store, never in an engine."""

import time
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope, Send

from app import sse
from app.deps import SessionDep, StoreDep
from app.error_handlers import HANDLED, as_api_error, validation_error
from app.errors import BadRequest
from app.ids import new_id
from app.inference import responses_store as stored
from app.inference.admission import admit, read_json, relay_for, wanted_gpu
from app.inference.bounds import check_takes_tools
from app.inference.chat import parse as parse_chat
from app.inference.chat_request import ChatRequest, engine_body
from app.inference.chunks import ChunkReader
from app.inference.relay import Relay
from app.inference.responses_best_of import best_of
from app.inference.responses_chat import to_chat
from app.inference.responses_items import Item, input_items
from app.inference.responses_object import new_response
from app.inference.responses_request import ResponseCreate
from app.inference.responses_stream import ResponseEvents, encode, finished_response
from app.inference.sending import EventStream, until_disconnect
from app.orgs.auth import CurrentOrg
from app.store.idempotency import IdempotencyHeader, find_claimed
from app.store.paging import PageQuery
from app.store.session import Store

router = APIRouter(prefix="/responses", tags=["inference"])


class ResponseDeleted(BaseModel):
    id: str
    object: Literal["response"]
    deleted: Literal[True]


class InputItems(BaseModel):
    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


@router.post(
    "",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": ResponseCreate.model_json_schema()}},
        }
    },
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}, sse.MEDIA_TYPE: {}}}},
)
async def create_response(
    request: Request, org_id: CurrentOrg, store: StoreDep, idempotency_key: IdempotencyHeader = None
) -> Response:
    """OpenAI's Responses: string or items in, items out; `previous_response_id` goes on with a conversation."""
    body = await read_json(request)
    asked = parse(body)
    target = await admit(request, org_id, asked.model, wanted_gpu(request.scope, body))
    async with store.read() as session:
        earlier = await find_claimed(session, org_id, idempotency_key, body)
        if earlier:
            return as_json((await stored.get(session, org_id, earlier)).body)
        conversation = await stored.history(session, org_id, asked.previous_response_id)
    chat = parse_chat({**to_chat(asked, conversation), "stream": streams_from_engine(asked)})
    check_takes_tools(target.model, chat.tools, chat.tool_choice)
    return Exchange(
        relay_for(request.app.state, target, org_id, request.state.request_id),
        store,
        asked,
        chat,
        (idempotency_key, body),
    )


def parse(body: dict[str, Any]) -> ResponseCreate:
    """Raises BadRequest."""
    try:
        asked = ResponseCreate.model_validate(body)
    except ValidationError as error:
        raise validation_error(error.errors()) from error
    if asked.background:
        raise BadRequest("background responses are not supported yet; leave background out.", param="background")
    return asked


def streams_from_engine(asked: ResponseCreate) -> bool:
    """The best of several is known only when all are there."""
    return asked.stream and asked.n_samples == asked.n


@router.get("/{response_id}", response_class=Response)
async def get_response(response_id: str, org_id: CurrentOrg, session: SessionDep, stream: bool = False) -> Response:
    if stream:
        raise BadRequest("Only a background response can be streamed again.", param="stream")
    return as_json((await stored.get(session, org_id, response_id)).body)


@router.delete("/{response_id}")
async def delete_response(response_id: str, org_id: CurrentOrg, session: SessionDep) -> ResponseDeleted:
    await stored.remove(session, org_id, response_id)
    return ResponseDeleted(id=response_id, object="response", deleted=True)


@router.post("/{response_id}/cancel", response_class=Response)
async def cancel_response(response_id: str, org_id: CurrentOrg, session: SessionDep) -> Response:
    """Only a background response can be cancelled; to end another one, hang up."""
    await stored.get(session, org_id, response_id)
    raise BadRequest("Only a background response can be cancelled; this one is finished.", param="response_id")


@router.get("/{response_id}/input_items")
async def list_input_items(
    response_id: str, query: Annotated[PageQuery, Query()], org_id: CurrentOrg, session: SessionDep
) -> InputItems:
    items = (await stored.get(session, org_id, response_id)).input_items
    page, has_more = page_of(items, query)
    ends = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return InputItems(object="list", data=page, first_id=ends[0], last_id=ends[1], has_more=has_more)


def page_of(items: list[Item], query: PageQuery) -> tuple[list[Item], bool]:
    """Raises BadRequest for an unknown cursor."""
    ordered = items if query.order == "asc" else items[::-1]
    if query.after is not None:
        ids = [item["id"] for item in ordered]
        if query.after not in ids:
            raise BadRequest("after: there is no such item to continue from.", param="after")
        ordered = ordered[ids.index(query.after) + 1 :]
    return ordered[: query.limit], len(ordered) > query.limit


class Exchange(Response):
    """One request and its answer; does its work while it is sent, so that a client that leaves ends it."""

    def __init__(
        self, relay: Relay, store: Store, asked: ResponseCreate, chat: ChatRequest, idempotency: tuple[str | None, Any]
    ) -> None:
        super().__init__()
        self._relay = relay
        self._store = store
        self._asked = asked
        self._idempotency = idempotency
        self._gpu = str(relay.target.gpu)
        self._items = input_items(asked)
        self._begun = new_response(asked, response_id=new_id("resp"), created_at=int(time.time()))
        self._body = engine_body(
            chat,
            engine_name=relay.target.engine_name,
            org_id=relay.org_id,
            context_length=relay.target.model.context_length,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = self._stream(send) if self._asked.stream else self._whole(scope, receive, send)
        await until_disconnect(receive, work)

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        completion = best_of(self._asked, await self._relay.read(self._body))
        response = finished_response(self._begun, completion)
        await self._keep(response)
        answer = as_json({**response, "selected_gpu": self._gpu}, gpu=self._gpu)
        await answer(scope, receive, send)

    async def _stream(self, send: Send) -> None:
        stream = EventStream(send, [(b"x-gpu-type", self._gpu.encode())])
        events = ResponseEvents(self._begun)
        try:
            with stream.kept_alive(self._relay.settings.keep_alive_seconds):
                await self._write_answer(stream, events)
        except HANDLED as error:
            if not events.has_begun:
                if not stream.has_begun:
                    raise
                await self._write(stream, events.start())
            told = as_api_error(error)
            await self._write(stream, events.fail(told.message, told.code))
            await self._keep(events.response)
        await stream.end()

    async def _write_answer(self, stream: EventStream, events: ResponseEvents) -> None:
        if streams_from_engine(self._asked):
            reader = ChunkReader()
            async with self._relay.stream(self._body, reader) as pieces:
                await self._write(stream, events.start())
                async for piece in pieces:
                    await self._write(stream, [event for chunk in reader.feed(piece) for event in events.feed(chunk)])
        else:
            completion = best_of(self._asked, await self._relay.read(self._body))
            await self._write(stream, [*events.start(), *events.replay(completion)])
        last = events.finish()
        await self._keep(events.response)  # before the client hears that it is there
        await self._write(stream, last)

    async def _write(self, stream: EventStream, events: list[dict[str, Any]]) -> None:
        for event in events:
            await stream.write(encode(event))

    async def _keep(self, response: dict[str, Any]) -> None:
        if self._asked.store:
            async with self._store.begin() as session:
                await stored.save(session, self._relay.org_id, response, self._items, idempotency=self._idempotency)


def as_json(body: dict[str, Any], gpu: str | None = None) -> Response:
    headers = {"x-gpu-type": gpu} if gpu else None
    return Response(orjson.dumps(body), media_type="application/json", headers=headers)
