"""Monthly budgets of keys and organisations, as this gateway knows them: asked for now and then, and counted on.

A month is UTC's. What jobs have cost counts before it is charged. What was spent through other gateways is known a few
seconds later, and requests under way are not counted: by what is spent meanwhile a budget may be exceeded, and by no
more.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.ledger import Entry
from app.billing.sums import used
from app.errors import APIError
from app.moments import month_began
from app.orgs.keys import CurrentKey
from app.store.session import Store
from app.store.tables import Hold

MAX_KNOWN = 10_000


class BudgetSpent(APIError):
    status_code, type, code = 402, "insufficient_quota", "insufficient_quota"
    headers = {"x-should-retry": "false"}


@dataclass(slots=True)
class _Spent:
    """This month, by a key (or by all, where the id is empty) of an organisation."""

    micros: int
    good_until: float


class Budgets:
    """Costs nothing for who has no budget."""

    def __init__(self, store: Store, *, cache_seconds: float) -> None:
        self._store = store
        self._cache_seconds = cache_seconds
        self._spent: dict[tuple[str, str], _Spent] = {}

    def allow_now(self, key: CurrentKey) -> bool:
        """Whether it is known that something is left of the budgets."""
        if key.limits.monthly_budget_micros is None and key.org_limits.monthly_budget_micros is None:
            return True
        now = time.monotonic()
        return all(
            (spent := self._spent.get(whose)) is not None and now < spent.good_until and spent.micros < budget
            for whose, budget in _budgets(key)
        )

    async def require(self, key: CurrentKey) -> None:
        """Raises BudgetSpent."""
        if self.allow_now(key):
            return
        for (org_id, key_id), budget in _budgets(key):
            spent = await self._ask(org_id, key_id)
            if spent >= budget:
                whose = "this key" if key_id else "the organisation"
                raise BudgetSpent(
                    f"The monthly budget of {whose}, ${budget / 1e6:,.2f}, is spent; it begins anew on the 1st."
                )

    def count(self, entry: Entry) -> None:
        """A charge that this gateway has made."""
        for whose in ((entry.org_id, ""), (entry.org_id, entry.key_id or "")):
            if spent := self._spent.get(whose):
                spent.micros -= entry.amount_micros

    async def _ask(self, org_id: str, key_id: str) -> int:
        asked_at = time.monotonic()
        async with self._store.read() as session:
            micros = await used_this_month(session, org_id, key_id)
        if len(self._spent) >= MAX_KNOWN:
            self._spent.clear()
        self._spent[org_id, key_id] = _Spent(micros, asked_at + self._cache_seconds)
        return micros


async def used_this_month(session: AsyncSession, org_id: str, key_id: str = "", *, besides: str = "") -> int:
    """By the key, or by the whole organisation: charged, or kept for jobs that will be; `besides` what one holds."""
    began_at = month_began(datetime.now(UTC)).timestamp()
    sums = used(org_id, began_at).c
    charged = select(func.coalesce(func.sum(-sums.amount_micros), 0))
    kept = select(func.coalesce(func.sum(Hold.kept_micros), 0)).where(Hold.org_id == org_id, Hold.holder != besides)
    if key_id:
        charged, kept = charged.where(sums.key_id == key_id), kept.where(Hold.key_id == key_id)
    return int(await session.scalar(charged) or 0) + int(await session.scalar(kept) or 0)


def _budgets(key: CurrentKey) -> list[tuple[tuple[str, str], int]]:
    of_key, of_org = key.limits.monthly_budget_micros, key.org_limits.monthly_budget_micros
    found = [] if of_key is None else [((key.org_id, key.key_id), of_key)]
    return found if of_org is None else [*found, ((key.org_id, ""), of_org)]
