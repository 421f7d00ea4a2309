"""A passage: an engine whose every word the test says, a client that leaves or lags, and a database that is slow."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.billing.charges import Charges
from app.billing.funds import Funds
from app.billing.ledger import list_entries
from app.engines.client import chat_request
from app.engines.engine import Engine, State
from app.engines.pool import EnginePool
from app.engines.process import EngineProcess
from app.files.storage import Storage
from app.inference.chat_answer import chat_answer
from app.inference.chat_request import ChatRequest
from app.inference.passage import Headers, Passage
from app.inference.relay import LAST_WORD_SECONDS, Relay
from app.settings import Settings
from app.store.session import Store
from app.store.tables import LedgerEntry
from tests.billing.test_ledger import new_org
from tests.engines.engine_double import END, HEAD, EngineDouble, engine_double, piece, whole
from tests.eventually import eventually
from tests.inference.vllm_chunks import LAST, ROLE, TEXT
from tests.rows import target
from tests.stores import SqliteStores

pytestmark = pytest.mark.anyio

Json = dict[str, Any]
DONE = b"data: [DONE]\n\n"


def event(body: Json) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"


ALL = piece(b"".join(map(event, TEXT)) + DONE) + END
SOME = piece(event(ROLE) + event(TEXT[1]))
SOME_TOKENS, ALL_TOKENS = 2, 5


@dataclass
class Client:
    """An outlet that writes down what it is told."""

    status: int = 0
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    has_begun: bool = False
    has_ended: bool = False
    is_sent_away: bool = False
    is_cut: bool = False

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        self.begin(status, headers)
        self.end(body)

    def begin(self, status: int, headers: Headers) -> None:
        assert not self.has_begun
        self.has_begun, self.status, self.headers = True, status, headers

    def write(self, data: bytes) -> None:
        assert self.has_begun
        assert not self.has_ended
        self.body += data

    def end(self, data: bytes) -> None:
        self.write(data)
        self.has_ended = True

    def cut(self) -> None:
        self.is_cut = True

    def retry(self) -> None:
        self.is_sent_away = True


@dataclass
class Gateway:
    """What a passage needs, all of it real but for the engine and the client."""

    pool: EnginePool
    charges: Charges
    store: Store
    org_id: str
    engine: Engine
    double: EngineDouble
    settings: Settings
    n_requests: int = 0

    def begin(self, *, streams: bool, client: Client | None = None) -> tuple[Passage, Client]:
        self.n_requests += 1
        wanted, client = target(), client or Client()
        asked = ChatRequest(model="test/a", messages=[{"role": "user", "content": "Hi"}], stream=streams)
        relay = Relay(self.settings, self.pool, self.charges, wanted, self.org_id, f"req_{self.n_requests}", "salt")
        leased = self.pool.lease_now(wanted, body={})
        assert leased
        passage = Passage(relay, leased, chat_answer(asked, wanted), streams=streams)
        passage.begin(chat_request({}), client, [(b"x-request-id", b"req_1")], client.retry)
        return passage, client

    async def charged(self) -> list[LedgerEntry]:
        await self.charges.settle()
        async with self.store.read() as session:
            return await list_entries(session, self.org_id)

    @contextmanager
    def database_held_up(self) -> Iterator[None]:
        """Nobody writes until the block ends."""
        holder = sqlite3.connect(str(self.store.engine.url.database), isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        yield
        holder.execute("ROLLBACK")
        holder.close()


@pytest.fixture
async def gateway(sqlite_stores: SqliteStores, tmp_path: Path) -> AsyncIterator[Gateway]:
    settings = Settings(data_dir=tmp_path, simulate=True, keep_alive_seconds=0.1, stream_silence_seconds=2)
    store, storage = Store(sqlite_stores.new_url()), Storage(tmp_path)
    pool, charges = EnginePool(settings, store, storage, []), Charges(store, Funds(store, lease_seconds=15))
    wanted = target()
    async with engine_double() as double:
        engine = Engine(settings, storage, pool._launcher, wanted.model, wanted.gpu)
        engine.state, engine._process = State.READY, EngineProcess(settings, storage, double.socket, wanted.model)
        pool._fleet._engines[engine.key] = [engine]
        yield Gateway(pool, charges, store, await new_org(store), engine, double, settings)
        await charges.settle()
        engine.client.close()
        assert engine.in_flight == 0
    await store.close()


@pytest.mark.parametrize("streams", [True, False])
async def test_an_answer_ends_once_it_is_charged(gateway: Gateway, streams: bool) -> None:
    _, client = gateway.begin(streams=streams)
    peer = await gateway.double.peer()
    await peer.asked()
    with gateway.database_held_up():
        peer.say(HEAD + ALL)
        await eventually(lambda: not gateway.engine.in_flight)
        assert not client.has_ended
    await eventually(lambda: client.has_ended)
    assert client.status == 200
    assert b"is soil." in client.body
    assert [entry.completion_tokens for entry in await gateway.charged()] == [ALL_TOKENS]


async def test_a_stream_is_kept_alive_while_its_charge_is_written(gateway: Gateway) -> None:
    _, client = gateway.begin(streams=True)
    peer = await gateway.double.peer()
    with gateway.database_held_up():
        peer.say(HEAD + ALL)
        await eventually(lambda: client.body.count(b": keep-alive\n") >= 2, within_seconds=5)
    await eventually(lambda: client.has_ended)
    assert client.body.endswith(DONE)


@pytest.mark.parametrize("streams", [True, False])
async def test_a_client_that_leaves_while_its_charge_is_written_frees_the_engine_once(
    gateway: Gateway, streams: bool
) -> None:
    passage, client = gateway.begin(streams=streams)
    peer = await gateway.double.peer()
    await peer.asked()
    with gateway.database_held_up():
        peer.say(HEAD + ALL)
        await eventually(lambda: not gateway.engine.in_flight)
        _, next_client = gateway.begin(streams=False)  # on the connection that was given back
        await peer.asked()
        passage.on_client_gone()
        assert gateway.engine.in_flight == 1
    peer.say(HEAD + ALL)
    await eventually(lambda: next_client.has_ended)
    assert next_client.status == 200
    assert not client.has_ended
    assert gateway.double.n_connections == 1
    assert [entry.completion_tokens for entry in await gateway.charged()] == [ALL_TOKENS] * 2


async def test_a_client_that_lags_while_its_charge_is_written_holds_up_nobody_else(gateway: Gateway) -> None:
    passage, _ = gateway.begin(streams=True)
    peer = await gateway.double.peer()
    await peer.asked()
    with gateway.database_held_up():
        peer.say(HEAD + ALL)
        await eventually(lambda: not gateway.engine.in_flight)
        _, other = gateway.begin(streams=True)
        await peer.asked()
        passage.on_client_slow()
        peer.say(HEAD + SOME)
        await eventually(lambda: b"Loam" in other.body, within_seconds=2)
    peer.say(piece(b"".join(map(event, TEXT[2:])) + DONE) + END)
    await eventually(lambda: other.has_ended)


async def test_a_client_that_lags_holds_the_engine_up_until_it_is_ready(gateway: Gateway) -> None:
    passage, client = gateway.begin(streams=True)
    peer = await gateway.double.peer()
    peer.say(HEAD + SOME)
    await eventually(lambda: b"Loam" in client.body)
    passage.on_client_slow()
    peer.say(piece(b"".join(map(event, TEXT[2:])) + DONE) + END)
    heard = len(client.body.replace(b": keep-alive\n", b""))
    await eventually(lambda: client.body.count(b": keep-alive\n") >= 2)
    assert len(client.body.replace(b": keep-alive\n", b"")) == heard
    passage.on_client_ready()
    await eventually(lambda: client.has_ended)


async def test_a_client_that_takes_nothing_any_more_is_hung_up_on(gateway: Gateway) -> None:
    passage, client = gateway.begin(streams=True)
    peer = await gateway.double.peer()
    peer.say(HEAD + SOME)
    await eventually(lambda: b"Loam" in client.body)
    passage.on_client_slow()
    passage.on_client_ready()
    passage.on_client_slow()
    began = time.monotonic()
    await eventually(lambda: client.is_cut)
    assert time.monotonic() - began > gateway.settings.stream_silence_seconds - 0.1
    passage.on_client_gone()
    await eventually(lambda: not gateway.engine.in_flight)
    assert [entry.completion_tokens for entry in await gateway.charged()] == [SOME_TOKENS]


async def test_an_engine_that_dies_after_its_client_has_left_does_not_make_it_free(gateway: Gateway) -> None:
    passage, _ = gateway.begin(streams=False)
    peer = await gateway.double.peer()
    await peer.asked()
    peer.say(HEAD + SOME)
    await eventually(lambda: passage._answer.usage.completion_tokens)
    passage.on_client_gone()
    peer.close()
    await eventually(lambda: not gateway.engine.in_flight)
    assert [entry.completion_tokens for entry in await gateway.charged()] == [SOME_TOKENS]


async def test_who_leaves_a_stream_pays_for_what_was_told_and_is_hung_up_on(gateway: Gateway) -> None:
    passage, client = gateway.begin(streams=True)
    peer = await gateway.double.peer()
    await peer.asked()
    peer.say(HEAD + SOME)
    await eventually(lambda: b"Loam" in client.body)
    passage.on_client_gone()
    await eventually(lambda: not gateway.engine.in_flight, within_seconds=LAST_WORD_SECONDS / 2)
    await peer.hung_up()
    assert [entry.completion_tokens for entry in await gateway.charged()] == [SOME_TOKENS]


async def test_who_lags_and_leaves_pays_for_what_lay_there_unread(gateway: Gateway) -> None:
    passage, client = gateway.begin(streams=True)
    peer = await gateway.double.peer()
    await peer.asked()
    peer.say(HEAD + SOME)
    await eventually(lambda: b"Loam" in client.body)
    passage.on_client_slow()
    peer.say(piece(b"".join(map(event, TEXT[2:]))))
    passage.on_client_gone()
    await peer.hung_up()
    assert b"soil" not in client.body
    assert [entry.completion_tokens for entry in await gateway.charged()] == [ALL_TOKENS]


@pytest.mark.parametrize("streams", [True, False])
async def test_an_answer_that_ends_just_after_its_client_has_left_frees_the_engine_once(
    gateway: Gateway, streams: bool
) -> None:
    passage, _ = gateway.begin(streams=streams)
    peer = await gateway.double.peer()
    await peer.asked()
    peer.say(HEAD + piece(b"".join(map(event, TEXT)) + DONE))
    await eventually(lambda: passage._answer.usage.completion_tokens == ALL_TOKENS)
    with gateway.database_held_up():
        passage.on_client_gone()
        peer.say(END)
        await eventually(lambda: not gateway.engine.in_flight)
        await asyncio.sleep(LAST_WORD_SECONDS)  # as above
        assert gateway.engine.in_flight == 0
    assert [entry.completion_tokens for entry in await gateway.charged()] == [ALL_TOKENS]


async def test_who_leaves_before_a_whole_answer_pays_by_the_engines_next_word(gateway: Gateway) -> None:
    passage, _ = gateway.begin(streams=False)
    peer = await gateway.double.peer()
    await peer.asked()
    peer.say(HEAD + piece(event(ROLE)))
    await eventually(lambda: passage._status)
    passage.on_client_gone()
    assert gateway.engine.in_flight == 1
    peer.say(piece(event(LAST)))
    await peer.hung_up()
    await asyncio.sleep(LAST_WORD_SECONDS)  # the engine is let go of once, not again when it need be waited for no more
    assert gateway.engine.in_flight == 0
    assert [entry.completion_tokens for entry in await gateway.charged()] == [ALL_TOKENS]


async def test_an_engine_with_no_more_to_say_is_not_waited_for_long(gateway: Gateway) -> None:
    passage, _ = gateway.begin(streams=False)
    peer = await gateway.double.peer()
    await peer.asked()
    peer.say(HEAD + SOME)
    await eventually(lambda: passage._answer.usage.completion_tokens)
    passage.on_client_gone()
    await eventually(lambda: not gateway.engine.in_flight, within_seconds=1.5)
    await peer.hung_up()
    assert [entry.completion_tokens for entry in await gateway.charged()] == [SOME_TOKENS]


@pytest.mark.parametrize("streams", [True, False])
async def test_who_leaves_before_the_engine_has_said_anything_pays_nothing(gateway: Gateway, streams: bool) -> None:
    passage, _ = gateway.begin(streams=streams)
    passage.on_client_gone()
    await (await gateway.double.peer()).hung_up()
    assert await gateway.charged() == []


REFUSAL = orjson.dumps({"error": {"message": "no", "code": 400}})
ERROR = b'data: {"error":{"message":"broken","code":500}}\n\n'


@pytest.mark.parametrize("streams", [True, False])
@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        (whole(REFUSAL, status=400), 400, None),
        (whole(b"no json", status=500), 503, "engine_error"),
        (HEAD + piece(ERROR) + END, 503, "engine_error"),
        (HEAD + END, 503, "engine_error"),
        (HEAD + piece(b"data: {nonsense\n\n" + DONE) + END, 500, None),
    ],
)
async def test_what_goes_wrong_before_an_answer_is_an_error_and_free(
    gateway: Gateway, streams: bool, said: bytes, status: int, code: str | None
) -> None:
    if streams and status == 500:
        pytest.skip("nobody reads the JSON of a stream")
    _, client = gateway.begin(streams=streams)
    (await gateway.double.peer()).say(said)
    await eventually(lambda: client.has_ended)
    assert client.status == status
    assert orjson.loads(client.body)["error"]["code"] == code
    assert "x-gpu-type" not in {name.decode() for name, _ in client.headers}
    assert await gateway.charged() == []


@pytest.mark.parametrize("said", [ERROR, b""])
async def test_what_goes_wrong_in_a_stream_ends_it_with_an_error(gateway: Gateway, said: bytes) -> None:
    _, client = gateway.begin(streams=True)
    peer = await gateway.double.peer()
    peer.say(HEAD + SOME)
    await eventually(lambda: b"Loam" in client.body)
    if said:
        peer.say(piece(said))
    else:
        peer.close()
    await eventually(lambda: client.has_ended)
    last = client.body.split(b"data: ")[-1]
    assert orjson.loads(last)["error"]["code"] == "engine_error"
    assert await gateway.charged() == []


async def test_an_engine_that_falls_silent_is_given_up(gateway: Gateway) -> None:
    _, client = gateway.begin(streams=False)
    peer = await gateway.double.peer()
    await peer.asked()
    await eventually(lambda: client.has_ended, within_seconds=4)
    assert client.status == 503
    await peer.hung_up()


async def test_a_kept_connection_that_was_just_being_closed_sends_the_request_another_way(gateway: Gateway) -> None:
    _, first = gateway.begin(streams=False)
    peer = await gateway.double.peer()
    await peer.asked()
    peer.say(HEAD + ALL)
    await eventually(lambda: first.has_ended)
    _, client = gateway.begin(streams=True)
    peer.close()
    await eventually(lambda: client.is_sent_away)
    assert not client.has_begun
