"""An answer that is read as it is wanted: in order, not ahead of its reader, and by nobody else."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.engines.answer import HIGH_WATER_BYTES, EngineAnswer
from app.engines.client import EngineClient
from app.engines.connection import ConnectionBroken
from tests.engines.engine_double import END, HEAD, EngineDouble, engine_double, piece, whole
from tests.eventually import eventually

pytestmark = pytest.mark.anyio

LONG_SECONDS = 60.0
MUCH = b"x" * (8 * HIGH_WATER_BYTES)


@pytest.fixture
async def engine() -> AsyncIterator[EngineDouble]:
    async with engine_double() as engine:
        yield engine


@pytest.fixture
def client(engine: EngineDouble) -> EngineClient:
    return EngineClient(engine.socket)


def ask(client: EngineClient) -> EngineAnswer:
    connection, _ = client.take()
    answer = EngineAnswer(connection)
    connection.ask(b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n", answer, silence_seconds=LONG_SECONDS)
    return answer


async def test_all_that_has_come_is_read_at_once_and_nothing_at_the_end(
    engine: EngineDouble, client: EngineClient
) -> None:
    answer = ask(client)
    peer = await engine.peer()
    peer.say(HEAD + piece(b"one") + piece(b"two"))
    await answer.begun()
    assert answer.status == 200
    assert await answer.read() == b"onetwo"
    peer.say(piece(b"three") + END)
    assert await answer.read_all() == b"three"
    assert await answer.read() == b""


async def test_what_came_before_a_failure_is_read_before_it_is_told(engine: EngineDouble, client: EngineClient) -> None:
    answer = ask(client)
    peer = await engine.peer()
    peer.say(HEAD + piece(b"one"))
    assert await answer.read() == b"one"
    peer.say(piece(b"two"))
    await eventually(lambda: answer._n_bytes)
    peer.close()
    await eventually(lambda: answer._error)
    assert await answer.read() == b"two"
    for _ in range(2):
        with pytest.raises(ConnectionBroken):
            await answer.read()


async def test_it_is_not_read_far_ahead_of_its_reader(engine: EngineDouble, client: EngineClient) -> None:
    answer = ask(client)
    peer = await engine.peer()
    peer.say(HEAD + piece(MUCH) + END)
    await answer.begun()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await peer.writer.drain()
    assert answer._n_bytes < len(MUCH) / 2
    assert await answer.read_all() == MUCH


async def test_what_nobody_read_of_an_answer_is_not_in_the_next_one(engine: EngineDouble, client: EngineClient) -> None:
    left = ask(client)
    peer = await engine.peer()
    peer.say(HEAD + piece(b"a secret"))
    await eventually(lambda: left._n_bytes)
    client.give_back(left._connection)
    await peer.hung_up()
    answer = ask(client)
    (await engine.peer()).say(whole(b"another's"))
    assert await answer.read_all() == b"another's"


@pytest.mark.parametrize("n_bytes", [1, HIGH_WATER_BYTES + 1])
async def test_an_answer_that_was_whole_but_unread_leaves_nothing_on_its_connection(
    engine: EngineDouble, client: EngineClient, n_bytes: int
) -> None:
    left = ask(client)
    peer = await engine.peer()
    await peer.asked()
    left._connection.data_received(whole(b"s" * n_bytes))  # in one read, whose size is the system's to choose
    client.give_back(left._connection)
    answer = ask(client)
    await peer.asked()  # on the same connection
    peer.say(whole(b"another's"))
    assert await answer.read_all() == b"another's"
    assert engine.n_connections == 1
