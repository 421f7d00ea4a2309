"""Days and hours are summed up once they are over, and nothing that is asked for tells the difference."""

import asyncio
from datetime import UTC, datetime

import pytest
from alembic import command
from sqlalchemy import Connection, func, select

from app.billing.ledger import append_all, spend_since
from app.billing.sums import close_days, whole_days
from app.billing.usage import Bucket, Group, UsageRow
from app.store.migrate import migrate
from app.store.session import Store
from app.store.tables import UsageClosedHour, UsageDay, UsageHour
from tests.billing.test_ledger import entry, new_org, write
from tests.billing.test_usage import JANUARY, add, asked_of
from tests.billing.test_verify import differences
from tests.store.test_migrate import migrations

pytestmark = pytest.mark.anyio

HOUR, DAY = 3600, 24 * 3600


async def count(store: Store, table: type[UsageHour | UsageClosedHour | UsageDay]) -> int:
    async with store.read() as session:
        return await session.scalar(select(func.count()).select_from(table)) or 0


@pytest.fixture
async def org(store: Store) -> str:
    """An entry every three hours of four days, the last of which is not over, and as many of another organisation."""
    org, other = await new_org(store), await new_org(store)
    async with store.begin() as session:
        for n in range(32):
            moment = JANUARY + n * 3 * HOUR + 1
            add(session, org, moment, model=f"m{n % 2}", key_id="k", prompt_tokens=2**n, gpu_seconds=n / 4)
            add(session, other, moment, prompt_tokens=1)
        add(session, org, JANUARY + DAY, kind="credit")
    return org


NOW = JANUARY + 3 * DAY + 23 * HOUR


@pytest.mark.parametrize(
    ("since", "until", "whole"),
    [
        (0, 3 * DAY, (0, 3 * DAY)),
        (1 * HOUR, 3 * DAY, (DAY, 3 * DAY)),
        (DAY - HOUR, 2 * DAY + 1, (DAY, 2 * DAY)),
        (HOUR, 2 * HOUR, (2 * HOUR, 2 * HOUR)),
        (HOUR, DAY + 1, (DAY + 1, DAY + 1)),
        (DAY, DAY + HOUR, (DAY + HOUR, DAY + HOUR)),
    ],
)
def test_whole_days_lie_between_both_ends(since: int, until: int, whole: tuple[int, int]) -> None:
    assert whole_days(since, until) == whole


async def told(store: Store, org: str) -> list[list[UsageRow]]:
    """Windows whose ends lie in days, in hours, and on their edges."""
    edges = (0, HOUR / 2, 5 * HOUR, DAY, DAY + 4 * HOUR, 2 * DAY, 2 * DAY + 7 * HOUR + 1, 3 * DAY, 3 * DAY + 20 * HOUR)
    windows = [(a, b) for a in edges for b in edges if a < b]
    asked = [
        {"start": JANUARY + a, "end": JANUARY + b, "bucket": bucket, "groups": groups}
        for a, b in windows
        for bucket, groups in ((Bucket.HOUR, [Group.MODEL]), (Bucket.DAY, [Group.MODEL]), (Bucket.MONTH, []))
    ]
    return [await asked_of(store, org, **one) for one in asked]


async def test_usage_is_the_same_once_days_are_closed(store: Store, org: str) -> None:
    before = await told(store, org)
    await close_days(store, NOW)
    assert await told(store, org) == before
    assert await differences(store) == []


async def test_spending_is_the_same_once_days_are_closed(store: Store, org: str) -> None:
    async def spent() -> list[object]:
        async with store.read() as session:
            return [await spend_since(session, org, JANUARY + since) for since in (-1.0, 4000.0, DAY, 1.5 * DAY, 1e9)]

    before = await spent()
    await close_days(store, NOW)
    assert await spent() == before


async def test_a_day_is_closed_once_it_has_been_over_for_an_hour(store: Store, org: str) -> None:
    await close_days(store, JANUARY + DAY + HOUR - 1)
    assert (await count(store, UsageDay), await count(store, UsageClosedHour)) == (0, 0)
    await close_days(store, JANUARY + DAY + HOUR)
    assert (await count(store, UsageDay), await count(store, UsageClosedHour)) == (3, 16)


async def test_what_comes_late_is_counted_before_and_after_it_is_closed(store: Store, org: str) -> None:
    await close_days(store, NOW)
    n_rows = await count(store, UsageDay)
    before = await told(store, org)
    async with store.begin() as session:
        add(session, org, JANUARY + DAY + 1, model="m0", key_id="k", prompt_tokens=7)
    late = await told(store, org)
    assert late != before
    await close_days(store, NOW)
    assert await told(store, org) == late
    assert (await count(store, UsageDay), await differences(store)) == (n_rows, [])


async def test_nothing_is_lost_that_is_charged_while_days_are_closed_by_two(store_url: str) -> None:
    stores = [Store(store_url) for _ in range(3)]
    org = await new_org(stores[0])

    async def charge(store: Store) -> None:
        for n in range(20):
            await append_all(store, [entry(org, f"{n}-{m}", -1, model=f"m{m % 3}") for m in range(10)])

    charging = asyncio.create_task(charge(stores[0]))

    async def close(store: Store) -> None:
        """As if today were over, again and again."""
        while not charging.done():
            await close_days(store, datetime.now(UTC).timestamp() + 2 * DAY)

    await asyncio.gather(charging, close(stores[1]), close(stores[2]))
    assert await count(stores[0], UsageDay) > 0
    assert await differences(stores[0]) == []
    async with stores[0].read() as session:
        assert (await spend_since(session, org, 0.0)).token_micros == 200
    for store in stores:
        await store.close()


async def test_hours_are_together_again_where_the_migration_is_taken_back(store: Store, org: str) -> None:
    def take_back(connection: Connection) -> None:
        config = migrations()
        config.attributes["connection"] = connection
        command.downgrade(config, "watched_keys")

    before = await told(store, org)
    await close_days(store, NOW)
    await write(store, entry(org, "one more"))
    async with store.begin() as session:
        add(session, org, JANUARY, model="m0", key_id="k")
    with_late = await told(store, org)
    async with store.engine.begin() as connection:
        await connection.run_sync(take_back)
    await migrate(store)
    assert before != with_late == await told(store, org)
    assert await differences(store) == []
