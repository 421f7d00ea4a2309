"""Organisations, as the terminal makes and lists them."""

import time

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import Conflict, NotFound
from app.ids import new_id
from app.store.tables import ApiKey, Org


async def create_org(session: AsyncSession, name: str) -> Org:
    """Raises Conflict when the name is taken."""
    if await find_org(session, name):
        raise Conflict(f"there is already an organisation named {name!r}")
    org = Org(id=new_id("org"), name=name)
    session.add(org)
    await session.flush()
    return org


async def find_org(session: AsyncSession, name: str) -> Org | None:
    return await session.scalar(select(Org).where((Org.name == name) | (Org.id == name)))


async def get_org(session: AsyncSession, name: str) -> Org:
    """By name or id; raises NotFound."""
    org = await find_org(session, name)
    if org is None:
        raise NotFound(f"there is no organisation {name!r}; make it with: loam orgs create {name}")
    return org


async def list_orgs(session: AsyncSession) -> list[Org]:
    return list(await session.scalars(select(Org).order_by(Org.created_at, Org.id)))


async def list_keys(session: AsyncSession, org: Org) -> list[ApiKey]:
    return list(await session.scalars(select(ApiKey).where(ApiKey.org_id == org.id).order_by(ApiKey.created_at)))


async def revoke_key(session: AsyncSession, key_id: str) -> None:
    """Raises NotFound; revoking again is harmless."""
    key = await session.get(ApiKey, key_id)
    if key is None:
        raise NotFound(f"there is no key {key_id!r}; their ids: loam keys list --org NAME")
    key.revoked_at = key.revoked_at or time.time()
