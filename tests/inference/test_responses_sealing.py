"""Reasoning that clients carry along sealed, so that a conversation goes on though nothing of it is stored."""

from typing import Any

import pytest
from httpx import AsyncClient
from openai import AsyncOpenAI, BadRequestError
from openai.types.responses import Response, ResponseReasoningItem

from app.inference.responses_stream import ResponseEvents
from tests.asking import ok
from tests.conformance.cases import THINKER
from tests.conformance.shapes import OPENAI
from tests.inference.vllm_chunks import CUT_IN_THOUGHT, machine
from tests.servers import Server, TestOrg

pytestmark = pytest.mark.anyio

Json = dict[str, Any]

SEALED: Any = ["reasoning.encrypted_content"]
THINKING: Json = {"model": THINKER, "extra_body": {"chat_template_kwargs": {"enable_thinking": True}}}
STATELESS: Json = {**THINKING, "include": SEALED, "store": False}
QUESTION: Any = {"role": "user", "content": "How is the weather in Rome?"}
MORE: Any = {"role": "user", "content": "And now?"}


def reasoning_of(response: Response) -> ResponseReasoningItem:
    first = response.output[0]
    assert isinstance(first, ResponseReasoningItem)
    return first


def dumped(response: Response) -> list[Json]:
    return [item.model_dump() for item in response.output]


async def prompt_tokens(openai: AsyncOpenAI, items: list[Json]) -> int:
    given: Any = [QUESTION, *items, MORE]
    response = await openai.responses.create(input=given, **STATELESS)
    assert response.usage
    return response.usage.input_tokens


async def test_a_conversation_that_is_stored_nowhere_goes_on(openai: AsyncOpenAI) -> None:
    first = await openai.responses.create(input=[QUESTION], **STATELESS)
    thought, answer = dumped(first)
    open_only = {**thought, "encrypted_content": None}
    sealed_only = {name: thought[name] for name in ("id", "type", "encrypted_content")} | {"summary": []}
    at_length = await prompt_tokens(openai, [open_only, answer])
    assert await prompt_tokens(openai, [thought, answer]) == at_length
    assert await prompt_tokens(openai, [sealed_only, answer]) == at_length
    assert await prompt_tokens(openai, [{**open_only, "content": []}, answer]) < at_length
    forged = {**thought, "content": [{"type": "reasoning_text", "text": "What I never thought. " * 50}]}
    assert await prompt_tokens(openai, [forged, answer]) == at_length


async def test_a_stream_tells_the_seal_with_the_item(openai: AsyncOpenAI) -> None:
    stream = await openai.responses.create(input=[QUESTION], stream=True, **STATELESS)
    events = [event async for event in stream]
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert events[-1].type == "response.completed"
    assert done == events[-1].response.output
    assert reasoning_of(events[-1].response).encrypted_content


async def test_what_was_changed_on_the_way_or_sealed_for_others_is_refused(
    openai: AsyncOpenAI, simulated: Server
) -> None:
    thought, answer = dumped(await openai.responses.create(input=[QUESTION], **STATELESS))
    sealed = thought["encrypted_content"]
    for changed in (sealed[:-6] + "AAAAAA", "gAAAAABnot-ours", "é"):
        with pytest.raises(BadRequestError) as refusal:
            await prompt_tokens(openai, [{**thought, "encrypted_content": changed}, answer])
        assert (refusal.value.code, refusal.value.param) == ("invalid_encrypted_content", "input")
    async with AsyncOpenAI(base_url=f"{simulated.url}/v1", api_key=simulated.new_org().key) as stranger:
        with pytest.raises(BadRequestError, match="not one that was made here"):
            await prompt_tokens(stranger, [thought, answer])
    with pytest.raises(BadRequestError) as refusal:
        await prompt_tokens(openai, [{**thought, "encrypted_content": 7}, answer])
    assert refusal.value.param == "input[1].encrypted_content"


async def test_what_is_stored_is_sealed_for_who_asks_for_it_later(openai: AsyncOpenAI) -> None:
    first = await openai.responses.create(input=[QUESTION], **THINKING)
    assert reasoning_of(first).encrypted_content is None
    again = await openai.responses.retrieve(first.id, include=SEALED)
    assert reasoning_of(again).encrypted_content
    assert reasoning_of(await openai.responses.retrieve(first.id)).encrypted_content is None
    given: Any = [QUESTION, *dumped(first), MORE]
    second = await openai.responses.create(input=given, **THINKING)
    listed = [item async for item in openai.responses.input_items.list(second.id, include=SEALED, order="asc")]
    assert isinstance(listed[1], ResponseReasoningItem)
    assert listed[1].encrypted_content
    carried = [dumped(again)[0], dumped(first)[1]]
    assert second.usage
    assert await prompt_tokens(openai, carried) == second.usage.input_tokens


async def test_a_conversation_with_sealed_items_is_continued_from_the_store(
    openai: AsyncOpenAI, simulated: Server, org: TestOrg
) -> None:
    first = await openai.responses.create(input=[QUESTION], **STATELESS)
    given: Any = [QUESTION, *dumped(first), MORE]
    second = await openai.responses.create(input=given, **THINKING)
    third = await openai.responses.create(input=[MORE], previous_response_id=second.id, **THINKING)
    assert third.status == "completed"
    async with AsyncClient(base_url=simulated.url, headers=org.headers) as http:
        listed = ok(await http.get(f"/v1/responses/{second.id}/input_items?include={SEALED[0]}"))
    OPENAI.check("ResponseItemList", listed)
    assert ["encrypted_content" in item for item in listed["data"]] == [False, False, True, False]


def test_a_thought_that_is_cut_is_sealed_as_far_as_it_came() -> None:
    events = ResponseEvents(machine().response, seal=lambda items: str(items[0]["content"][0]["text"]))
    events.start()
    for chunk in CUT_IN_THOUGHT:
        events.feed(chunk)
    events.finish()
    [thought] = events.response["output"]
    assert (thought["status"], thought["encrypted_content"]) == ("incomplete", "Hm hm")
