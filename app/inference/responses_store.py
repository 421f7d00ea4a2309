"""Stored responses: kept as they were answered, with the items they were asked with."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import BadRequest, NotFound
from app.inference.responses_items import Item
from app.store.idempotency import claim_key
from app.store.tables import StoredResponse

MAX_TURNS = 1000


class UnknownResponse(NotFound):
    def __init__(self, response_id: str) -> None:
        super().__init__(f"Response with id '{response_id[:100]}' not found.", param="response_id")


class UnknownPreviousResponse(BadRequest):
    """Not there, not this organisation's, or not stored."""

    code = "previous_response_not_found"

    def __init__(self, response_id: str) -> None:
        message = f"Previous response with id '{response_id[:100]}' not found."
        super().__init__(message, param="previous_response_id")


async def save(
    session: AsyncSession,
    org_id: str,
    response: dict[str, Any],
    items: Sequence[Item],
    *,
    previous_id: str | None,
    idempotency: tuple[str | None, Any],
) -> None:
    """`previous_id`: the stored response that this one goes on from. `idempotency`: the request's key, if any, and the
    request."""
    key, request = idempotency
    await claim_key(session, org_id, key, request, response["id"])
    session.add(
        StoredResponse(
            id=response["id"],
            org_id=org_id,
            previous_response_id=previous_id,
            input_items=list(items),
            body=response,
        )
    )


async def get(session: AsyncSession, org_id: str, response_id: str) -> StoredResponse:
    """Raises UnknownResponse."""
    row = await _find(session, org_id, response_id)
    if row is None:
        raise UnknownResponse(response_id)
    return row


async def remove(session: AsyncSession, org_id: str, response_id: str) -> None:
    """Raises UnknownResponse."""
    row = await get(session, org_id, response_id)
    await session.execute(delete(StoredResponse).where(StoredResponse.id == row.id))


async def history(session: AsyncSession, org_id: str, previous_id: str | None) -> list[Item]:
    """Every item of the conversation that ends with `previous_id`, oldest first. Raises UnknownPreviousResponse."""
    turns: list[list[Item]] = []
    while previous_id is not None and len(turns) < MAX_TURNS:
        row = await _find(session, org_id, previous_id)
        if row is None:
            raise UnknownPreviousResponse(previous_id)
        turns.append([*row.input_items, *row.body["output"]])
        previous_id = row.previous_response_id
    return [item for turn in reversed(turns) for item in turn]


async def _find(session: AsyncSession, org_id: str, response_id: str) -> StoredResponse | None:
    mine = (StoredResponse.org_id == org_id, StoredResponse.id == response_id)
    return await session.scalar(select(StoredResponse).where(*mine))
