"""Rate limits on the wire, the short way and the long one."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from httpx import AsyncClient, Response
from sqlalchemy import update

from app.store.session import Store
from app.store.tables import ApiKey, Org
from tests.asking import CHAT, chat_body, refused
from tests.eventually import eventually
from tests.servers import Server, TestOrg

pytestmark = pytest.mark.anyio


@pytest.fixture
async def limited(simulated: Server, org: TestOrg) -> AsyncIterator[AsyncClient]:
    """Of an organisation that may ask four times a minute, by a key that may use ten thousand tokens."""
    store = Store(f"sqlite+aiosqlite:///{simulated.data_dir / 'loam.db'}")
    async with store.begin() as session:
        await session.execute(update(Org).where(Org.id == org.id).values(requests_per_minute=4))
        await session.execute(update(ApiKey).where(ApiKey.org_id == org.id).values(tokens_per_minute=10_000))
    await store.close()
    async with AsyncClient(base_url=simulated.url, headers=org.headers, timeout=30) as client:
        yield client


def limits(response: Response) -> dict[str, str]:
    return {
        name.removeprefix("x-ratelimit-"): value
        for name, value in response.headers.items()
        if name.startswith("x-ratelimit-")
    }


async def test_every_answer_tells_what_is_left_and_the_one_too_many_when_to_come_again(limited: AsyncClient) -> None:
    first, second = [await limited.post(CHAT, json=chat_body()) for _ in range(2)]
    async with limited.stream("POST", CHAT, json=chat_body(stream=True)) as third:
        async for _ in third.aiter_bytes():
            pass
    fourth = await limited.post("/v1/responses", json={"model": chat_body()["model"], "input": "Hello"})
    answers = (first, second, third, fourth)
    assert [each.status_code for each in answers] == [200] * 4
    assert [limits(each)["remaining-requests"] for each in answers] == ["3", "2", "1", "0"]
    assert limits(fourth)["limit-tokens"] == "10000"
    assert int(limits(fourth)["remaining-tokens"]) < int(limits(first)["remaining-tokens"]) == 10_000
    for body in (chat_body(), chat_body(stream=True)):
        answer = await limited.post(CHAT, json=body)
        refused(answer, 429, code="rate_limit_exceeded")
        assert 1 <= int(answer.headers["Retry-After"]) <= 15
        assert limits(answer)["remaining-requests"] == "0"


async def test_what_is_no_question_to_a_model_is_not_counted(limited: AsyncClient) -> None:
    for _ in range(6):
        response = await limited.get("/v1/models")
        assert response.status_code == 200
        assert not limits(response)


async def test_who_has_no_limits_is_told_of_none(client: AsyncClient) -> None:
    for _ in range(2):
        assert not limits(await client.post(CHAT, json=chat_body()))


@pytest.fixture
async def crowded(simulated: Server, org: TestOrg) -> AsyncIterator[AsyncClient]:
    """Of an organisation that may ask two things at once."""
    store = Store(f"sqlite+aiosqlite:///{simulated.data_dir / 'loam.db'}")
    async with store.begin() as session:
        await session.execute(update(Org).where(Org.id == org.id).values(requests_at_once=2))
    await store.close()
    async with AsyncClient(base_url=simulated.url, headers=org.headers, timeout=30) as client:
        yield client


async def test_one_request_too_many_at_once_is_refused_until_another_has_ended_or_was_left(
    crowded: AsyncClient,
) -> None:
    assert (await crowded.post(CHAT, json=chat_body())).status_code == 200  # from now on all is known that need be
    slow = chat_body("[simulate: tokens=1000] [simulate: pace=100]", stream=True)
    response = {"model": slow["model"], "input": "Hello"}
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(crowded.stream("POST", CHAT, json=slow)) for _ in range(2)]
        assert [each.status_code for each in streams] == [200, 200]
        for path, body in (
            (CHAT, chat_body()),
            ("/v1/responses", response),
            ("/v1/responses", {**response, "background": True}),
        ):
            told = refused(await crowded.post(path, json=body), 429, code="too_many_requests_at_once")
            assert "2 requests of this organisation" in told["detail"]
        await streams[0].aclose()

        async def is_let_in() -> bool:
            return (await crowded.post(CHAT, json=chat_body())).status_code == 200

        await eventually(is_let_in)
    for _ in range(3):  # each gives its place back
        await eventually(is_let_in)
