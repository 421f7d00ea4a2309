"""One request and its answer, with an engine whose chunks the test writes."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import orjson
import pytest

from app.engines.pool import EnginePool
from app.errors import BadRequest
from app.inference import responses_running as running
from app.inference import responses_store as stored
from app.inference.chat import parse as parse_chat
from app.inference.engine_errors import EngineLost
from app.inference.relay import Meter, Relay
from app.inference.responses_background import Backgrounds
from app.inference.responses_chat import to_chat
from app.inference.responses_exchange import Exchange
from app.inference.responses_request import ResponseCreate
from app.settings import Settings
from app.store.session import Store, dump_json
from tests.conformance.shapes import OPENAI
from tests.eventually import eventually
from tests.inference.vllm_chunks import TEXT
from tests.rows import make_org, target

pytestmark = pytest.mark.anyio

Json = dict[str, Any]


class ScriptedRelay(Relay):
    """An engine that sends some chunks, and then fails with an error, or is silent until its client leaves.

    One that is held sends nothing before the test lets it.
    """

    n_chunks = len(TEXT)
    error: Exception | None = None
    is_silent = False
    is_held = False
    held: asyncio.Event
    is_open = was_open = False

    @asynccontextmanager
    async def stream(self, body: Mapping[str, Any], meter: Meter) -> AsyncIterator[AsyncIterator[bytes]]:
        type(self).is_open = type(self).was_open = True
        try:
            yield self._written()
        finally:
            type(self).is_open = False

    async def _written(self) -> AsyncIterator[bytes]:
        if self.is_held:
            await self.held.wait()
        for chunk in TEXT[: self.n_chunks]:
            yield b"data: " + orjson.dumps(chunk) + b"\n\n"
        if self.error:
            raise self.error
        if self.is_silent:
            await asyncio.Event().wait()


def scripted(org_id: str, **script: Any) -> ScriptedRelay:
    kind = type("Scripted", (ScriptedRelay,), {**script, "held": asyncio.Event()})
    relay: ScriptedRelay = kind(Settings(), cast(EnginePool, None), cast(Any, None), target(), org_id, "req_1", "salt")
    return relay


def exchange(store: Store, relay: Relay, key: str | None = None, /, **fields: Any) -> Exchange:
    asked = ResponseCreate.model_validate({"model": "test/a", "input": "What is loam?", **fields})
    chat = parse_chat(to_chat(asked, [], orjson.loads))
    return Exchange(relay, store, asked, chat, seal=dump_json, idempotency=(key, fields))


async def new_org(store: Store) -> str:
    async with store.begin() as session:
        return (await make_org(session)).id


async def kept(store: Store, org_id: str, response_id: str) -> Json:
    async with store.read() as session:
        return (await stored.get(session, org_id, response_id)).body


async def test_the_response_is_in_the_store_before_its_last_event_is_told(store: Store) -> None:
    org_id = await new_org(store)
    answer = exchange(store, scripted(org_id))
    async for events in answer.events():
        if events and events[-1]["type"] == "response.completed":
            assert await kept(store, org_id, answer.response["id"]) == events[-1]["response"]
            return
    raise AssertionError("it did not complete")


async def test_who_stops_listening_ends_the_generation_before_he_goes_on(store: Store) -> None:
    relay = scripted(await new_org(store), is_silent=True)
    events = exchange(store, relay).events()
    assert [event["type"] for event in await anext(events)] == ["response.created", "response.in_progress"]
    assert relay.is_open
    await events.aclose()
    assert not relay.is_open


async def test_a_response_that_cannot_be_stored_does_not_look_like_success(store: Store) -> None:
    answer = exchange(store, scripted("org_that_is_not_there"))
    told = [event async for events in answer.events() for event in events]
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert told[-1]["type"] == "error"
    OPENAI.check_event(told[-1])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (EngineLost("Gone."), "server_error"),
        (BadRequest("Too long."), "invalid_prompt"),
        (ZeroDivisionError("a bug in secret.py"), "server_error"),
    ],
    ids=["the engine's", "the client's", "ours"],
)
async def test_a_failure_in_the_middle_is_told_in_clients_words(store: Store, error: Exception, code: str) -> None:
    org_id = await new_org(store)
    answer = exchange(store, scripted(org_id, n_chunks=2, error=error))
    told = [event async for events in answer.events() for event in events]
    OPENAI.check_event(told[-1])
    assert (told[-1]["type"], told[-1]["response"]["error"]["code"]) == ("response.failed", code)
    assert "secret" not in told[-1]["response"]["error"]["message"]
    assert await kept(store, org_id, answer.response["id"]) == told[-1]["response"]


async def test_a_stream_that_has_ended_is_not_told_of_a_failure(store: Store) -> None:
    answer = exchange(store, scripted(await new_org(store)))
    async for _ in answer.events():
        pass
    assert await answer.failed(BrokenPipeError()) == []


async def test_a_bug_fails_the_background_response_that_met_it(store: Store) -> None:
    org_id = await new_org(store)
    gateway = Backgrounds(Settings(), store)
    response = await gateway.begin(
        exchange(store, scripted(org_id, n_chunks=2, error=RuntimeError("a bug")), background=True)
    )

    async def failed() -> Json | None:
        found = await kept(store, org_id, response["id"])
        return found if found["status"] == "failed" else None

    assert "x-request-id" in (await eventually(failed))["error"]["message"]


async def test_a_gateway_ends_what_others_have_ended(store: Store) -> None:
    org_id = await new_org(store)
    gateway, relay = Backgrounds(Settings(), store), scripted(org_id, n_chunks=2, is_silent=True)
    response = await gateway.begin(exchange(store, relay, background=True))
    await eventually(lambda: relay.is_open)
    await gateway.end_ended()
    assert relay.is_open
    async with store.begin() as session:
        await running.cancel(session, org_id, response["id"])
    await gateway.end_ended()
    await eventually(lambda: not relay.is_open)


async def lapse(store: Store, response_id: str) -> None:
    async with store.begin() as session:
        await running.hold(session, [response_id], lease_seconds=-1)


async def test_a_gateway_holds_on_to_what_it_works_on(store: Store) -> None:
    org_id = await new_org(store)
    gateway, other = Backgrounds(Settings(), store), Backgrounds(Settings(), store)
    response = await gateway.begin(exchange(store, scripted(org_id, is_silent=True), background=True))

    async def status() -> str:
        return str((await kept(store, org_id, response["id"]))["status"])

    async def has_begun() -> bool:
        return await status() == "in_progress"

    await other.look_after()
    await eventually(has_begun)
    await lapse(store, response["id"])
    await gateway.look_after()
    await other.look_after()
    assert await status() == "in_progress"
    await lapse(store, response["id"])
    await other.look_after()
    assert await status() == "failed"
    await gateway.close(grace_seconds=0)


async def test_a_gateway_that_closes_fails_what_takes_too_long(store: Store) -> None:
    org_id = await new_org(store)
    gateway, slow = Backgrounds(Settings(), store), scripted(org_id, n_chunks=2, is_silent=True)
    quick = await gateway.begin(exchange(store, scripted(org_id), background=True))
    late = await gateway.begin(exchange(store, slow, background=True))
    await gateway.close(grace_seconds=1)
    assert not slow.is_open
    assert (await kept(store, org_id, quick["id"]))["status"] == "completed"
    failed = await kept(store, org_id, late["id"])
    assert (failed["status"], failed["error"]["code"]) == ("failed", "server_error")


async def test_of_cancel_and_completion_one_wins_for_good(store: Store) -> None:
    org_id = await new_org(store)
    gateway = Backgrounds(Settings(), store)

    async def race(n_turns: int) -> tuple[str, str]:
        """What the canceller was told, and what became of it."""
        response_id = (await gateway.begin(exchange(store, scripted(org_id), background=True)))["id"]
        for _ in range(n_turns):
            await asyncio.sleep(0)
        told = "completed"
        with suppress(BadRequest):
            async with store.begin() as session:
                told = (await running.cancel(session, org_id, response_id))["status"]
            gateway.end(response_id)
        return told, response_id

    races = [await race(n) for n in range(30)]
    await gateway.close(grace_seconds=10)
    for told, response_id in races:
        assert (await kept(store, org_id, response_id))["status"] == told
