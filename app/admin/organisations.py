"""What is done to organisations, and that it was done."""

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.admin.changes import apply
from app.billing.ledger import Entry, append
from app.billing.prices import MICROS_PER_CENT
from app.catalog.spec import Catalog
from app.jobs import queue
from app.orgs import service
from app.orgs.audit import Action, Actor, record
from app.settings import Settings
from app.store.tables import Org


async def create_org(
    session: AsyncSession, actor: Actor, settings: Settings, name: str, limits: Mapping[str, Any]
) -> Org:
    """With the welcome credit. Raises as `service.create_org` does."""
    org = await service.create_org(session, name)
    apply(org, limits)
    await append(session, welcome_credit(settings, org.id))
    await record(session, actor, Action.ORG_CREATED, org.id, org.id, {"name": name, **limits})
    return org


def welcome_credit(settings: Settings, org_id: str) -> Entry:
    amount = settings.welcome_credit_cents * MICROS_PER_CENT
    return Entry(org_id=org_id, source=f"welcome:{org_id}", kind="credit", amount_micros=amount)


async def update_org(session: AsyncSession, actor: Actor, org: Org, values: Mapping[str, Any]) -> None:
    """Raises Conflict, BadRequest for a name that it cannot have."""
    if values.get("name", org.name) != org.name:
        await service.check_name(session, values["name"])
    if changed := apply(org, values):
        await service.flush_name(session, org.name)
        await record(session, actor, Action.ORG_UPDATED, org.id, org.id, changed)


async def delete_org(session: AsyncSession, actor: Actor, catalog: Catalog, org: Org) -> None:
    """Its keys are refused from now on, its jobs are cancelled; files and models are swept later, the ledger stays."""
    apply(org, {"deleted_at": time.time()})
    await session.flush()  # whoever creates a job meanwhile has the row, or finds it deleted
    await queue.cancel_all(session, catalog, org.id)
    await record(session, actor, Action.ORG_DELETED, org.id, org.id, {"name": org.name})
