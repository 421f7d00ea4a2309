"""Conversations of any length, items found by their ids, and old responses that are forgotten."""

import time
from typing import Any

import orjson
import pytest
from sqlalchemy import event, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import BadRequest, NotFound
from app.ids import new_id
from app.inference import responses_store as stored
from app.inference.responses_chat import to_chat
from app.inference.responses_items import input_items
from app.inference.responses_object import new_response
from app.inference.responses_references import with_referenced
from app.inference.responses_request import ResponseCreate
from app.inference.responses_stream import ResponseEvents
from app.inference.responses_upkeep import sweep_responses
from app.store.session import Store
from app.store.tables import ResponseLease, StoredResponse
from app.upkeep.sweeping import DAY_SECONDS, MAX_ROWS, Swept
from tests.inference.vllm_chunks import CALLS, TEXT
from tests.rows import make_org

pytestmark = pytest.mark.anyio

Json = dict[str, Any]
N_TURNS = 500


def answered(response_id: str, chunks: list[Json], **fields: Any) -> Json:
    asked = ResponseCreate.model_validate({"model": "m", "input": "a", **fields})
    events = ResponseEvents(new_response(asked, response_id=response_id, created_at=1))
    for chunk in chunks:
        events.feed(chunk)
    events.finish()
    return events.response


async def make_turn(
    session: AsyncSession, org_id: str, previous_id: str | None = None, chunks: list[Json] = TEXT, **fields: Any
) -> Json:
    asked = ResponseCreate.model_validate({"model": "m", "input": "What is loam?", **fields})
    response = answered(new_id("resp"), chunks, previous_response_id=previous_id)
    stored.add(session, org_id, response, input_items(asked, response["id"]))
    await session.flush()
    return response


async def conversation(session: AsyncSession, org_id: str, n_turns: int) -> list[str]:
    ids: list[str] = []
    for number in range(n_turns):
        ids.append((await make_turn(session, org_id, ids[-1] if ids else None, input=f"Question {number}"))["id"])
    return ids


