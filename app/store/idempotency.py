"""`Idempotency-Key`: a repeated creating POST gets what the first one made."""

import hashlib
from typing import Annotated, Any

import orjson
from fastapi import Header
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import Conflict
from app.store.session import insert_if_absent
from app.store.tables import IdempotencyKey

IdempotencyHeader = Annotated[str | None, Header(alias="Idempotency-Key", max_length=255)]


async def claim_key(session: AsyncSession, org_id: str, key: str | None, request: Any, object_id: str) -> str:
    """The id that this request shall answer with: `object_id`, or the one an earlier same request made.

    Raises Conflict when the key came before with another request.
    """
    if key is None:
        return object_id
    request_hash = hashlib.sha256(orjson.dumps(request, option=orjson.OPT_SORT_KEYS)).hexdigest()
    row = {"org_id": org_id, "key": key, "request_hash": request_hash, "object_id": object_id}
    await session.execute(insert_if_absent(session, IdempotencyKey).values(row))
    kept = (
        await session.scalars(select(IdempotencyKey).where(IdempotencyKey.org_id == org_id, IdempotencyKey.key == key))
    ).one()
    if kept.request_hash != request_hash:
        raise Conflict("This Idempotency-Key was used with another request.", param="Idempotency-Key")
    return kept.object_id
