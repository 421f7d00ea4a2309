"""What is asked of an engine, and what its answers mean: over a real socket, with an engine the test speaks for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.engines.client import EngineClient, EngineRefused, NotFinite, Token
from app.engines.connection import ConnectionBroken
from tests.engines.engine_double import EngineDouble, Peer, engine_double, whole

pytestmark = pytest.mark.anyio

NAMED = b'{"data": [{"id": "base"}, {"id": "a", "parent": "base"}]}'
METRICS = b'# HELP x\nvllm:generation_tokens_total{engine="0"} 3.0\nvllm:generation_tokens_total{engine="1"} 4.0\n'
SAID = b'{"choices": [{"logprobs": {"content": [{"token": "one", "logprob": -0.5}]}}]}'
TOLD = SAID.replace(b"-0.5}", b'-0.5, "top_logprobs": [{"logprob": -0.5}, {"logprob": -2.0}]}')
Ask = Callable[[EngineClient], Awaitable[Any]]


@pytest.fixture
async def double() -> AsyncIterator[EngineDouble]:
    async with engine_double() as double:
        yield double


async def answered(double: EngineDouble, ask: Ask, answer: bytes) -> tuple[bytes, Any]:
    """The body that the engine was asked with, and what the client made of its answer."""
    client = EngineClient(double.socket)
    asking = asyncio.ensure_future(ask(client))
    peer = await double.peer()
    body = await peer.asked()
    peer.say(answer)
    try:
        return body, await asking
    finally:
        client.close()


def load(client: EngineClient) -> Awaitable[Any]:
    return client.load_adapter("a", Path("/adapters/a"))


def unload(client: EngineClient) -> Awaitable[Any]:
    return client.unload_adapter("a")


def say(client: EngineClient) -> Awaitable[Any]:
    return client.say_greedily("base", within_seconds=5)


def answers(client: EngineClient) -> Awaitable[Any]:
    return client.answers("base", within_seconds=5)


def reset(client: EngineClient) -> Awaitable[Any]:
    return client.reset_prefix_cache()


CASES: list[tuple[str, Ask, bytes, Any]] = [
    ("healthy", EngineClient.is_healthy, whole(b""), True),
    ("unhealthy", EngineClient.is_healthy, whole(b"", status=503), False),
    ("a token", answers, whole(b"{}"), True),
    ("no token", answers, whole(b"{}", status=500), False),
    ("adapters are models with a parent", EngineClient.loaded_adapters, whole(NAMED), {"a"}),
    ("an adapter is loaded", load, whole(b"Success"), None),
    ("an adapter that is loaded already", load, whole(b"'a' has already been loaded.", status=400), None),
    ("an adapter that is refused", load, whole(b"rank too high", status=500), "rank too high"),
    ("a reason is not without end", load, whole(b"x" * 5000, status=500), "x" * 1000),
    ("an adapter is gone", unload, whole(b"Success"), None),
    ("an adapter that was not there", unload, whole(b"'a' cannot be found.", status=404), None),
    ("tokens are counted over all engine cores", EngineClient.count_generated_tokens, whole(METRICS), 7),
    ("what it says", say, whole(SAID), [Token("one", -0.5)]),
    ("how sure it was of others", say, whole(TOLD), [Token("one", -0.5, (-0.5, -2.0))]),
    ("it sleeps", EngineClient.is_sleeping, whole(b'{"is_sleeping": true}'), True),
    ("it is awake", EngineClient.is_sleeping, whole(b'{"is_sleeping": false}'), False),
    ("the cache is reset", reset, whole(b'{"success": true}'), True),
    ("the cache is not reset, which is a 200 too", reset, whole(b'{"success": false}'), False),
]


@pytest.mark.parametrize(("ask", "answer", "meaning"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
async def test_what_an_answer_means(double: EngineDouble, ask: Ask, answer: bytes, meaning: Any) -> None:
    _, got = await answered(double, ask, answer)
    assert got == meaning


async def test_an_adapter_is_loaded_by_its_name_from_its_folder(double: EngineDouble) -> None:
    body, _ = await answered(double, load, whole(b""))
    assert orjson.loads(body) == {"lora_name": "a", "lora_path": "/adapters/a"}


async def test_a_canary_is_the_same_each_time_and_never_from_the_cache(double: EngineDouble) -> None:
    bodies = [orjson.loads((await answered(double, say, whole(SAID)))[0]) for _ in range(2)]
    salts = {body.pop("cache_salt") for body in bodies}
    assert len(salts) == 2
    assert bodies[0] == bodies[1]
    assert (bodies[0]["temperature"], bodies[0]["logprobs"]) == (0, True)


@pytest.mark.parametrize(
    "answer", [whole(b"{}", status=404), whole(b"<html>"), whole(b"[]"), whole(b"{}"), whole(b'{"choices": []}')]
)
async def test_an_answer_that_is_none_is_a_refusal(double: EngineDouble, answer: bytes) -> None:
    with pytest.raises(EngineRefused):
        await answered(double, say, answer)


async def test_an_answer_of_no_numbers_is_told_from_other_refusals(double: EngineDouble) -> None:
    said = b'{"error": {"message": "Out of range float values are not JSON compliant", "code": 400}}'
    with pytest.raises(NotFinite):
        await answered(double, say, whole(said, status=400))


async def test_an_engine_that_is_not_there_is_unhealthy_and_loads_nothing(tmp_path: Path) -> None:
    client = EngineClient(tmp_path / "none.sock")
    assert not await client.is_healthy()
    assert not await answers(client)
    assert "no answer" in (await load(client) or "")
    with pytest.raises(ConnectionBroken):
        await client.is_sleeping()


async def test_a_connection_is_kept_for_the_next_and_another_opened_when_it_was_closed_meanwhile(
    double: EngineDouble,
) -> None:
    client = EngineClient(double.socket)

    async def ask(peer: Peer | None) -> Peer:
        asking = asyncio.create_task(client.is_healthy())
        peer = peer or await double.peer()
        await peer.asked()
        peer.say(whole(b""))
        assert await asking
        return peer

    first = await ask(None)
    await ask(first)
    assert double.n_connections == 1
    first.close()
    await ask(None)
    assert double.n_connections == 2
    client.close()


async def test_who_stops_reading_an_answer_ends_it(double: EngineDouble) -> None:
    client = EngineClient(double.socket)

    async def leave_early() -> None:
        async with client.chat({"model": "base"}, silence_seconds=5) as answer:
            assert await answer.read()

    asking = asyncio.create_task(leave_early())
    peer = await double.peer()
    await peer.asked()
    peer.say(b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
    await asking
    await peer.hung_up()