async def test_a_long_conversation_is_read_in_one_statement(store: Store) -> None:
    async with store.begin() as session:
        org = await make_org(session)
        ids = await conversation(session, org.id, N_TURNS)
    statements: list[str] = []
    event.listen(store.engine.sync_engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    async with store.read() as session:
        items = await stored.history(session, org.id, ids[-1])
    assert len([each for each in statements if "SELECT" in each]) == 1
    assert [item["content"][0]["text"] for item in items[::2]] == [f"Question {n}" for n in range(N_TURNS)]
    assert {item["role"] for item in items[1::2]} == {"assistant"}


async def test_a_conversation_that_has_lost_a_turn_is_not_continued(store: Store) -> None:
    async with store.begin() as session:
        org = await make_org(session)
        first, _, last = await conversation(session, org.id, 3)
        await stored.remove(session, org.id, first)
    async with store.read() as session:
        for missing, asked in ((first, last), ("resp_none", "resp_none")):
            with pytest.raises(BadRequest, match=missing) as refusal:
                await stored.history(session, org.id, asked)
            assert refusal.value.code == "previous_response_not_found"


async def test_an_unfinished_response_is_not_continued(store: Store) -> None:
    async with store.begin() as session:
        org = await make_org(session)
        asked = ResponseCreate.model_validate({"model": "m", "input": "a", "background": True})
        running = new_response(asked, response_id=new_id("resp"), created_at=1, status="queued")
        stored.add(session, org.id, running, [])
    async with store.read() as session:
        with pytest.raises(BadRequest, match="still being generated"):
            await stored.history(session, org.id, running["id"])


async def referenced(session: AsyncSession, org_id: str, items: list[Any], field: str = "input") -> list[Json]:
    """The messages that a model is sent for them."""
    asked = ResponseCreate.model_validate({"model": "m", field: items})
    messages: list[Json] = to_chat(await with_referenced(session, org_id, asked, []), [], orjson.loads)["messages"]
    return messages


async def test_any_stored_item_can_be_sent_again_by_its_id(store: Store) -> None:
    async with store.begin() as session:
        org = await make_org(session)
        text = await make_turn(session, org.id)
        calls = await make_turn(session, org.id, chunks=CALLS)
        [question] = (await stored.get(session, org.id, text["id"])).input_items
    output = {"type": "function_call_output", "call_id": calls["output"][0]["call_id"], "output": "wet"}
    references = [{"id": question["id"]}, {"type": "item_reference", "id": text["output"][0]["id"]}]
    items = [*references, {"id": calls["output"][0]["id"]}, output]
    async with store.read() as session:
        messages = await referenced(session, org.id, items)
        assert await referenced(session, org.id, items, "messages") == messages
    assert [message["content"] for message in messages] == ["What is loam?", "Loam is soil.", "wet"]
    assert messages[1]["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"at": "soil"}'}


async def test_an_item_that_is_not_there_and_anothers_are_refused_alike(store: Store) -> None:
    async with store.begin() as session:
        mine, theirs = await make_org(session), await make_org(session)
        response = await make_turn(session, theirs.id)
    item_id = response["output"][0]["id"]
    async with store.read() as session:
        for unknown in (item_id, item_id[:-1] + "7", "msg_1", "rs_" + "0" * 26 + "o0001", "x" * 500):
            with pytest.raises(NotFound, match=f"Item with id '{unknown[:100]}' not found") as refusal:
                await referenced(session, mine.id, [{"role": "user", "content": "a"}, {"id": unknown}])
            assert refusal.value.param == "input"


async def age(session: AsyncSession, *response_ids: str, days: float = 30.1) -> None:
    aged = update(StoredResponse).values(created_at=time.time() - days * DAY_SECONDS)
    await session.execute(aged.where(StoredResponse.id.in_(response_ids)))


async def kept(store: Store) -> set[str]:
    async with store.read() as session:
        return set(await session.scalars(select(StoredResponse.id)))


async def test_old_responses_are_forgotten_however_many_there_are(store: Store) -> None:
    async with store.begin() as session:
        org = await make_org(session)
        old = [(await make_turn(session, org.id))["id"] for _ in range(MAX_ROWS + 5)]
        await age(session, *old)
        young = (await make_turn(session, org.id))["id"]
    assert await sweep_responses(store, 30, dry=True) == [Swept("stored responses", MAX_ROWS + 5)]
    assert young in await kept(store)
    await sweep_responses(store, 30, dry=False)
    assert await kept(store) == {young}


async def test_a_conversation_is_as_old_as_its_last_turn(store: Store) -> None:
    async with store.begin() as session:
        org = await make_org(session)
        young, old, forked = [await conversation(session, org.id, 3) for _ in range(3)]
        branch = (await make_turn(session, org.id, forked[0]))["id"]
        await age(session, *young[:2], *old, *forked)
    await sweep_responses(store, 30, dry=False)
    assert await kept(store) == {*young, forked[0], branch}


async def test_the_responses_of_a_deleted_organisation_go(store: Store) -> None:
    async with store.begin() as session:
        gone, just_gone, there = [await make_org(session) for _ in range(3)]
        made = [(await make_turn(session, org.id))["id"] for org in (gone, just_gone, there)]
        gone.deleted_at, just_gone.deleted_at = 1.0, time.time()
    await sweep_responses(store, 30, dry=False)
    assert await kept(store) == set(made[1:])


async def test_an_old_response_that_is_worked_on_stays_with_its_conversation(store: Store) -> None:
    async with store.begin() as session:
        org = await make_org(session)
        first, second = await conversation(session, org.id, 2)
        await age(session, first, second)
        session.add(ResponseLease(response_id=second, expires_at=0))
    await sweep_responses(store, 30, dry=False)
    assert await kept(store) == {first, second}
