"""POST /chat/completions over the simulated engine: what is asked is what is answered, and what is charged."""

import asyncio
from typing import Any

import jsonschema
import orjson
import pytest
from httpx import AsyncClient

from tests.asking import (
    CHAT,
    MODEL,
    chat,
    chat_body,
    data_lines,
    ledger_of,
    ok,
    refused,
    spend_everything,
    stream,
)
from tests.eventually import eventually
from tests.servers import Server

pytestmark = pytest.mark.anyio

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 3}, "tags": {"type": "array"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


async def test_an_answer_has_openais_shape_and_tells_its_gpu(client: AsyncClient) -> None:
    response = await client.post(CHAT, json=chat_body())
    body = ok(response)
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["role"] == "assistant"
    assert "Hello there" in body["choices"][0]["message"]["content"]
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + body["usage"]["completion_tokens"]
    assert isinstance(body["system_fingerprint"], str)
    assert response.headers["x-gpu-type"] == body["selected_gpu"] == "CPU"
    assert response.headers["x-loam-simulated"] == "true"


async def test_a_stream_says_what_the_whole_answer_says(client: AsyncClient) -> None:
    chunks = await stream(client)
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert text == (await chat(client))["choices"][0]["message"]["content"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_a_stream_can_be_asked_in_the_query(client: AsyncClient) -> None:
    response = await client.post(f"{CHAT}?stream=true", json=chat_body())
    assert response.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize("name", [MODEL, "LOAM/Demo"])
@pytest.mark.parametrize("streams", [True, False])
async def test_the_answer_has_the_name_that_the_client_used(client: AsyncClient, name: str, streams: bool) -> None:
    parts = await stream(client, model=name) if streams else [await chat(client, model=name)]
    assert {part["model"] for part in parts} == {name}


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": False}}, {"stream_options": None}])
async def test_no_chunk_tells_usage_that_was_not_asked_for(client: AsyncClient, options: dict[str, Any]) -> None:
    chunks = await stream(client, **options)
    assert all(chunk.get("usage") is None and chunk["choices"] for chunk in chunks)


async def test_usage_that_was_asked_for_is_told_once_at_the_end(client: AsyncClient) -> None:
    *chunks, last = await stream(client, stream_options={"include_usage": True})
    assert all(chunk.get("usage") is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == len(chunks) - 2  # but for the role and the end


async def test_what_is_charged_is_what_the_stream_said(simulated: Server, client: AsyncClient) -> None:
    *_, last = await stream(client, stream_options={"include_usage": True})
    [charge] = await ledger_of(simulated, client, "inference")
    usage = last["usage"]
    assert (charge.prompt_tokens, charge.completion_tokens) == (usage["prompt_tokens"], usage["completion_tokens"])
    micros = charge.prompt_tokens * 0.02 + charge.completion_tokens * 0.04
    assert charge.amount_micros == -round(micros)


async def test_each_request_is_charged_once_and_counts_what_was_cached(simulated: Server, client: AsyncClient) -> None:
    question = "The same long question twice. " * 20
    first, second = [(await chat(client, question))["usage"] for _ in range(2)]
    charges = await ledger_of(simulated, client, "inference")
    assert [charge.completion_tokens for charge in charges] == [u["completion_tokens"] for u in (first, second)]
    assert [charge.cached_tokens for charge in charges] == [0, second["prompt_tokens_details"]["cached_tokens"]]
    assert charges[1].cached_tokens > 0


async def test_another_organisations_prompts_are_not_in_ones_cache(simulated: Server, client: AsyncClient) -> None:
    question = "A secret that nobody may time. " * 20
    own, others, again = [await chat(client, question, cache_salt=salt) for salt in ("mine", "other", "mine")]
    assert [each["usage"]["prompt_tokens_details"]["cached_tokens"] > 0 for each in (own, others, again)] == [
        False,
        False,
        True,
    ]
    headers = simulated.new_org().headers
    async with AsyncClient(base_url=simulated.url, headers=headers) as other:
        body = await chat(other, question, cache_salt="mine")
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


@pytest.mark.parametrize("choice", ["auto", "required", {"type": "function", "function": {"name": "get_weather"}}])
async def test_a_tool_is_called_with_valid_arguments(client: AsyncClient, choice: Any) -> None:
    body = await chat(client, "What is the weather in Bern?", tools=[WEATHER], tool_choice=choice)
    [call] = body["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    parameters: Any = WEATHER["function"]
    jsonschema.validate(orjson.loads(call["function"]["arguments"]), parameters["parameters"])


@pytest.mark.parametrize("mode", ["auto", "required"])
async def test_of_the_tools_those_that_are_allowed_are_called(client: AsyncClient, mode: str) -> None:
    other = {"type": "function", "function": {"name": "get_time"}}
    allowed = {"mode": mode, "tools": [{"type": "function", "function": {"name": "get_time"}}]}
    fields = {"tools": [WEATHER, other], "tool_choice": {"type": "allowed_tools", "allowed_tools": allowed}}
    answer = await chat(client, "How is the weather, and at what time?", **fields)
    [call] = answer["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] == "get_time"


async def test_streamed_tool_calls_add_up(client: AsyncClient) -> None:
    chunks = await stream(client, "What is the weather in Bern?", tools=[WEATHER])
    deltas = [call for c in chunks for call in c["choices"][0]["delta"].get("tool_calls") or ()]
    assert deltas[0]["function"]["name"] == "get_weather"
    assert "city" in orjson.loads("".join(call["function"]["arguments"] for call in deltas))
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_tools_result_is_answered(client: AsyncClient) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Bern"}'}}
    messages = [
        {"role": "user", "content": "What is the weather in Bern?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Rain"},
    ]
    body = await chat(client, messages=messages, tools=[WEATHER])
    assert "Rain" in body["choices"][0]["message"]["content"]


async def test_a_schema_is_kept_to(client: AsyncClient) -> None:
    schema = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
    body = await chat(client, response_format=schema)
    jsonschema.validate(orjson.loads(body["choices"][0]["message"]["content"]), SCHEMA)


async def test_a_json_object_can_be_asked_for(client: AsyncClient) -> None:
    body = await chat(client, response_format={"type": "json_object"})
    assert isinstance(orjson.loads(body["choices"][0]["message"]["content"]), dict)


async def test_every_token_has_its_logprobs_when_asked(client: AsyncClient) -> None:
    body = await chat(client, logprobs=True, top_logprobs=3)
    tokens = body["choices"][0]["logprobs"]["content"]
    assert len(tokens) == body["usage"]["completion_tokens"]
    assert {len(token["top_logprobs"]) for token in tokens} == {3}
    assert (await chat(client))["choices"][0]["logprobs"] is None


async def test_several_answers_differ_and_count_together(client: AsyncClient) -> None:
    body = await chat(client, n=3, temperature=0.7)
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in body["choices"]}) == 3


async def test_a_stop_string_ends_the_answer(client: AsyncClient) -> None:
    body = await chat(client, "one two three", stop=["two"])
    assert body["choices"][0]["message"]["content"].endswith("one ")


async def test_max_tokens_beyond_the_context_are_cut_and_not_refused(client: AsyncClient) -> None:
    body = await chat(client, max_tokens=10_000_000)
    assert body["choices"][0]["finish_reason"] == "stop"


async def test_a_prompt_longer_than_the_context_is_refused_with_openais_code(client: AsyncClient) -> None:
    response = await client.post(CHAT, json=chat_body("word " * 5000))
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


@pytest.mark.parametrize(("mode", "thinks"), [("think", True), ("no_think", False)])
async def test_thinking_is_asked_by_its_mode(client: AsyncClient, mode: str, thinks: bool) -> None:
    body = await chat(client, model="Qwen/Qwen3-0.6B", thinking_mode=mode)
    assert bool(body["choices"][0]["message"].get("reasoning")) is thinks


async def test_template_kwargs_are_honoured_in_a_literal_extra_body(client: AsyncClient) -> None:
    extra = {"chat_template_kwargs": {"enable_thinking": True}}
    body = await chat(client, model="Qwen/Qwen3-0.6B", extra_body=extra, extra_headers={})
    assert body["choices"][0]["message"]["reasoning"]


async def test_a_thought_ends_at_its_budget(client: AsyncClient) -> None:
    thinking = {"model": "Qwen/Qwen3-0.6B", "thinking_mode": "think"}
    cut, free = await chat(client, **thinking, thinking_budget=7), await chat(client, **thinking)
    assert cut["choices"][0]["message"]["content"] == free["choices"][0]["message"]["content"]
    assert cut["usage"]["completion_tokens_details"]["reasoning_tokens"] == 7
    assert free["usage"]["completion_tokens_details"]["reasoning_tokens"] > 7


async def test_without_funds_nothing_is_answered(simulated: Server) -> None:
    org = simulated.new_org()
    await spend_everything(simulated, org)
    async with AsyncClient(base_url=simulated.url, headers=org.headers) as client:
        for path, body in ((CHAT, chat_body()), ("/v1/responses", {"model": MODEL, "input": "Hi"})):
            response = await client.post(path, json=body)
            refused(response, 402, code="insufficient_quota")
            assert response.headers["x-should-retry"] == "false"


async def test_an_engine_that_dies_in_the_middle_ends_the_stream_with_an_error(
    simulated: Server, client: AsyncClient
) -> None:
    model = "Qwen/Qwen3-1.7B"  # no other test crashes it: who crashes again is not started at once
    response = await client.post(CHAT, json=chat_body("[simulate: crash]", model=model, stream=True))
    *_, last = data_lines(response.text)
    assert orjson.loads(last)["error"]["code"] == "engine_error"
    assert await ledger_of(simulated, client, "inference") == []

    async def answers() -> bool:
        again = await client.post(CHAT, json=chat_body(model=model))
        assert again.status_code in (200, 503), again.text
        return again.status_code == 200

    await eventually(answers)


async def test_an_engine_that_dies_before_the_answer_is_a_503(client: AsyncClient) -> None:
    response = await client.post(CHAT, json=chat_body("[simulate: crash]", model="Qwen/Qwen3-4B"))
    refused(response, 503, code="engine_error")
    assert int(response.headers["retry-after"]) <= 60


async def test_a_client_that_leaves_ends_the_generation_and_pays_for_what_it_got(
    simulated: Server, client: AsyncClient
) -> None:
    asked = chat_body("[simulate: pace=50]", stream=True, max_tokens=2000, ignore_eos=True)
    n_events = 0
    async with client.stream("POST", CHAT, json=asked) as response:
        async for line in response.aiter_lines():
            n_events += line.startswith("data: ")
            if n_events == 6:
                break
    charges = await eventually(lambda: ledger_of(simulated, client, "inference"))
    assert 5 <= charges[0].completion_tokens < 200


async def test_clients_do_not_wait_for_each_other(client: AsyncClient) -> None:
    slow = asyncio.create_task(chat(client, "[simulate: slow=3]"))
    await chat(client)
    assert not slow.done()
    slow.cancel()
