"""Quotas: how much of something one organisation may have. Counted in the transaction that makes one more."""

from dataclasses import dataclass, fields
from typing import Self

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.orgs.auth import InvalidKey
from app.settings import Settings
from app.store.tables import Org


@dataclass(frozen=True)
class Quotas:
    """The settings', where the organisation has none of its own."""

    max_stored_files: int
    max_stored_bytes: int
    max_queued_jobs: int

    @classmethod
    def of(cls, org: Org, settings: Settings) -> Self:
        own = {field.name: getattr(org, field.name) for field in fields(cls)}
        return cls(**{name: getattr(settings, name) if value is None else value for name, value in own.items()})


async def get_quotas(session: AsyncSession, org_id: str, settings: Settings) -> Quotas:
    return Quotas.of(await session.get_one(Org, org_id), settings)


async def lock_org(session: AsyncSession, org_id: str) -> None:
    """Until this transaction ends, nobody else counts what the organisation has, and nobody deletes it.

    SQLite lets one write at a time anyway. On PostgreSQL, rows that refer to the organisation can be made meanwhile.
    Raises InvalidKey for one that was deleted.
    """
    row = select(Org.deleted_at).where(Org.id == org_id)
    if await session.scalar(row.with_for_update(key_share=True)) is not None:
        raise InvalidKey
