"""Quotas: how much of something one organisation may have. Counted in the transaction that makes one more."""

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.store.tables import Org


async def lock_org(session: AsyncSession, org_id: str) -> None:
    """Until this transaction ends, nobody else counts what the organisation has.

    SQLite lets one write at a time anyway. On PostgreSQL, rows that refer to the organisation can be made meanwhile.
    """
    await session.execute(select(Org.id).where(Org.id == org_id).with_for_update(key_share=True))
