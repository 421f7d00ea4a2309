"""What a Responses request can ask for beside its text, over HTTP."""

from typing import Any

import pytest
from httpx import AsyncClient

from tests.asking import events_of, ok, refused
from tests.conformance.cases import FLAT_TOOLS, THINKER, response_asked

pytestmark = pytest.mark.anyio

PATH = "/v1/responses"
LOGPROBS = "message.output_text.logprobs"
THINKING = {"model": THINKER, "chat_template_kwargs": {"enable_thinking": True}}


async def respond(client: AsyncClient, **fields: Any) -> dict[str, Any]:
    return ok(await client.post(PATH, json=response_asked(fields)))


async def stream(client: AsyncClient, **fields: Any) -> list[dict[str, Any]]:
    response = await client.post(PATH, json=response_asked({**fields, "stream": True}))
    assert response.status_code == 200, response.text
    return events_of(response)


async def test_each_token_has_its_log_probability_streamed_or_not(client: AsyncClient) -> None:
    whole = await respond(client, include=[LOGPROBS])
    [part] = whole["output"][0]["content"]
    assert "".join(token["token"] for token in part["logprobs"]) == part["text"] == whole["output_text"]
    told = await stream(client, include=[LOGPROBS])
    deltas = [event for event in told if event["type"] == "response.output_text.delta"]
    assert [token for event in deltas for token in event["logprobs"]] == part["logprobs"]


async def test_what_cannot_be_included_is_left_out_and_what_nobody_knows_refused(client: AsyncClient) -> None:
    asked = ["file_search_call.results", "reasoning.encrypted_content", "web_search_call.action.sources"]
    plain, included = await respond(client), await respond(client, include=asked)
    assert included["output_text"] == plain["output_text"]
    answer = await client.post(PATH, json=response_asked({"include": [LOGPROBS, "everything"]}))
    refused(answer, 400, param="include[1]")


async def test_thoughts_are_items_that_can_be_sent_back(client: AsyncClient) -> None:
    first = await respond(client, **THINKING)
    assert [item["type"] for item in first["output"]] == ["reasoning", "message"]
    assert first["usage"]["output_tokens_details"]["reasoning_tokens"] > 0
    question, more = {"role": "user", "content": "How is the weather in Rome?"}, {"role": "user", "content": "And now?"}
    again = await respond(client, **THINKING, input=[question, *first["output"], more])
    by_reference = [question, *({"id": item["id"]} for item in first["output"]), more]
    referenced = await respond(client, **THINKING, input=by_reference)
    continued = await respond(client, **THINKING, input=[more], previous_response_id=first["id"])
    prompts = [each["usage"]["input_tokens"] for each in (again, referenced, continued)]
    assert len(set(prompts)) == 1
    assert prompts[0] > first["usage"]["input_tokens"]


SILENCE = [({"input": None}, "input"), ({"input": []}, "input"), ({"input": None, "messages": []}, "input")]


@pytest.mark.parametrize(("fields", "param"), SILENCE)
async def test_a_conversation_may_go_on_without_a_word(client: AsyncClient, fields: dict[str, Any], param: str) -> None:
    first = await respond(client)
    second = await respond(client, **fields, previous_response_id=first["id"])
    assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"]
    assert ok(await client.get(f"{PATH}/{second['id']}/input_items"))["data"] == []
    alone = await client.post(PATH, json=response_asked(fields))
    assert (alone.status_code, alone.json()["error"]["param"]) == (400, param)


async def test_a_thought_ends_at_its_budget(client: AsyncClient) -> None:
    response = await respond(client, **THINKING, thinking_budget=3)
    assert response["usage"]["output_tokens_details"]["reasoning_tokens"] == 3


@pytest.mark.parametrize("text", ["Hello", "How is the weather?"])
async def test_a_stream_that_is_asked_for_again_is_told_again(client: AsyncClient, text: str) -> None:
    asked = response_asked({"input": text, "stream": True, "tools": FLAT_TOOLS})
    first, second = [await client.post(PATH, json=asked, headers={"Idempotency-Key": text}) for _ in range(2)]
    before, after = events_of(first), events_of(second)
    assert after[-1]["response"] == before[-1]["response"]
    assert list(dict.fromkeys(event["type"] for event in after)) == list(dict.fromkeys(e["type"] for e in before))


async def test_an_item_of_a_deleted_response_is_gone(client: AsyncClient) -> None:
    first = await respond(client)
    ok(await client.delete(f"{PATH}/{first['id']}"))
    asked = response_asked({"input": [{"type": "item_reference", "id": first["output"][0]["id"]}]})
    refused(await client.post(PATH, json=asked), 404, param="input")
