"""`loam ledger verify` finds what does not add up, and nothing where all does."""

import time

import pytest
from sqlalchemy import delete, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.sums import DAY_SECONDS, close_days
from app.billing.verify import verify
from app.store.session import Store
from app.store.tables import Balance, UsageClosedHour, UsageDay, UsageHour
from tests.billing.test_ledger import entry, new_org, write

pytestmark = pytest.mark.anyio


async def differences(store: Store) -> list[str]:
    return [difference async for difference in verify(store)]


async def filled(store: Store) -> str:
    org = await new_org(store)
    await write(
        store,
        entry(org, "credit", 1000, kind="credit"),
        entry(org, "chat", -10, model="m", gpu="CPU", key_id="key", prompt_tokens=3, completion_tokens=4),
        entry(org, "chat", -10, model="m"),
        entry(org, "job", -20, kind="training", gpu_seconds=0.1),
        entry(org, "other job", -20, kind="training", gpu_seconds=0.2),
    )
    return org


async def test_what_the_database_keeps_up_is_what_the_entries_add_up_to(store: Store) -> None:
    await filled(store)
    assert await differences(store) == []


async def test_charges_of_the_hot_path_add_up_too(store: Store) -> None:
    from app.billing.ledger import append_all

    orgs = [await filled(store) for _ in range(2)]
    entries = [entry(orgs[n % 2], f"s{n // 2}", -n, model=f"m{n % 3}") for n in range(40)]
    await append_all(store, entries)
    await append_all(store, entries[5:])
    assert await differences(store) == []


@pytest.mark.parametrize("table", [Balance, UsageHour, UsageClosedHour, UsageDay])
async def test_a_row_too_few_is_found(store: Store, table: type) -> None:
    await filled(store)
    await close_days(store, time.time() + 2 * DAY_SECONDS)
    await write(store, entry(await new_org(store), "open"))
    async with store.begin() as session:
        await session.execute(delete(table))
    assert await differences(store) != []


async def test_charges_are_written_while_it_looks_at_the_moment_when_it_began(store: Store) -> None:
    org = await filled(store)
    async with store.begin() as session:
        await session.execute(update(Balance).values(micros=951))
        await session.execute(update(UsageHour).where(UsageHour.model == "m").values(prompt_tokens=7))
    told: list[str] = []
    async for difference in verify(store):
        await write(store, entry(org, f"meanwhile {len(told)}"))
        told.append(difference)
    assert len(told) == 2


async def test_a_wrong_figure_is_told_with_the_right_one(store: Store) -> None:
    org = await filled(store)

    async def change(session: AsyncSession) -> None:
        await session.execute(update(Balance).values(micros=951))
        await session.execute(update(UsageHour).where(UsageHour.model == "m").values(prompt_tokens=7))

    async with store.begin() as session:
        await change(session)
    balance, usage = await differences(store)
    assert balance == f"balance of {org}: micros is 951, its entries say 950"
    assert usage.endswith("m inference CPU: prompt_tokens is 7, its entries say 3")
