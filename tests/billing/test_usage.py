"""GET /usage: the ledger's entries by bucket and group."""

import csv
import io
from datetime import UTC, datetime
from typing import Any

import pytest
from httpx import AsyncClient
from sqlalchemy.ext.asyncio import AsyncSession

from app.billing.usage import Asked, Bucket, Group, UsageRow, usage
from app.ids import new_id
from app.store.session import Store
from app.store.tables import LedgerEntry
from tests.asking import chat, ok, refused
from tests.billing.test_ledger import entry, new_org

pytestmark = pytest.mark.anyio

JANUARY, DAY = datetime(2026, 1, 1, tzinfo=UTC).timestamp(), 24 * 3600


def add(session: AsyncSession, org: str, created_at: float, **changes: Any) -> None:
    source = new_id("source")
    session.add(LedgerEntry(id=new_id("led"), created_at=created_at, **vars(entry(org, source, -7, **changes))))


async def asked_of(store: Store, org: str, **asked: Any) -> list[UsageRow]:
    async with store.read() as session:
        return await usage(session, org, Asked(**{"start": JANUARY, "end": JANUARY + 60 * DAY, **asked}))


@pytest.fixture
async def org(store: Store) -> str:
    """Two keys, two models, on the first two days of January and the first of February."""
    org, other = await new_org(store), await new_org(store)
    async with store.begin() as session:
        add(session, org, JANUARY, model="a", key_id="k1", prompt_tokens=10, completion_tokens=3, reasoning_tokens=2)
        add(session, org, JANUARY + DAY - 1, model="a", key_id="k2", prompt_tokens=20, cached_tokens=5)
        add(session, org, JANUARY + DAY, model="b", key_id="k1", prompt_tokens=40)
        add(
            session, org, JANUARY + 31 * DAY, model="b", key_id="k1", kind="training", trained_tokens=9, gpu_seconds=1.5
        )
        add(session, org, JANUARY, kind="credit")
        add(session, other, JANUARY, model="a", prompt_tokens=1000)
    return org


@pytest.mark.parametrize(
    ("bucket", "groups", "rows"),
    [
        (Bucket.DAY, [], [(0, (), 2), (1, (), 1), (31, (), 1)]),
        (Bucket.MONTH, [], [(0, (), 3), (31, (), 1)]),
        (Bucket.MONTH, [Group.MODEL], [(0, ("a",), 2), (0, ("b",), 1), (31, ("b",), 1)]),
        (
            Bucket.DAY,
            [Group.KEY, Group.KIND],
            [
                (0, ("k1", "inference"), 1),
                (0, ("k2", "inference"), 1),
                (1, ("k1", "inference"), 1),
                (31, ("k1", "training"), 1),
            ],
        ),
    ],
)
async def test_usage_is_put_together_as_asked(
    store: Store, org: str, bucket: Bucket, groups: list[Group], rows: list[Any]
) -> None:
    told = await asked_of(store, org, bucket=bucket, groups=groups)
    assert [((row.start_at - JANUARY) / DAY, row.groups, row.figures.n_entries) for row in told] == rows


async def test_nothing_is_lost_on_the_way(store: Store, org: str) -> None:
    [row] = await asked_of(store, org, bucket=Bucket.MONTH, groups=[], end=JANUARY + 31 * DAY)
    figures = row.figures
    assert (figures.cost_micros, figures.prompt_tokens, figures.cached_tokens) == (21, 70, 5)
    assert (figures.completion_tokens, figures.reasoning_tokens) == (3, 2)


async def test_hours_are_whole_and_told_apart(store: Store, org: str) -> None:
    told = await asked_of(store, org, bucket=Bucket.HOUR, groups=[], start=JANUARY + 1800, end=JANUARY + DAY)
    assert [(row.start_at - JANUARY) / 3600 for row in told] == [0, 23]


@pytest.mark.parametrize(
    ("only", "n_entries"),
    [({Group.KEY: "k1"}, 3), ({Group.MODEL: "a"}, 2), ({Group.KIND: "training"}, 1), ({Group.KEY: "none"}, 0)],
)
async def test_only_what_was_asked_for_is_counted(
    store: Store, org: str, only: dict[Group, str], n_entries: int
) -> None:
    assert sum(row.figures.n_entries for row in await asked_of(store, org, only=only)) == n_entries


async def test_a_chat_is_found_under_its_key_and_model(client: AsyncClient) -> None:
    counted = (await chat(client))["usage"]
    body = ok(await client.get("/v1/usage", params={"group_by": "key,model", "bucket": "hour"}))
    [row] = body["data"]
    assert (row["model"], row["key"][:4], row["kind"]) == ("loam/demo", "key_", None)
    assert (row["prompt_tokens"], row["requests"]) == (counted["prompt_tokens"], 1)


async def test_usage_can_be_had_as_csv(client: AsyncClient) -> None:
    await chat(client)
    by_format = await client.get("/v1/usage", params={"format": "csv"})
    by_header = await client.get("/v1/usage", headers={"Accept": "text/csv"})
    assert by_format.headers["content-type"].startswith("text/csv")
    assert by_format.text == by_header.text
    [row] = csv.DictReader(io.StringIO(by_format.text))
    assert (row["model"], row["kind"], row["requests"]) == ("loam/demo", "inference", "1")


@pytest.mark.parametrize(
    ("params", "param"), [({"group_by": "day"}, "group_by"), ({"start": "2026-02-01", "end": "2026-01-01"}, "start")]
)
async def test_what_cannot_be_told_is_refused(client: AsyncClient, params: dict[str, str], param: str) -> None:
    refused(await client.get("/v1/usage", params=params), 400, param=param)
