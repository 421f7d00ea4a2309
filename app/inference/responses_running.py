"""Background responses in the store: who works on them, what they have told, and how they end.

Whoever works on a response holds its lease, and every write of theirs needs it. Who ends the response takes the lease
away: it is final then, and whatever its worker still writes comes too late.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import BadRequest
from app.inference import responses_store as stored
from app.inference.responses_object import Response, cancelled, failed, is_final
from app.inference.responses_stream import Event
from app.inference.responses_told import output_told
from app.store.base import db_now
from app.store.session import insert_if_absent
from app.store.tables import ResponseEventBatch, ResponseLease, StoredResponse


class Ended(Exception):
    """The response is final, or gone. Stop working on it and change nothing."""


class NotCancellable(BadRequest):
    def __init__(self, message: str) -> None:
        super().__init__(message, param="response_id")


async def begin(session: AsyncSession, response_id: str, events: Sequence[Event], *, lease_seconds: float) -> None:
    """After the response has been saved."""
    session.add(ResponseLease(response_id=response_id, expires_at=db_now() + lease_seconds))
    await session.flush()
    await _write(session, response_id, events)


async def tell(session: AsyncSession, response_id: str, events: Sequence[Event], *, lease_seconds: float) -> None:
    """Write events, and the response as they show it; with its final one the lease is over. A repeat is harmless.

    Raises Ended.
    """
    shown = next((event["response"] for event in reversed(events) if "response" in event), None)
    if shown and is_final(shown):
        await _end(session, response_id)
    else:
        await _hold(session, response_id, lease_seconds)
    await _write(session, response_id, events)
    if shown:
        await _show(session, response_id, shown)


async def cancel(session: AsyncSession, org_id: str, response_id: str) -> Response:
    """Final at once, with the output that was told until now; a repeat is harmless. Clients know no event for it: the
    stream just ends.

    Raises UnknownResponse, NotCancellable.
    """
    row = await stored.get(session, org_id, response_id)
    if not row.body["background"]:
        raise NotCancellable("Cannot cancel a synchronous response; to end one, close its connection.")
    try:
        await _end(session, response_id)
    except Ended:
        session.expire(row)
        return _cancelled_before(await stored.get(session, org_id, response_id))
    body = cancelled(row.body, output_told(await told_after(session, response_id)))
    await _show(session, response_id, body)
    return body


async def fail(session: AsyncSession, response_id: str, message: str, *, only_lapsed: bool = False) -> None:
    """In its worker's place. `only_lapsed`: unless the worker has been heard of meanwhile. Raises Ended."""
    await _end(session, response_id, only_lapsed=only_lapsed)
    row = await session.get_one(StoredResponse, response_id, populate_existing=True)
    told = await told_after(session, response_id)
    body = failed(row.body, output_told(told), message=message, code="server_error")
    number = told[-1]["sequence_number"] + 1
    await _write(session, response_id, [{"type": "response.failed", "sequence_number": number, "response": body}])
    await _show(session, response_id, body)


async def hold(session: AsyncSession, response_ids: Sequence[str], *, lease_seconds: float) -> None:
    mine = update(ResponseLease).where(ResponseLease.response_id.in_(response_ids))
    await session.execute(mine.values(expires_at=db_now() + lease_seconds))


async def still_running(session: AsyncSession, response_ids: Sequence[str]) -> set[str]:
    """Those of them that nobody has ended."""
    rows = select(ResponseLease.response_id).where(ResponseLease.response_id.in_(response_ids))
    return set(await session.scalars(rows))


async def lapsed(session: AsyncSession, *, limit: int) -> list[str]:
    """Those whose worker went silent."""
    rows = select(ResponseLease.response_id).where(ResponseLease.expires_at < db_now())
    return list(await session.scalars(rows.limit(limit)))


async def told_after(
    session: AsyncSession, response_id: str, number: int = -1, *, n_batches: int | None = None
) -> list[Event]:
    """The events with a sequence number beyond `number`: of the first `n_batches`, or all."""
    rows = select(ResponseEventBatch.events).where(
        ResponseEventBatch.response_id == response_id, ResponseEventBatch.last_number > number
    )
    batches = await session.scalars(rows.order_by(ResponseEventBatch.last_number).limit(n_batches))
    return [event for events in batches for event in events if event["sequence_number"] > number]


async def _hold(session: AsyncSession, response_id: str, lease_seconds: float) -> None:
    mine = update(ResponseLease).where(ResponseLease.response_id == response_id)
    _check_one(await session.execute(mine.values(expires_at=db_now() + lease_seconds)))


async def _end(session: AsyncSession, response_id: str, *, only_lapsed: bool = False) -> None:
    lease = delete(ResponseLease).where(ResponseLease.response_id == response_id)
    _check_one(await session.execute(lease.where(ResponseLease.expires_at < db_now()) if only_lapsed else lease))


def _check_one(result: Any) -> None:
    assert isinstance(result, CursorResult)
    if result.rowcount != 1:
        raise Ended


def _cancelled_before(row: StoredResponse) -> Response:
    if row.body["status"] != "cancelled":
        raise NotCancellable(f"Cannot cancel a {row.body['status']} response.")
    return row.body


async def _write(session: AsyncSession, response_id: str, events: Sequence[Event]) -> None:
    # A transaction whose commit was lost on the way may have been made all the same, and is tried again.
    row = {"response_id": response_id, "last_number": events[-1]["sequence_number"], "events": list(events)}
    await session.execute(insert_if_absent(session, ResponseEventBatch).values(row))


async def _show(session: AsyncSession, response_id: str, body: Response) -> None:
    await session.execute(update(StoredResponse).where(StoredResponse.id == response_id).values(body=body))
