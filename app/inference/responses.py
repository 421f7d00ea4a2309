"""The routes of /responses, built on chat completions; the state is in our store, never in an engine."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from app import sse
from app.catalog.preference import wanted_gpu
from app.deps import SessionDep, StoreDep
from app.errors import BadRequest
from app.inference import responses_running as running
from app.inference import responses_store as stored
from app.inference.admission import admit, read_json
from app.inference.responses_background import Backgrounds
from app.inference.responses_begin import begin, begin_compaction, begin_counting, seal_of, validated
from app.inference.responses_compaction import CompactRequest
from app.inference.responses_follow import follow
from app.inference.responses_items import Item
from app.inference.responses_once import Once, find_earlier
from app.inference.responses_references import with_referenced
from app.inference.responses_request import SEALED_REASONING, Includable, ResponseCreate
from app.inference.responses_retold import retold
from app.inference.responses_sealing import with_reasoning_sealed
from app.inference.responses_sending import FollowedAnswer, StreamedAnswer, ToldAnswer, WholeAnswer, as_json
from app.orgs.allowed_models import require_model
from app.orgs.auth import CurrentOrg
from app.settings import Settings
from app.store.idempotency import IdempotencyHeader
from app.store.paging import PageQuery

router = APIRouter(prefix="/responses", tags=["inference"])


def get_backgrounds(request: Request) -> Backgrounds:
    backgrounds: Backgrounds = request.app.state.backgrounds
    return backgrounds


BackgroundsDep = Annotated[Backgrounds, Depends(get_backgrounds)]


class IncludeQuery(BaseModel):
    include: list[Includable] = []
    in_brackets: list[Includable] = Field([], alias="include[]", description="as openai's client sends it")

    @property
    def wants_reasoning_sealed(self) -> bool:
        return SEALED_REASONING in (*self.include, *self.in_brackets)


class ResponseQuery(IncludeQuery):
    stream: bool = False
    starting_after: int | None = Field(None, ge=0, le=2**53)


class InputItemsQuery(IncludeQuery, PageQuery):
    pass


class ResponseDeleted(BaseModel):
    id: str
    object: Literal["response"]
    deleted: Literal[True]


class InputTokens(BaseModel):
    object: Literal["response.input_tokens"]
    input_tokens: int


class InputItems(BaseModel):
    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


def takes(model: type[BaseModel]) -> dict[str, Any]:
    """How the API's page describes a body that the route reads by itself."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}


@router.post(
    "",
    openapi_extra=takes(ResponseCreate),
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}, sse.MEDIA_TYPE: {}}}},
)
async def create_response(
    request: Request,
    org_id: CurrentOrg,
    store: StoreDep,
    backgrounds: BackgroundsDep,
    idempotency_key: IdempotencyHeader = None,
) -> Response:
    """OpenAI's Responses: string or items in, items out; `previous_response_id` goes on with a conversation."""
    body = await read_json(request)
    asked = validated(ResponseCreate, body)
    if idempotency_key is not None:
        require_model(request.state.key, asked.model)
        async with store.read() as session:  # before funds are asked for: it has been paid
            if earlier := await find_earlier(session, org_id, idempotency_key, body):
                return again(request, earlier, streamed=asked.stream)
    target = await admit(request, org_id, asked.model, wanted_gpu(request.scope, body))
    async with store.read() as session:
        conversation = await stored.history(session, org_id, asked.previous_response_id)
        asked = await with_referenced(session, org_id, asked, conversation)
    exchange = begin(request, target, org_id, asked, conversation, (idempotency_key, body))
    if asked.background:
        queued = await backgrounds.begin(exchange)
        answer = {**queued, "selected_gpu": exchange.gpu}
        return followed(request, queued["id"], gpu=exchange.gpu) if asked.stream else as_json(answer, exchange.gpu)
    work = exchange if idempotency_key is None else Once(exchange, store, request.app.state.settings)
    return StreamedAnswer(work) if asked.stream else WholeAnswer(work)


@router.post(
    "/compact",
    openapi_extra=takes(CompactRequest),
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}},
)
async def compact_response(request: Request, org_id: CurrentOrg, store: StoreDep) -> Response:
    """A conversation made short: a window of items to go on from, which is nowhere kept."""
    body = await read_json(request)
    asked = validated(CompactRequest, body)
    target = await admit(request, org_id, asked.model, wanted_gpu(request.scope, body))
    async with store.read() as session:
        conversation = await stored.history(session, org_id, asked.previous_response_id)
        question = asked.asking_for_summary(target.model.context_length)
        question = await with_referenced(session, org_id, question, conversation)
    return WholeAnswer(begin_compaction(request, target, org_id, question, conversation))


