"""The routes of /responses, built on chat completions; the state is in our store, never in an engine."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from app import sse
from app.deps import SessionDep, StoreDep
from app.errors import BadRequest
from app.inference import responses_store as stored
from app.inference.admission import admit, read_json, wanted_gpu
from app.inference.responses_begin import begin, begin_compaction, parse, validated
from app.inference.responses_compaction import CompactRequest
from app.inference.responses_items import Item
from app.inference.responses_request import ResponseCreate
from app.inference.responses_sending import StreamedAnswer, WholeAnswer, as_json
from app.orgs.auth import CurrentOrg
from app.store.idempotency import IdempotencyHeader, find_claimed
from app.store.paging import PageQuery

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


def takes(model: type[BaseModel]) -> dict[str, Any]:
    """How the API's page describes a body that the route reads by itself."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}


@router.post(
    "",
    openapi_extra=takes(ResponseCreate),
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}, sse.MEDIA_TYPE: {}}}},
)
async def create_response(
    request: Request, org_id: CurrentOrg, store: StoreDep, idempotency_key: IdempotencyHeader = None
) -> Response:
    """OpenAI's Responses: string or items in, items out; `previous_response_id` goes on with a conversation."""
    body = await read_json(request)
    asked = parse(body)
    target = await admit(request, org_id, asked.model, wanted_gpu(request, body))
    async with store.read() as session:
        earlier = await find_claimed(session, org_id, idempotency_key, body)
        if earlier:
            return as_json((await stored.get(session, org_id, earlier)).body)
        conversation = await stored.history(session, org_id, asked.previous_response_id)
    exchange = begin(request, target, org_id, asked, conversation, (idempotency_key, body))
    return StreamedAnswer(exchange) if asked.stream else WholeAnswer(exchange)


@router.post(
    "/compact",
    openapi_extra=takes(CompactRequest),
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}},
)
async def compact_response(request: Request, org_id: CurrentOrg, store: StoreDep) -> Response:
    """A conversation made short: a window of items to go on from, which is nowhere kept."""
    body = await read_json(request)
    asked = validated(CompactRequest, body)
    target = await admit(request, org_id, asked.model, wanted_gpu(request, body))
    async with store.read() as session:
        conversation = await stored.history(session, org_id, asked.previous_response_id)
    return WholeAnswer(begin_compaction(request, target, org_id, asked, conversation))


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
