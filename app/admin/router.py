"""/admin/…: all organisations, their keys and credit, and the audit log; for keys with the server role."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.admin import credit, keys, organisations
from app.admin.schemas import (
    AuditOut,
    AuditQuery,
    CreditAdded,
    CreditIn,
    CreditOut,
    ExpiryIn,
    KeyCreate,
    KeyDeleted,
    KeyOut,
    KeyUpdate,
    NewKeyOut,
    OrgCreate,
    OrgDeleted,
    OrgOut,
    OrgUpdate,
    ServerAuditQuery,
)
from app.billing.ledger import balance_micros
from app.billing.prices import MICROS_PER_CENT, cents
from app.deps import SessionDep, SettingsDep
from app.errors import Conflict, NotFound
from app.ids import new_id
from app.jobs.router import CatalogDep
from app.orgs.audit import Actor
from app.orgs.auth import AskingKey
from app.orgs.keys import CurrentKey
from app.orgs.service import find_org, live_orgs
from app.store.idempotency import IdempotencyHeader, claim_key, find_claimed
from app.store.paging import ListOut, PageQuery, list_out, paginate
from app.store.tables import ApiKey, AuditEntry, LedgerEntry, Org

router = APIRouter(prefix="/admin", tags=["admin"])

PageDep = Annotated[PageQuery, Query()]


class UnknownOrg(NotFound):
    def __init__(self, name: str) -> None:
        super().__init__(f"No such organisation: '{name[:100]}'; GET /api/v1/admin/orgs lists them.", param="org")


class UnknownKey(NotFound):
    def __init__(self, key_id: str) -> None:
        super().__init__(f"No such API key: '{key_id[:100]}'.", param="key_id")


class KeyMadeBefore(Conflict):
    code = "api_key_made_before"

    def __init__(self, key_id: str) -> None:
        super().__init__(f"This Idempotency-Key has made the key {key_id}, which is shown once; rotate it for another.")


def get_actor(request: Request, key: AskingKey) -> Actor:
    return Actor.of(key, request.client.host if request.client else None)


ActorDep = Annotated[Actor, Depends(get_actor)]


async def get_named_org(org: str, session: SessionDep) -> Org:
    """By name or id. Raises UnknownOrg."""
    found = await find_org(session, org)
    if found is None:
        raise UnknownOrg(org)
    return found


OrgDep = Annotated[Org, Depends(get_named_org)]


async def get_named_key(key_id: str, org: OrgDep, session: SessionDep) -> ApiKey:
    """Raises UnknownKey."""
    return await key_among(session, keys_of(org), key_id)


KeyDep = Annotated[ApiKey, Depends(get_named_key)]


# 1) organisations
@router.post("/orgs")
async def create_org(
    body: OrgCreate,
    key: AskingKey,
    actor: ActorDep,
    session: SessionDep,
    settings: SettingsDep,
    idempotency_key: IdempotencyHeader = None,
) -> OrgOut:
    """With the welcome credit of the settings."""
    asked = body.model_dump(mode="json")
    if earlier := await find_claimed(session, key.org_id, idempotency_key, asked):
        return await org_out(session, await get_named_org(earlier, session))
    limits = body.columns()
    org = await organisations.create_org(session, actor, settings, limits.pop("name"), limits)
    await claim_key(session, key.org_id, idempotency_key, asked, org.id)
    return await org_out(session, org)


@router.get("/orgs")
async def list_orgs(query: PageDep, session: SessionDep) -> ListOut[OrgOut]:
    page = await paginate(session, live_orgs(), Org.id, query)
    data = [await org_out(session, org) for org in page.rows]
    return ListOut[OrgOut](**list_out(data, has_more=page.has_more))


@router.get("/orgs/{org}")
async def get_org(org: OrgDep, session: SessionDep) -> OrgOut:
    """By name or id."""
    return await org_out(session, org)


@router.post("/orgs/{org}")
async def update_org(body: OrgUpdate, org: OrgDep, actor: ActorDep, session: SessionDep) -> OrgOut:
    """What is left out stays as it is; a limit of null is none."""
    await organisations.update_org(session, actor, org, body.columns())
    return await org_out(session, org)


@router.delete("/orgs/{org}")
async def delete_org(org: OrgDep, actor: ActorDep, session: SessionDep, catalog: CatalogDep) -> OrgDeleted:
    """Its keys are refused at once and its jobs are cancelled; its ledger and its audit log stay."""
    await organisations.delete_org(session, actor, catalog, org)
    return OrgDeleted(id=org.id, object="organization.deleted", deleted=True)


# 2) their keys
@router.post("/orgs/{org}/keys")
async def create_key(
    body: KeyCreate,
    caller: AskingKey,
    org: OrgDep,
    actor: ActorDep,
    session: SessionDep,
    catalog: CatalogDep,
    idempotency_key: IdempotencyHeader = None,
) -> NewKeyOut:
    """`value` is the key itself, which is never shown again."""
    key, secret = await keys.create_key(session, actor, catalog, org, body.columns())
    await claim_for_key(session, caller, idempotency_key, body, key)
    return NewKeyOut.of(key, org, value=secret)


@router.get("/orgs/{org}/keys")
async def list_keys(query: PageDep, org: OrgDep, session: SessionDep) -> ListOut[KeyOut]:
    """Those too that were revoked."""
    return await key_page(session, keys_of(org), org, query)


@router.get("/orgs/{org}/keys/{key_id}")
async def get_key(key: KeyDep, org: OrgDep) -> KeyOut:
    return KeyOut.of(key, org)


@router.post("/orgs/{org}/keys/{key_id}")
async def update_key(
    body: KeyUpdate, key: KeyDep, org: OrgDep, actor: ActorDep, session: SessionDep, catalog: CatalogDep
) -> KeyOut:
    """What is left out stays as it is; a limit, a list of models or an end of null is none."""
    await keys.update_key(session, actor, catalog, key, body.columns())
    return KeyOut.of(key, org)


@router.post("/orgs/{org}/keys/{key_id}/rotate")
async def rotate_key(key: KeyDep, org: OrgDep, actor: ActorDep, session: SessionDep) -> NewKeyOut:
    """The same key under another secret, shown this once; the one before is refused at once."""
    return NewKeyOut.of(key, org, value=await keys.rotate_key(session, actor, key))


@router.delete("/orgs/{org}/keys/{key_id}")
async def revoke_key(key: KeyDep, actor: ActorDep, session: SessionDep) -> KeyDeleted:
    """For good."""
    await keys.revoke_key(session, actor, key)
    return KeyDeleted.of(key)


# 3) their credit
@router.post("/orgs/{org}/credit")
async def add_credit(
    body: CreditIn,
    caller: AskingKey,
    org: OrgDep,
    actor: ActorDep,
    session: SessionDep,
    idempotency_key: IdempotencyHeader = None,
) -> CreditAdded:
    asked, new = {"org": org.id, "amount_cents": body.amount_cents}, new_id("credit")
    credit_id = await claim_key(session, caller.org_id, idempotency_key, asked, new)
    if credit_id == new:
        await credit.add_credit(session, actor, org, body.amount_cents * MICROS_PER_CENT, new)
    balance = cents(await balance_micros(session, org.id))
    told = {"id": credit_id, "organization_id": org.id, "amount_cents": body.amount_cents, "balance_cents": balance}
    return CreditAdded(object="credit", **told)


@router.get("/orgs/{org}/credit")
async def list_credit(query: PageDep, org: OrgDep, session: SessionDep) -> ListOut[CreditOut]:
    """What was put on the balance, and taken back from it."""
    page = await paginate(session, credit.credits_of(org.id), LedgerEntry.id, query)
    return ListOut[CreditOut](**list_out([CreditOut.of(entry) for entry in page.rows], has_more=page.has_more))


# 4) what was done
@router.get("/audit")
async def list_audit(query: Annotated[ServerAuditQuery, Query()], session: SessionDep) -> ListOut[AuditOut]:
    org_id = (await org_ever(session, query.org)).id if query.org else None
    return await audit_page(session, query, org_id)


async def audit_page(session: AsyncSession, query: AuditQuery, org_id: str | None) -> ListOut[AuditOut]:
    page = await paginate(session, query.filter(org_id).rows(), AuditEntry.id, query)
    return ListOut[AuditOut](**list_out([AuditOut.of(entry) for entry in page.rows], has_more=page.has_more))


async def org_ever(session: AsyncSession, name: str) -> Org:
    """By name or id, or by its id one that was deleted. Raises UnknownOrg."""
    return await session.get(Org, name) or await get_named_org(name, session)


async def org_out(session: AsyncSession, org: Org) -> OrgOut:
    return OrgOut.of(org, await balance_micros(session, org.id))


def keys_of(org: Org) -> Select[ApiKey]:
    return select(ApiKey).where(ApiKey.org_id == org.id)


async def key_among(session: AsyncSession, rows: Select[ApiKey], key_id: str) -> ApiKey:
    """Raises UnknownKey."""
    key = await session.scalar(rows.where(ApiKey.id == key_id))
    if key is None:
        raise UnknownKey(key_id)
    return key


async def key_page(session: AsyncSession, rows: Select[ApiKey], org: Org, query: PageQuery) -> ListOut[KeyOut]:
    page = await paginate(session, rows, ApiKey.id, query)
    return ListOut[KeyOut](**list_out([KeyOut.of(key, org) for key in page.rows], has_more=page.has_more))


async def claim_for_key(
    session: AsyncSession, caller: CurrentKey, idempotency_key: str | None, body: ExpiryIn, key: ApiKey
) -> None:
    """Raises KeyMadeBefore, and what was made now is not."""
    asked = {"org": key.org_id, **body.model_dump(mode="json")}
    made = await claim_key(session, caller.org_id, idempotency_key, asked, key.id)
    if made != key.id:
        raise KeyMadeBefore(made)