@router.post("/input_tokens", openapi_extra=takes(ResponseCreate), response_model=InputTokens)
async def count_input_tokens(request: Request, org_id: CurrentOrg, store: StoreDep) -> Response:
    """How many tokens a request would be asked with, the conversation before it included. Free of charge."""
    body = await read_json(request)
    asked = validated(ResponseCreate, body)
    target = await admit(request, org_id, asked.model, wanted_gpu(request.scope, body))
    async with store.read() as session:
        conversation = await stored.history(session, org_id, asked.previous_response_id)
        asked = await with_referenced(session, org_id, asked, conversation)
    return WholeAnswer(begin_counting(request, target, org_id, asked, conversation))


def again(request: Request, response: dict[str, Any], *, streamed: bool) -> Response:
    """What an earlier request under the same idempotency key was answered."""
    if not streamed:
        return as_json(response)
    return followed(request, response["id"]) if response["background"] else ToldAnswer(retold(response))


def followed(request: Request, response_id: str, *, after: int = -1, gpu: str | None = None) -> FollowedAnswer:
    """The events of a background response, beyond number `after`."""
    state = request.app.state
    settings: Settings = state.settings
    events = follow(state.store, state.backgrounds, response_id, after=after, poll_seconds=settings.poll_seconds)
    return FollowedAnswer(events, keep_alive_seconds=settings.keep_alive_seconds, gpu=gpu)


@router.get(
    "/{response_id}",
    response_class=Response,
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}, sse.MEDIA_TYPE: {}}}},
)
async def get_response(
    request: Request,
    response_id: str,
    query: Annotated[ResponseQuery, Query()],
    org_id: CurrentOrg,
    session: SessionDep,
) -> Response:
    """A background response can be followed with `stream`: all its events after number `starting_after`."""
    body = (await stored.get(session, org_id, response_id)).body
    if not query.stream:
        return as_json({**body, "output": shown(request, org_id, body["output"], query)})
    if not body["background"]:
        raise BadRequest("Only a response that was created with background can be streamed again.", param="stream")
    return followed(request, response_id, after=-1 if query.starting_after is None else query.starting_after)


@router.delete("/{response_id}")
async def delete_response(
    response_id: str, org_id: CurrentOrg, store: StoreDep, backgrounds: BackgroundsDep
) -> ResponseDeleted:
    async with store.begin() as session:
        await stored.remove(session, org_id, response_id)
    backgrounds.end(response_id)
    return ResponseDeleted(id=response_id, object="response", deleted=True)


@router.post("/{response_id}/cancel", response_class=Response)
async def cancel_response(
    response_id: str, org_id: CurrentOrg, store: StoreDep, backgrounds: BackgroundsDep
) -> Response:
    """Only a background response can be cancelled; to end another one, hang up."""
    async with store.begin() as session:
        body = await running.cancel(session, org_id, response_id)
    backgrounds.end(response_id)
    return as_json(body)


@router.get("/{response_id}/input_items")
async def list_input_items(
    request: Request,
    response_id: str,
    query: Annotated[InputItemsQuery, Query()],
    org_id: CurrentOrg,
    session: SessionDep,
) -> InputItems:
    items = (await stored.get(session, org_id, response_id)).input_items
    page, has_more = page_of(items, query)
    page = shown(request, org_id, page, query)
    ends = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return InputItems(object="list", data=page, first_id=ends[0], last_id=ends[1], has_more=has_more)


def shown(request: Request, org_id: str, items: list[Item], query: IncludeQuery) -> list[Item]:
    return with_reasoning_sealed(items, seal_of(request, org_id).close) if query.wants_reasoning_sealed else items


def page_of(items: list[Item], query: PageQuery) -> tuple[list[Item], bool]:
    """Raises BadRequest for an unknown cursor."""
    ordered = items if query.order == "asc" else items[::-1]
    if query.after is not None:
        ids = [item["id"] for item in ordered]
        if query.after not in ids:
            raise BadRequest("after: there is no such item to continue from.", param="after")
        ordered = ordered[ids.index(query.after) + 1 :]
    return ordered[: query.limit], len(ordered) > query.limit
