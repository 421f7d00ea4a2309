"""What one request may ask for, on both routes: up to each limit, and not beyond it."""

from typing import Any

import pytest
from httpx import AsyncClient

from tests.asking import CHAT, MODEL, chat_body, ok

pytestmark = pytest.mark.anyio

RESPONSES = "/v1/responses"
Fields = dict[str, Any]


def response_body(**fields: Any) -> Fields:
    return {"model": MODEL, "input": "Hello there", **fields}


def tools(count: int, schema: Fields | None = None) -> tuple[Fields, Fields]:
    functions = [{"name": f"f{n}", "parameters": schema or {"type": "object"}} for n in range(count)]
    nested = [{"type": "function", "function": function} for function in functions]
    return {"tools": nested}, {"tools": [{"type": "function", **function} for function in functions]}


def answer_schema(schema: Fields) -> tuple[Fields, Fields]:
    named = {"name": "s", "schema": schema}
    chat = {"response_format": {"type": "json_schema", "json_schema": named}}
    return chat, {"text": {"format": {"type": "json_schema", **named}}}


def both(**fields: Any) -> tuple[Fields, Fields]:
    return fields, fields


def deep(depth: int) -> Fields:
    schema: Fields = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def wide(n_properties: int) -> Fields:
    return {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(n_properties)}}


BEYOND: dict[str, tuple[Fields | None, Fields]] = {
    "max_tokens": ({"max_tokens": 0}, {"max_output_tokens": 0}),
    "n": ({"n": 129}, {"n": 21}),
    "best_of": (None, {"best_of": 21}),
    "logprobs": ({"logprobs": True, "top_logprobs": 21}, {"top_logprobs": 21}),
    "stop strings": both(stop=["x"] * 17),
    "the length of a stop string": both(stop="x" * 1025),
    "tools": tools(129),
    "the depth of a tool's schema": tools(1, deep(20)),
    "the size of a tool's schema": tools(1, wide(3000)),
    "the depth of an answer's schema": answer_schema(deep(20)),
    "the size of an answer's schema": answer_schema(wide(3000)),
    "the context": (
        {"messages": [{"role": "user", "content": "word " * 200_000}]},
        {"input": "word " * 200_000},
    ),
    "messages": (
        {"messages": [{"role": "user", "content": "x"}] * 4097},
        {"input": [{"role": "user", "content": "x"}] * 4097},
    ),
}


@pytest.mark.parametrize(("chat", "response"), BEYOND.values(), ids=BEYOND.keys())
async def test_what_is_beyond_a_limit_is_a_400_on_both_routes(
    client: AsyncClient, chat: Fields | None, response: Fields
) -> None:
    answers = [await client.post(RESPONSES, json=response_body(**response))]
    if chat is not None:
        answers.append(await client.post(CHAT, json=chat_body(**chat)))
    for answer in answers:
        assert answer.status_code == 400, answer.text[:500]
        assert answer.json()["error"]["param"]
        assert len(answer.content) < 5000


UP_TO: Fields = {"stop": ["x" * 1024] * 16, "top_logprobs": 20}


async def test_what_is_just_within_all_limits_is_answered_on_both_routes(client: AsyncClient) -> None:
    named, flat = tools(128)
    roomy = {"model": "Qwen/Qwen3-0.6B"}
    chat = {**UP_TO, **named, **roomy, "logprobs": True, "tool_choice": "none", "max_tokens": 10**12, "n": 128}
    completion = ok(await client.post(CHAT, json=chat_body(**chat)))
    assert len(completion["choices"]) == 128
    response = {**UP_TO, **flat, **roomy, "tool_choice": "none", "max_output_tokens": 10**12, "n": 20, "best_of": 20}
    assert len(ok(await client.post(RESPONSES, json=response_body(**response)))["output"]) == 20
    quick = "Hello there [simulate: pace=100000]"  # the answer to the wide schema has thousands of tokens
    for fields in (answer_schema(deep(10)), answer_schema(wide(1000))):
        ok(await client.post(CHAT, json=chat_body(quick, **fields[0])))
        ok(await client.post(RESPONSES, json=response_body(input=quick, **fields[1])))
