"""A charge is written whatever becomes of who caused it."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from app.billing.charges import Charges
from app.billing.funds import Funds
from app.billing.ledger import balance_micros, list_entries
from app.store.session import Store
from tests.billing.test_ledger import balance, entry, new_org

pytestmark = pytest.mark.anyio


async def test_a_charge_is_committed_when_it_is_recorded(store: Store) -> None:
    org = await new_org(store)
    await Charges(store, Funds(store, lease_seconds=15)).record(entry(org, "s", -5))
    assert await balance(store, org) == -5


async def test_a_charge_is_written_although_its_request_was_cancelled(store: Store) -> None:
    org, charges = await new_org(store), Charges(store, Funds(store, lease_seconds=15))
    recording = asyncio.create_task(charges.record(entry(org, "s", -5)))
    await asyncio.sleep(0)
    recording.cancel()
    with pytest.raises(asyncio.CancelledError):
        await recording
    await charges.settle()
    assert await balance(store, org) == -5


async def test_a_charge_waits_for_a_database_that_is_away(tmp_path: Path, store: Store) -> None:
    org, charges = await new_org(store), Charges(store, Funds(store, lease_seconds=15))
    async with store.begin() as session:
        await session.execute(text("ALTER TABLE ledger_entries RENAME TO away"))
    recording = asyncio.create_task(charges.record(entry(org, "s", -5)))
    done, _ = await asyncio.wait([recording], timeout=0.2)
    assert not done
    async with store.begin() as session:
        await session.execute(text("ALTER TABLE away RENAME TO ledger_entries"))
    await recording
    async with store.read() as session:
        assert await balance_micros(session, org) == -5


async def test_what_fails_after_one_charge_holds_up_no_other(store: Store) -> None:
    org, charges = await new_org(store), Charges(store, Funds(store, lease_seconds=15))

    def fail() -> None:
        raise LookupError

    charges.submit(entry(org, "a", -5), fail)
    async with asyncio.timeout(60):
        await charges.record(entry(org, "c", -7))
        await charges.record(entry(org, "d", -1))
    assert await balance(store, org) == -13


UNSPEAKABLE = {
    "a number that no column holds": {"amount_micros": -(2**70)},
    "a lone surrogate": {"model": "\ud800"},
    "no number": {"prompt_tokens": "many"},
}


@pytest.mark.parametrize("fields", UNSPEAKABLE.values(), ids=UNSPEAKABLE.keys())
async def test_a_charge_that_the_database_can_never_take_holds_up_no_other(store: Store, fields: Any) -> None:
    org, charges = await new_org(store), Charges(store, Funds(store, lease_seconds=15))
    charges.submit(replace(entry(org, "a", -5), **fields), lambda: None)
    async with asyncio.timeout(10):
        await charges.record(entry(org, "b", -7))
        await charges.settle()
    async with store.read() as session:
        assert [each.source for each in await list_entries(session, org)].count("b") == 1
