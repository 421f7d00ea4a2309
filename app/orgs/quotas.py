"""Quotas: how much of something one organisation may have. Counted in the transaction that makes one more."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.orgs.auth import InvalidKey
from app.store.tables import Org


async def lock_org(session: AsyncSession, org_id: str) -> None:
    """Until this transaction ends, nobody else counts what the organisation has, and nobody deletes it.

    SQLite lets one write at a time anyway. On PostgreSQL, rows that refer to the organisation can be made meanwhile.
    Raises InvalidKey for one that was deleted.
    """
    row = select(Org.deleted_at).where(Org.id == org_id)
    if await session.scalar(row.with_for_update(key_share=True)) is not None:
        raise InvalidKey
