"""`Idempotency-Key`: a repeated creating POST gets what the first one made."""

import hashlib
import time
from typing import Annotated, Any

import orjson
from fastapi import Header
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import Conflict
from app.store.session import insert_if_absent
from app.store.tables import IdempotencyKey

KEPT_SECONDS = 24 * 3600.0

IdempotencyHeader = Annotated[str | None, Header(alias="Idempotency-Key", max_length=255)]


async def claim_key(session: AsyncSession, org_id: str, key: str | None, request: Any, object_id: str) -> str:
    """The id that this request shall answer with: `object_id`, or the one an earlier same request made.

    Raises Conflict when the key came before with another request.
    """
    if key is None:
        return object_id
    row = {"org_id": org_id, "key": key, "request_hash": _hash(request), "object_id": object_id}
    await session.execute(insert_if_absent(session, IdempotencyKey).values(created_at=time.time(), **row))
    return await find_claimed(session, org_id, key, request) or object_id


async def find_claimed(session: AsyncSession, org_id: str, key: str | None, request: Any) -> str | None:
    """The id of what an earlier same request made. Raises Conflict as `claim_key` does."""
    mine = (IdempotencyKey.org_id == org_id, IdempotencyKey.key == key)
    kept = await session.scalar(select(IdempotencyKey).where(*mine))
    if kept is None:
        return None
    if kept.request_hash != _hash(request):
        raise Conflict("This Idempotency-Key was used with another request.", param="Idempotency-Key")
    return kept.object_id


async def is_claimed(session: AsyncSession, org_id: str, key: str | None) -> bool:
    """Whether anything was made under the key; by the same request or by another, `claim_key` finds out."""
    return key is not None and await session.get(IdempotencyKey, (org_id, key)) is not None


def _hash(request: Any) -> str:
    return hashlib.sha256(orjson.dumps(request, option=orjson.OPT_SORT_KEYS)).hexdigest()
