"""`Idempotency-Key`: a repeated creating POST gets what the first one made."""

import base64
import hashlib
import time
from typing import Annotated, Any

import orjson
from cryptography.fernet import Fernet
from fastapi import Header
from sqlalchemy import ColumnElement, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import Conflict
from app.store.base import db_now
from app.store.session import insert_into
from app.store.tables import IdempotencyKey

KEPT_SECONDS = 24 * 3600.0

IdempotencyHeader = Annotated[str | None, Header(alias="Idempotency-Key", max_length=255)]

IS_BEING_MADE = IdempotencyKey.expires_at.is_not(None)
HAS_LAPSED = IdempotencyKey.expires_at < db_now()


async def claim_key(
    session: AsyncSession, org_id: str, key: str | None, request: Any, object_id: str, *, answer: Any = None
) -> str:
    """The id that this request shall answer with: `object_id`, or the one an earlier same request made.

    `answer`: what to answer it with again, where that is kept nowhere else. Raises Conflict when the key came before
    with another request.
    """
    if key is None:
        return object_id
    row = {"org_id": org_id, "key": key, "request_hash": _hash(request), "object_id": object_id}
    sealed = None if answer is None else _seal(request).encrypt(orjson.dumps(answer))
    made = IdempotencyKey.object_id == object_id
    await _insert(session, {**row, "expires_at": None, "answer": sealed}, or_where=made)
    return await find_claimed(session, org_id, key, request) or object_id


async def reserve_key(
    session: AsyncSession, org_id: str, key: str, request: Any, object_id: str, *, seconds: float
) -> bool:
    """Whether it falls to this request to make the object, which takes a while: nobody else does for so long, or until
    it is made and claimed. Again, to be given longer. Raises Conflict as `claim_key` does.
    """
    row = {"org_id": org_id, "key": key, "request_hash": _hash(request), "object_id": object_id}
    mine = IS_BEING_MADE & (IdempotencyKey.object_id == object_id)
    await _insert(session, {**row, "expires_at": db_now() + seconds, "answer": None}, or_where=mine)
    kept = await _get(session, org_id, key, request)
    return kept is not None and kept.object_id == object_id


async def release_key(session: AsyncSession, org_id: str, key: str, object_id: str) -> None:
    """Nothing was made under it; harmless where something was."""
    mine = (IdempotencyKey.org_id == org_id, IdempotencyKey.key == key, IdempotencyKey.object_id == object_id)
    await session.execute(delete(IdempotencyKey).where(*mine, IS_BEING_MADE))


async def find_claimed(session: AsyncSession, org_id: str, key: str | None, request: Any) -> str | None:
    """The id of what an earlier same request made. Raises Conflict as `claim_key` does."""
    kept = await _get(session, org_id, key, request)
    return kept.object_id if kept and kept.expires_at is None else None


async def find_answer(session: AsyncSession, org_id: str, key: str | None, request: Any) -> Any | None:
    """What an earlier same request said to answer again. Raises Conflict as `claim_key` does."""
    kept = await _get(session, org_id, key, request)
    return orjson.loads(_seal(request).decrypt(kept.answer)) if kept and kept.answer else None


async def is_claimed(session: AsyncSession, org_id: str, key: str | None) -> bool:
    """Whether anything was made under the key; by the same request or by another, `claim_key` finds out."""
    kept = await session.get(IdempotencyKey, (org_id, key)) if key is not None else None
    return kept is not None and kept.expires_at is None


async def _insert(session: AsyncSession, row: dict[str, Any], *, or_where: ColumnElement[bool]) -> None:
    """In place of one that has lapsed, too, or of one `or_where` that is so."""
    claim = insert_into(session, IdempotencyKey).values(created_at=time.time(), **row)
    taken_over = claim.on_conflict_do_update(
        index_elements=[IdempotencyKey.org_id, IdempotencyKey.key],
        set_={
            name: claim.excluded[name] for name in ("request_hash", "object_id", "created_at", "expires_at", "answer")
        },
        where=HAS_LAPSED | or_where,
    )
    await session.execute(taken_over)


async def _get(session: AsyncSession, org_id: str, key: str | None, request: Any) -> IdempotencyKey | None:
    mine = (IdempotencyKey.org_id == org_id, IdempotencyKey.key == key)
    kept = await session.scalar(select(IdempotencyKey).where(*mine).execution_options(populate_existing=True))
    if kept is not None and kept.request_hash != _hash(request):
        raise Conflict("This Idempotency-Key was used with another request.", param="Idempotency-Key")
    return kept


def _hash(request: Any) -> str:
    return hashlib.sha256(_canonical(request)).hexdigest()


def _seal(request: Any) -> Fernet:
    """Opened by nobody but who has the request itself, of which only another hash is kept."""
    return Fernet(base64.urlsafe_b64encode(hashlib.sha256(b"the seal of " + _canonical(request)).digest()))


def _canonical(request: Any) -> bytes:
    return orjson.dumps(request, option=orjson.OPT_SORT_KEYS)
