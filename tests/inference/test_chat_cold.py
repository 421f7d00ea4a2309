"""A chat with a model that is cold: its start is waited for, and the client is told that somebody is there."""

from collections.abc import AsyncIterator, Iterator

import pytest
from httpx import AsyncClient

from tests.asking import CHAT, chat_body, ledger_of, ok
from tests.servers import Server, running_server

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its engines take most of a second to start."""
    times = {"LOAM_SIMULATE_START_SECONDS": "0.7", "LOAM_KEEP_ALIVE_SECONDS": "0.1"}
    with running_server(tmp_path_factory.mktemp("slow"), "--simulate", command="serve", **times) as server:
        yield server


@pytest.fixture
async def client(slow: Server) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(base_url=slow.url, headers=slow.new_org().headers, timeout=30) as client:
        yield client


async def test_a_stream_is_kept_alive_until_the_engine_is_there(client: AsyncClient) -> None:
    response = await client.post(CHAT, json=chat_body(stream=True))
    first, *_, last = [line for line in response.text.split("\n") if line]
    assert first == ": keep-alive"
    assert last == "data: [DONE]"
    assert response.text.count(": keep-alive\n") >= 3


async def test_a_cold_start_that_a_chat_causes_is_free(slow: Server, client: AsyncClient) -> None:
    ok(await client.post(CHAT, json=chat_body(model="Qwen/Qwen3-0.6B")))
    assert await ledger_of(slow, client, "warmup") == []
    assert len(await ledger_of(slow, client, "inference")) == 1


async def test_a_client_that_leaves_in_the_cold_start_pays_nothing(slow: Server, client: AsyncClient) -> None:
    asked = chat_body(model="Qwen/Qwen3-1.7B", stream=True)
    async with client.stream("POST", CHAT, json=asked) as response:
        assert await anext(response.aiter_lines()) == ": keep-alive"
    ok(await client.post(CHAT, json=chat_body(model="Qwen/Qwen3-1.7B")))  # the same start serves the next
    assert len(await ledger_of(slow, client, "inference")) == 1


async def test_unknown_models_are_refused_before_a_stream_begins(client: AsyncClient) -> None:
    response = await client.post(CHAT, json=chat_body(model="nobody/nothing", stream=True))
    assert response.status_code == 404
