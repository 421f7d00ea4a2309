"""The ledger: appended once for each source, and everything else is its sum."""

import asyncio
import time
from typing import Any

import pytest
from sqlalchemy import Executable, delete, update
from sqlalchemy.exc import DBAPIError

from app.billing.ledger import (
    Entry,
    InsufficientFunds,
    append,
    balance_micros,
    list_entries,
    require_funds,
    spend_since,
)
from app.ids import new_id
from app.store.session import Store
from app.store.tables import LedgerEntry
from tests.rows import make_org

pytestmark = pytest.mark.anyio


def entry(org_id: str, source: str = "s", amount_micros: int = -5, **changes: Any) -> Entry:
    return Entry(**{"org_id": org_id, "source": source, "kind": "inference", "amount_micros": amount_micros, **changes})


async def new_org(store: Store) -> str:
    async with store.begin() as session:
        return (await make_org(session)).id


async def write(store: Store, *entries: Entry) -> None:
    async with store.begin() as session:
        for each in entries:
            await append(session, each)


async def balance(store: Store, org_id: str) -> int:
    async with store.read() as session:
        return await balance_micros(session, org_id)


async def test_one_source_is_charged_once_however_many_charge_it(store_url: str) -> None:
    stores = [Store(store_url) for _ in range(3)]
    org = await new_org(stores[0])
    await asyncio.gather(*(write(stores[n % 3], entry(org, f"source {n % 4}", -7)) for n in range(24)))
    assert await balance(stores[0], org) == -28
    async with stores[0].read() as session:
        assert sorted(e.source for e in await list_entries(session, org)) == [f"source {n}" for n in range(4)]
    for store in stores:
        await store.close()


async def test_a_repeat_changes_nothing_even_with_another_amount(store: Store) -> None:
    org = await new_org(store)
    await write(store, entry(org, "s", -5), entry(org, "s", -500))
    assert await balance(store, org) == -5


async def test_a_balance_is_the_sum_of_its_own_entries(store: Store) -> None:
    mine, theirs = await new_org(store), await new_org(store)
    amounts = [10**13, -1, -999_999, -(10**12), 3]
    await write(store, *(entry(mine, str(n), amount) for n, amount in enumerate(amounts)), entry(theirs, "x", -1))
    assert (await balance(store, mine), await balance(store, theirs)) == (sum(amounts), -1)
    assert await balance(store, await new_org(store)) == 0


@pytest.mark.parametrize(("amount", "has_funds"), [(1, True), (0, False), (-1, False)])
async def test_something_must_be_left_to_spend(store: Store, amount: int, has_funds: bool) -> None:
    org = await new_org(store)
    await write(store, entry(org, "credit", amount, kind="credit"))
    async with store.read() as session:
        if has_funds:
            await require_funds(session, org)
        else:
            with pytest.raises(InsufficientFunds):
                await require_funds(session, org)


async def test_spending_is_told_apart_by_what_it_was_for(store: Store) -> None:
    org, other, since = await new_org(store), await new_org(store), time.time() - 5000
    await write(
        store,
        entry(org, "credit", 1000, kind="credit"),
        entry(org, "chat", -10, prompt_tokens=3, cached_tokens=1, completion_tokens=4),
        entry(org, "job", -20, kind="training", trained_tokens=100, gpu_seconds=1.5),
        entry(org, "warm", -30, kind="warmup", gpu_seconds=2.0),
        entry(other, "theirs", -50, prompt_tokens=1000),
    )
    async with store.begin() as session:
        for n, created_at in enumerate([1.0, since - 1.0, since + 1.0]):
            old = entry(org, f"old {n}", -40, prompt_tokens=1000)
            session.add(LedgerEntry(id=new_id("led"), created_at=created_at, **vars(old)))
    async with store.read() as session:
        spend = await spend_since(session, org, since)
    assert (spend.token_micros, spend.gpu_micros, spend.n_tokens, spend.gpu_seconds) == (50, 50, 1107, 3.5)


async def test_nothing_spent_is_zero(store: Store) -> None:
    async with store.read() as session:
        spend = await spend_since(session, "nobody", 0.0)
    assert (spend.token_micros, spend.gpu_micros, spend.n_tokens, spend.gpu_seconds) == (0, 0, 0, 0.0)


@pytest.mark.parametrize("change", [update(LedgerEntry).values(amount_micros=0), delete(LedgerEntry)])
async def test_no_entry_changes_or_goes(store: Store, change: Executable) -> None:
    org = await new_org(store)
    await write(store, entry(org, "credit", 1000, kind="credit"))
    with pytest.raises(DBAPIError, match="append-only"):
        async with store.begin() as session:
            await session.execute(change)
