"""Organisations and their keys, as those who run the server find them."""

from sqlalchemy import Select, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import BadRequest, Conflict, NotFound
from app.ids import new_id
from app.store.tables import ApiKey, Org

ID_PREFIX = "org_"


class NameTaken(Conflict):
    def __init__(self, name: str) -> None:
        super().__init__(f"There is already an organisation named {name!r}.", param="name")


async def create_org(session: AsyncSession, name: str) -> Org:
    """Raises Conflict when the name is taken, BadRequest when it cannot be one."""
    await check_name(session, name)
    org = Org(id=new_id("org"), name=name)
    session.add(org)
    await flush_name(session, name)
    return org


async def flush_name(session: AsyncSession, name: str) -> None:
    """Raises Conflict when somebody else has just taken it."""
    try:
        await session.flush()
    except IntegrityError as error:
        raise NameTaken(name) from error


async def check_name(session: AsyncSession, name: str) -> None:
    """Raises Conflict, BadRequest."""
    if name.startswith(ID_PREFIX) or not name.isprintable() or name != name.strip() or not 0 < len(name) <= 100:
        raise BadRequest(
            f"An organisation's name has 1 to 100 printable characters and does not begin with '{ID_PREFIX}'.",
            param="name",
        )
    if await find_org(session, name):
        raise NameTaken(name)


async def find_org(session: AsyncSession, name: str) -> Org | None:
    """By name or id; not one that was deleted."""
    return await session.scalar(live_orgs().where((Org.name == name) | (Org.id == name)))


async def get_org(session: AsyncSession, name: str) -> Org:
    """By name or id; raises NotFound."""
    org = await find_org(session, name)
    if org is None:
        raise NotFound(f"there is no organisation {name!r}; make it with: loam orgs create {name}")
    return org


def live_orgs() -> Select[Org]:
    return select(Org).where(Org.deleted_at.is_(None))


async def list_orgs(session: AsyncSession) -> list[Org]:
    return list(await session.scalars(live_orgs().order_by(Org.created_at, Org.id)))


async def list_keys(session: AsyncSession, org: Org) -> list[ApiKey]:
    return list(await session.scalars(select(ApiKey).where(ApiKey.org_id == org.id).order_by(ApiKey.created_at)))


async def get_key(session: AsyncSession, key_id: str) -> ApiKey:
    """Raises NotFound."""
    key = await session.get(ApiKey, key_id)
    if key is None:
        raise NotFound(f"there is no key {key_id!r}; their ids: loam keys list --org NAME")
    return key
