"""Money that is put on balances, or taken back from them."""

from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing import holds
from app.billing.ledger import Entry, append
from app.errors import BadRequest
from app.orgs.audit import Action, Actor, record
from app.store.tables import LedgerEntry, Org

MAX_MICROS = 10**15  # a billion dollars


async def add_credit(session: AsyncSession, actor: Actor, org: Org, micros: int, credit_id: str) -> None:
    """Less than nothing takes back what is not spent or held. Raises BadRequest."""
    if micros == 0 or abs(micros) > MAX_MICROS:
        raise BadRequest("The amount must not be 0, and not above a billion dollars.", param="amount_cents")
    if micros < 0:
        left = (await holds.look(session, org.id, "")).left_micros
        if left + micros < 0:
            raise BadRequest(f"Only ${max(0, left) / 1e6:,.2f} are neither spent nor held.", param="amount_cents")
    await append(session, Entry(org_id=org.id, source=f"credit:{credit_id}", kind="credit", amount_micros=micros))
    await record(session, actor, Action.CREDIT_ADDED, org.id, credit_id, {"amount_micros": micros})


def credits_of(org_id: str) -> Select[Any]:
    return select(LedgerEntry).where(LedgerEntry.org_id == org_id, LedgerEntry.kind == "credit")
