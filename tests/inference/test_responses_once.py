"""Requests under one idempotency key, at two gateways of one store, with engines whose chunks the test writes."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import event, select

from app.errors import Conflict
from app.inference.engine_errors import EngineLost
from app.inference.responses_once import Once
from app.inference.responses_store import UnknownPreviousResponse, UnknownResponse, history
from app.settings import Settings
from app.store.session import Store
from app.store.tables import IdempotencyKey
from tests.eventually import eventually
from tests.inference.test_responses_exchange import ScriptedRelay, exchange, kept, new_org, scripted

pytestmark = pytest.mark.anyio

Json = dict[str, Any]
SETTINGS = Settings(lease_seconds=2, poll_seconds=0.02)


def once(store: Store, relay: ScriptedRelay, /, **fields: Any) -> Once:
    return Once(exchange(store, relay, "key", **fields), store, SETTINGS)


async def told(answer: Once) -> list[Json]:
    return [event async for events in answer.events() for event in events]


async def held_until(store: Store) -> float:
    async with store.read() as session:
        return await session.scalar(select(IdempotencyKey.expires_at)) or 0


async def test_who_asks_the_same_meanwhile_waits_for_the_first_ones_answer(store: Store, store_url: str) -> None:
    org_id = await new_org(store)
    first, second, third = scripted(org_id, is_held=True), scripted(org_id), scripted(org_id)
    other = Store(store_url)
    answering = asyncio.create_task(once(store, first).whole())
    await eventually(lambda: first.is_open)
    waiting = asyncio.create_task(once(other, second).whole())
    streaming = asyncio.create_task(told(once(other, third)))
    begun = await held_until(store)

    async def is_held_longer() -> bool:
        return await held_until(store) > begun

    await eventually(is_held_longer)
    assert not waiting.done()
    assert not streaming.done()
    first.held.set()
    response = await answering
    assert await waiting == response == (await streaming)[-1]["response"]
    assert not second.was_open
    assert not third.was_open
    await other.close()


async def test_where_the_first_fails_the_next_is_answered_afresh(store: Store) -> None:
    org_id = await new_org(store)
    first, second = scripted(org_id, n_chunks=2, error=EngineLost("Gone."), is_held=True), scripted(org_id)
    failing = asyncio.create_task(once(store, first).whole())
    await eventually(lambda: first.is_open)
    waiting = asyncio.create_task(once(store, second).whole())
    first.held.set()
    with pytest.raises(EngineLost):
        await failing
    response = await waiting
    assert (response["status"], second.was_open) == ("completed", True)
    assert await kept(store, org_id, response["id"]) == response


async def test_a_stream_that_failed_is_no_answer_to_who_asks_the_same_again(store: Store) -> None:
    org_id = await new_org(store)
    first = once(store, scripted(org_id, n_chunks=2, error=EngineLost("Gone.")))
    assert (await told(first))[-1]["type"] == "response.failed"
    assert await first.failed(EngineLost("Gone.")) == []
    early = once(store, scripted(org_id, n_chunks=0))
    assert (await early.failed(EngineLost("Gone, while it was kept alive.")))[-1]["type"] == "response.failed"
    assert (await told(once(store, scripted(org_id))))[-1]["type"] == "response.completed"


async def test_where_the_first_ones_client_leaves_the_next_is_answered_afresh(store: Store, store_url: str) -> None:
    org_id = await new_org(store)
    other, tries = Store(store_url), list[object]()
    event.listen(other.engine.sync_engine, "commit", tries.append)
    leaving = once(store, scripted(org_id, n_chunks=2, is_silent=True)).events()
    await anext(leaving)
    waiting = asyncio.create_task(told(once(other, scripted(org_id))))
    await eventually(lambda: len(tries) > 1)
    assert not waiting.done()
    await leaving.aclose()
    assert (await waiting)[-1]["type"] == "response.completed"
    await other.close()


async def test_who_leaves_just_as_the_key_becomes_theirs_does_not_keep_it(store: Store) -> None:
    org_id = await new_org(store)
    leaving = asyncio.create_task(once(store, scripted(org_id)).whole())
    event.listen(store.engine.sync_engine, "commit", lambda _: leaving.cancel(), once=True)
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert await held_until(store) == 0


async def test_what_is_not_stored_is_answered_once_under_a_key_and_read_by_nobody_else(store: Store) -> None:
    org_id = await new_org(store)
    first, second, third = (scripted(org_id) for _ in range(3))
    response = await once(store, first, store=False).whole()
    assert await once(store, second, store=False).whole() == response
    assert (await told(once(store, third, store=False)))[-1]["response"] == response
    assert (first.was_open, second.was_open, third.was_open) == (True, False, False)
    async with store.read() as session:
        with pytest.raises(UnknownPreviousResponse):
            await history(session, org_id, response["id"])
        kept_bytes = await session.scalar(select(IdempotencyKey.answer))
    with pytest.raises(UnknownResponse):
        await kept(store, org_id, response["id"])
    assert kept_bytes
    assert response["output_text"].encode() not in kept_bytes


async def test_another_request_under_the_key_is_refused_at_once(store: Store) -> None:
    org_id = await new_org(store)
    first = scripted(org_id, is_held=True)
    answering = asyncio.create_task(once(store, first).whole())
    await eventually(lambda: first.is_open)
    with pytest.raises(Conflict):
        await once(store, scripted(org_id), input="other").whole()
    first.held.set()
    await answering
