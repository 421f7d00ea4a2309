"""Stored responses: kept as they were answered, with the items they were asked with."""

import time
from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, delete, literal, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.errors import BadRequest, NotFound
from app.inference.responses_items import Item
from app.inference.responses_object import Response, is_final
from app.store.tables import ResponseEventBatch, ResponseLease, StoredResponse
from app.upkeep.sweeping import DAY_SECONDS, gone_orgs


class UnknownResponse(NotFound):
    def __init__(self, response_id: str) -> None:
        super().__init__(f"Response with id '{response_id[:100]}' not found.", param="response_id")


class UnknownPreviousResponse(BadRequest):
    """Not there, not this organisation's, or not stored."""

    code = "previous_response_not_found"

    def __init__(self, response_id: str) -> None:
        message = f"Previous response with id '{response_id[:100]}' not found."
        super().__init__(message, param="previous_response_id")


class UnfinishedPreviousResponse(BadRequest):
    """In the background, it has not come to its end yet."""

    code = "previous_response_not_finished"

    def __init__(self, response_id: str) -> None:
        message = f"Previous response with id '{response_id}' is still being generated; wait for its end."
        super().__init__(message, param="previous_response_id")


def add(
    session: AsyncSession, org_id: str, response: Response, items: Sequence[Item], *, before: Sequence[Item] = ()
) -> None:
    """`before`: the conversation so far, where it is stored nowhere."""
    session.add(
        StoredResponse(
            id=response["id"],
            org_id=org_id,
            previous_response_id=None if before else response["previous_response_id"],
            input_items=[*before, *items],
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
    """With its events. One that is being worked on is ended by that. Raises UnknownResponse."""
    row = await get(session, org_id, response_id)
    await remove_all(session, [row.id])


def are_old(*, days: float) -> ColumnElement[bool]:
    """Those that are final and older, or of a deleted organisation. A conversation is kept while its last turn is."""
    row, later = StoredResponse, aliased(StoredResponse)
    cutoff = time.time() - days * DAY_SECONDS
    leased = select(ResponseLease.response_id)
    # From the last turns that are kept back to the first: of those that are young, only what goes before them is asked.
    kept = (
        select(row.id, row.previous_response_id)
        .join(later, later.previous_response_id == row.id)
        .where(row.created_at < cutoff, (later.created_at >= cutoff) | later.id.in_(leased))
        .cte("kept", recursive=True)
    )
    earlier = select(row.id, row.previous_response_id).where(row.id == kept.c.previous_response_id)
    kept = kept.union(earlier)
    of_the_gone = row.org_id.in_(gone_orgs())
    is_old = and_(row.created_at < cutoff, row.id.not_in(select(kept.c.id)))
    return and_(row.id.not_in(leased), or_(is_old, of_the_gone))


async def history(session: AsyncSession, org_id: str, previous_id: str | None) -> list[Item]:
    """Every item of the conversation that ends with `previous_id`, oldest first.

    Raises UnknownPreviousResponse, UnfinishedPreviousResponse.
    """
    if previous_id is None:
        return []
    turns = await _turns(session, org_id, previous_id)
    missing = turns[0].previous_response_id if turns else previous_id
    if missing is not None:
        raise UnknownPreviousResponse(missing)
    if not is_final(turns[-1].body):
        raise UnfinishedPreviousResponse(previous_id)
    return [item for turn in turns for item in [*turn.input_items, *turn.body["output"]]]


async def _turns(session: AsyncSession, org_id: str, last_id: str) -> list[StoredResponse]:
    """Oldest first, in one statement however many there are."""
    columns = (StoredResponse.id, StoredResponse.previous_response_id)
    mine = StoredResponse.org_id == org_id
    last = select(*columns, literal(0).label("age")).where(mine, StoredResponse.id == last_id)
    chain = last.cte("chain", recursive=True)
    earlier = select(*columns, chain.c.age + 1).where(mine, StoredResponse.id == chain.c.previous_response_id)
    chain = chain.union_all(earlier)
    turns = select(StoredResponse).join(chain, StoredResponse.id == chain.c.id).order_by(chain.c.age.desc())
    return list(await session.scalars(turns))


async def _find(session: AsyncSession, org_id: str, response_id: str) -> StoredResponse | None:
    mine = (StoredResponse.org_id == org_id, StoredResponse.id == response_id)
    return await session.scalar(select(StoredResponse).where(*mine))


async def remove_all(session: AsyncSession, ids: Sequence[str]) -> None:
    """With their events."""
    # The lease first: its worker waits for it, and then writes no more events.
    for owned in (ResponseLease.response_id, ResponseEventBatch.response_id, StoredResponse.id):
        await session.execute(delete(owned.class_).where(owned.in_(ids)))
