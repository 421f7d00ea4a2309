"""A connection to an engine: what who asked hears of it, and that nothing of one answer is left for the next."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from app.engines.connection import ConnectionBroken, EngineConnection, EngineSilent
from tests.engines.engine_double import END, HEAD, EngineDouble, Peer, engine_double, piece, whole
from tests.eventually import eventually

pytestmark = pytest.mark.anyio

REQUEST = b"POST /x HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi"
LONG_SECONDS = 60.0
MUCH = b"x" * (1 << 20)


@dataclass
class Heard:
    """A listener that writes down what it hears."""

    status: int = 0
    data: bytes = b""
    has_ended: bool = False
    error: Exception | None = None
    pieces: list[bytes] = field(default_factory=list)

    def on_status(self, status: int) -> None:
        self.status = status

    def on_data(self, data: bytes) -> None:
        self.data += data
        self.pieces.append(data)

    def on_end(self) -> None:
        self.has_ended = True

    def on_failure(self, error: ConnectionBroken | EngineSilent) -> None:
        assert self.error is None
        self.error = error


@pytest.fixture
async def engine() -> AsyncIterator[EngineDouble]:
    async with engine_double() as engine:
        yield engine


async def open_to(engine: EngineDouble) -> tuple[EngineConnection, Peer]:
    connection = EngineConnection()
    await asyncio.get_running_loop().create_unix_connection(lambda: connection, str(engine.socket))
    return connection, await engine.peer()


async def test_an_answer_is_heard_as_it_comes(engine: EngineDouble) -> None:
    connection, peer = await open_to(engine)
    heard = Heard()
    connection.ask(REQUEST, heard, silence_seconds=LONG_SECONDS)
    assert await peer.asked() == b"hi"
    peer.say(HEAD)
    await eventually(lambda: heard.status == 200)
    peer.say(piece(b"one"))
    await eventually(lambda: heard.data == b"one")
    assert not heard.has_ended
    peer.say(piece(b"two") + piece(b"three") + END)
    await eventually(lambda: heard.has_ended)
    assert heard.pieces == [b"one", b"twothree"]
    assert connection.is_reusable


async def test_what_is_asked_before_it_is_open_goes_out_once_it_is(engine: EngineDouble) -> None:
    connection, heard = EngineConnection(), Heard()
    connection.ask(REQUEST, heard, silence_seconds=LONG_SECONDS)
    await asyncio.get_running_loop().create_unix_connection(lambda: connection, str(engine.socket))
    peer = await engine.peer()
    assert await peer.asked() == b"hi"
    peer.say(whole(b"yes"))
    await eventually(lambda: heard.has_ended)
    assert heard.data == b"yes"


async def test_one_given_up_before_it_is_open_asks_nothing(engine: EngineDouble) -> None:
    connection, heard = EngineConnection(), Heard()
    connection.ask(REQUEST, heard, silence_seconds=LONG_SECONDS)
    connection.abort()
    await asyncio.get_running_loop().create_unix_connection(lambda: connection, str(engine.socket))
    await (await engine.peer()).hung_up()
    assert heard == Heard()


@pytest.mark.parametrize("said", [b"", HEAD, HEAD + piece(b"a"), b"HTTP/1.1 200 OK\r\ncontent-le", b"Hello\r\n\r\n"])
async def test_an_answer_that_breaks_off_is_a_failure_told_once(engine: EngineDouble, said: bytes) -> None:
    connection, peer = await open_to(engine)
    heard = Heard()
    connection.ask(REQUEST, heard, silence_seconds=LONG_SECONDS)
    await peer.asked()
    peer.say(said)
    peer.close()
    await eventually(lambda: heard.error)
    assert isinstance(heard.error, ConnectionBroken)
    assert not heard.has_ended
    assert not connection.is_reusable


async def test_one_that_is_closed_or_spoken_on_between_requests_is_used_no_more(engine: EngineDouble) -> None:
    closed, peer = await open_to(engine)
    peer.close()
    await eventually(lambda: not closed.is_reusable)
    spoken_on, peer = await open_to(engine)
    peer.say(whole(b"unasked"))
    await eventually(lambda: not spoken_on.is_reusable)
    await peer.hung_up()


async def test_an_answer_that_says_close_is_the_last(engine: EngineDouble) -> None:
    connection, peer = await open_to(engine)
    heard = Heard()
    connection.ask(REQUEST, heard, silence_seconds=LONG_SECONDS)
    await peer.asked()
    peer.say(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi")
    await eventually(lambda: heard.has_ended)
    assert heard.data == b"hi"
    assert not connection.is_reusable


async def test_who_gave_up_hears_no_more_and_the_engine_is_hung_up_on(engine: EngineDouble) -> None:
    connection, peer = await open_to(engine)
    heard = Heard()
    connection.ask(REQUEST, heard, silence_seconds=0.05)
    await peer.asked()
    connection.abort()
    peer.say(whole(b"late"))
    await peer.hung_up()
    assert heard == Heard()


async def test_silence_is_judged_for_each_answer_by_its_own_limit(engine: EngineDouble) -> None:
    connection, peer = await open_to(engine)
    patient, impatient = Heard(), Heard()
    connection.ask(REQUEST, patient, silence_seconds=LONG_SECONDS)
    await peer.asked()
    peer.say(whole(b"a"))
    await eventually(lambda: patient.has_ended)
    connection.ask(REQUEST, impatient, silence_seconds=0.05)
    await eventually(lambda: impatient.error, within_seconds=2)
    assert isinstance(impatient.error, EngineSilent)
    assert patient.error is None
    await peer.asked()
    await peer.hung_up()


async def test_an_engine_that_goes_on_talking_is_not_silent(engine: EngineDouble) -> None:
    connection, peer = await open_to(engine)
    heard = Heard()
    connection.ask(REQUEST, heard, silence_seconds=0.3)
    await peer.asked()
    peer.say(HEAD)
    for n in range(5):  # longer in all than the limit
        await asyncio.sleep(0.1)
        peer.say(piece(b"."))
        await eventually(lambda n=n: len(heard.data) > n)  # type: ignore[misc]
    peer.say(END)
    await eventually(lambda: heard.has_ended)


async def test_while_it_is_paused_the_engine_has_to_wait_and_is_not_called_silent(engine: EngineDouble) -> None:
    connection, peer = await open_to(engine)
    heard = Heard()
    connection.ask(REQUEST, heard, silence_seconds=0.05)
    await peer.asked()
    peer.say(HEAD)
    await eventually(lambda: heard.status)
    connection.pause()
    peer.say(piece(MUCH))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await peer.writer.drain()
    assert (heard.data, heard.error) == (b"", None)
    connection.resume()
    await eventually(lambda: heard.data == MUCH)


class SlowAtTheEnd(Heard):
    """Cannot keep up just when the last of it comes."""

    connection: EngineConnection

    def on_data(self, data: bytes) -> None:
        super().on_data(data)
        self.connection.pause()


async def test_one_that_was_paused_by_the_last_of_an_answer_reads_the_next(engine: EngineDouble) -> None:
    connection, peer = await open_to(engine)
    first, second = SlowAtTheEnd(), Heard()
    first.connection = connection
    connection.ask(REQUEST, first, silence_seconds=LONG_SECONDS)
    await peer.asked()
    peer.say(whole(b"first"))
    await eventually(lambda: first.has_ended)
    connection.ask(REQUEST, second, silence_seconds=LONG_SECONDS)
    await peer.asked()
    peer.say(whole(b"second"))
    await eventually(lambda: second.has_ended, within_seconds=2)
    assert second.data == b"second"
