"""What several gateways share: no balance is spent below zero, limits are kept, a key that goes is refused by all."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack
from pathlib import Path

import pytest
from httpx import AsyncClient, Response
from sqlalchemy import func, select, update

from app.billing.ledger import Entry, append, balance_micros, list_entries
from app.store.base import db_now
from app.store.session import Store
from app.store.tables import ApiKey, Org, RateLevel, UnderWay
from tests.asking import CHAT, chat_body, refused
from tests.eventually import eventually
from tests.servers import Server, TestOrg, running_server
from tests.stores import PostgresStores, SqliteStores

pytestmark = pytest.mark.anyio

TEXT = "Count [simulate: tokens=1000] [simulate: pace=2000]"  # half a second of answer
PRICE_MICROS = 41
QUICK = {"LOAM_POLL_SECONDS": "0.1", "LOAM_LEASE_SECONDS": "2"}


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    stores: SqliteStores | PostgresStores = request.getfixturevalue(f"{request.param}_stores")
    return stores.new_url()


@pytest.fixture(scope="module")
def gateways(url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    with ExitStack() as until_end:
        folders = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
        yield [until_end.enter_context(gateway(folder, url)) for folder in folders]


def gateway(folder: Path, url: str) -> AbstractContextManager[Server]:
    return running_server(folder, "--simulate", command="serve", LOAM_DATABASE_URL=url, **QUICK)


@pytest.fixture
async def store(url: str) -> AsyncIterator[Store]:
    store = Store(url)
    yield store
    await store.close()


@pytest.fixture
def org(gateways: list[Server]) -> TestOrg:
    return gateways[0].new_org()


async def leave(store: Store, org: TestOrg, micros: int) -> None:
    async with store.begin() as session:
        change = micros - await balance_micros(session, org.id)
        await append(session, Entry(org_id=org.id, source=f"left:{org.id}", kind="credit", amount_micros=change))


async def ask(
    gateways: list[Server], org: TestOrg, n: int, text: str = TEXT, *, stream: bool = False
) -> list[Response]:
    """All at once, in turns of each."""
    body = chat_body(text, max_tokens=1000, stream=stream)
    async with AsyncExitStack() as stack:
        clients = [AsyncClient(base_url=gateway.url, headers=org.headers, timeout=30) for gateway in gateways]
        for client in clients:
            await stack.enter_async_context(client)
        return await asyncio.gather(*(clients[i % len(clients)].post(CHAT, json=body) for i in range(n)))


@pytest.mark.parametrize("stream", [False, True])
async def test_of_a_hundred_requests_at_once_a_balance_for_ten_serves_ten_at_most(
    gateways: list[Server], store: Store, org: TestOrg, stream: bool
) -> None:
    await leave(store, org, 10 * PRICE_MICROS)
    answers = await ask(gateways, org, 100, stream=stream)
    served = [answer for answer in answers if answer.status_code == 200]
    assert 5 <= len(served) <= 10, Counter(answer.status_code for answer in answers)
    for answer in answers:
        assert answer.status_code in (200, 402, 429), answer.text
        assert answer.status_code == 200 or answer.json()["error"]["code"] == "insufficient_quota"
    async with store.read() as session:
        assert await balance_micros(session, org.id) >= 0
        assert len([e for e in await list_entries(session, org.id) if e.kind == "inference"]) == len(served)


async def test_what_one_gateway_holds_idle_the_other_lends_within_moments(
    gateways: list[Server], store: Store, org: TestOrg
) -> None:
    await leave(store, org, 2 * PRICE_MICROS + 40)
    assert [answer.status_code for answer in await ask(gateways[:1], org, 1)] == [200]
    assert [answer.status_code for answer in await ask(gateways[1:], org, 1)] == [200]


async def limit(store: Store, org: TestOrg, **limits: int) -> None:
    async with store.begin() as session:
        await session.execute(update(Org).where(Org.id == org.id).values(**limits))


async def test_a_minutes_requests_are_passed_by_no_more_than_a_gateway_had_not_heard_of(
    gateways: list[Server], store: Store, org: TestOrg
) -> None:
    await limit(store, org, requests_per_minute=20)

    async def is_told() -> bool:
        full_in = select(RateLevel.full_at - db_now()).where(RateLevel.subject == f"{org.id}/requests")
        async with store.read() as session:
            return (await session.scalar(full_in) or 0.0) > 12 * 60 / 20

    began = time.monotonic()
    assert {answer.status_code for answer in await ask(gateways[:1], org, 15, "Hi")} == {200}
    await eventually(is_told)
    answers = Counter(answer.status_code for answer in await ask(gateways, org, 60, "Hi"))
    filled_meanwhile = (time.monotonic() - began) * 20 / 60
    assert 5 <= answers[200] <= 2 * (5 + filled_meanwhile), answers
    assert set(answers) == {200, 429}


async def test_what_runs_on_one_gateway_is_in_the_way_on_the_other(
    gateways: list[Server], store: Store, org: TestOrg
) -> None:
    await limit(store, org, requests_at_once=3)

    async def under_way() -> int:
        async with store.read() as session:
            rows = select(func.sum(UnderWay.number)).where(UnderWay.subject == org.id, UnderWay.expires_at > db_now())
            return await session.scalar(rows) or 0

    async def are_all_told() -> bool:
        return await under_way() == 3

    async with AsyncExitStack() as stack:
        one, two = [AsyncClient(base_url=each.url, headers=org.headers, timeout=30) for each in gateways]
        await stack.enter_async_context(two)
        slow = chat_body("[simulate: tokens=3000] [simulate: pace=100]", stream=True)
        async with one, AsyncExitStack() as streams:
            for _ in range(3):
                await streams.enter_async_context(one.stream("POST", CHAT, json=slow))
            await eventually(are_all_told)
            refused(await two.post(CHAT, json=chat_body("Hi")), 429, code="too_many_requests_at_once")

        async def is_let_in() -> bool:
            return (await two.post(CHAT, json=chat_body("Hi"))).status_code == 200

        await eventually(is_let_in)


@pytest.mark.parametrize("what", ["key", "organisation"])
async def test_a_key_that_goes_is_refused_by_every_gateway_within_a_second(
    gateways: list[Server], store: Store, org: TestOrg, what: str
) -> None:
    gone = {
        "key": update(ApiKey).where(ApiKey.org_id == org.id).values(revoked_at=1.0),
        "organisation": update(Org).where(Org.id == org.id).values(deleted_at=1.0),
    }[what]
    assert [answer.status_code for answer in await ask(gateways, org, 4)] == [200] * 4
    async with store.begin() as session:
        await session.execute(gone)
    deadline = time.monotonic() + 1
    while [answer.status_code for answer in await ask(gateways, org, 2)] != [401] * 2:
        assert time.monotonic() < deadline
