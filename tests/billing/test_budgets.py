"""A month's spending of a key, and of all keys of an organisation together, ends at its budget."""

import pytest

from app.billing.budgets import Budgets, BudgetSpent
from app.ids import new_id
from app.orgs.keys import CurrentKey, Limits
from app.orgs.roles import Role
from app.store.session import Store
from app.store.tables import LedgerEntry
from tests.billing.test_ledger import entry, new_org, write

pytestmark = pytest.mark.anyio


def key_of(org: str, key_id: str = "key", *, own: int | None = None, of_org: int | None = None) -> CurrentKey:
    return CurrentKey(org, key_id, Role.MEMBER, limits=Limits(None, None, own), org_limits=Limits(None, None, of_org))


async def is_allowed(store: Store, key: CurrentKey) -> bool:
    budgets = Budgets(store, cache_seconds=60)
    try:
        await budgets.require(key)
    except BudgetSpent:
        assert not budgets.allow_now(key)
        return False
    assert budgets.allow_now(key)
    return True


async def test_a_budget_is_spent_by_this_months_charges_alone(store: Store) -> None:
    org = await new_org(store)
    await write(
        store,
        entry(org, "credit", 1000, kind="credit"),
        entry(org, "mine", -60, key_id="key"),
        entry(org, "theirs", -40, key_id="other"),
    )
    async with store.begin() as session:
        old = entry(org, "old", -500, key_id="key")
        session.add(LedgerEntry(id=new_id("led"), created_at=1.0, **vars(old)))
    cases = {(None, None): True, (61, None): True, (60, None): False, (None, 101): True, (None, 100): False}
    for (own, of_org), allowed in cases.items():
        assert await is_allowed(store, key_of(org, own=own, of_org=of_org)) == allowed


async def test_what_this_gateway_charges_counts_at_once(store: Store) -> None:
    org, budgets = await new_org(store), Budgets(store, cache_seconds=60)
    mine, theirs = key_of(org, own=100, of_org=150), key_of(org, "other", own=100, of_org=150)
    for key in (mine, theirs):
        await budgets.require(key)
    budgets.count(entry(org, "s", -100, key_id="key"))
    assert (budgets.allow_now(mine), budgets.allow_now(theirs)) == (False, True)
    budgets.count(entry(org, "t", -50, key_id="other"))
    assert not budgets.allow_now(theirs)
