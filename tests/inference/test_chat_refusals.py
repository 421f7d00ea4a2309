"""What a chat completion is refused for, before an engine sees it; the error names the field."""

from typing import Any

import pytest
from httpx import AsyncClient

from tests.asking import CHAT, chat, chat_body, refused

pytestmark = pytest.mark.anyio

FUNCTION = {"type": "function", "function": {"name": "f"}}
JSON = {"content-type": "application/json"}


def nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = {}
    for _ in range(depth):
        inner = {"a": inner}
    return inner


def allowed(mode: str, *names: str) -> dict[str, Any]:
    tools = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}}


def schema(inner: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "s", "schema": inner}}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no messages": ({"messages": None}, "messages"),
    "empty messages": ({"messages": []}, "messages"),
    "messages of another type": ({"messages": "Hi"}, "messages"),
    "a message that is a string": ({"messages": ["Hi"]}, "messages[0]"),
    "an unknown role": ({"messages": [{"role": "wizard", "content": "Hi"}]}, "messages[0]"),
    "content that is a number": ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
    "a text part without text": (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content[0]",
    ),
    "no content": ({"messages": [{"role": "user"}]}, "messages[0].content"),
    "tool calls in a word": (
        {"messages": [{"role": "assistant", "tool_calls": "f"}]},
        "messages[0].tool_calls",
    ),
    "no model": ({"model": None}, "model"),
    "a temperature in words": ({"temperature": "0.5"}, "temperature"),
    "n in words": ({"n": "2"}, "n"),
    "n as yes": ({"n": True}, "n"),
    "stream in words": ({"stream": "false"}, "stream"),
    "stream as 1": ({"stream": 1}, "stream"),
    "stream options in words": ({"stream_options": {"include_usage": "yes"}}, "stream_options.include_usage"),
    "functions as of old": ({"functions": [{"name": "f", "parameters": {}}]}, "functions"),
    "a search of the web": ({"web_search_options": {}}, "web_search_options"),
    "sound": ({"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "mp3"}}, "modalities"),
    "n of 0": ({"n": 0}, "n"),
    "n beyond all reason": ({"n": 1_000_000}, "n"),
    "max_tokens of 0": ({"max_tokens": 0}, "max_tokens"),
    "a negative max_completion_tokens": ({"max_completion_tokens": -1}, "max_completion_tokens"),
    "a hot temperature": ({"temperature": 2.1}, "temperature"),
    "a negative temperature": ({"temperature": -0.1}, "temperature"),
    "top_p of 0": ({"top_p": 0}, "top_p"),
    "21 top_logprobs": ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    "a stop number": ({"stop": 5}, "stop"),
    "17 stop strings": ({"stop": ["x"] * 17}, "stop"),
    "a stop string without end": ({"stop": "x" * 2000}, "stop"),
    "too large a logit_bias": ({"logit_bias": {str(n): 1 for n in range(2000)}}, "logit_bias"),
    "a penalty of 3": ({"presence_penalty": 3}, "presence_penalty"),
    "129 tools": ({"tools": [FUNCTION] * 129}, "tools"),
    "a tool of another kind": ({"tools": [{"type": "web_search"}]}, "tools[0]"),
    "a tool without a name": ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function"),
    "no tools in a list": ({"tools": []}, "tools"),
    "two tools of one name": ({"tools": [FUNCTION] * 2}, "tools[1].function.name"),
    "a tool with a wrong name": (
        {"tools": [{"type": "function", "function": {"name": "get weather"}}]},
        "tools[0].function.name",
    ),
    "a choice without tools": ({"tool_choice": "auto"}, "tool_choice"),
    "a required call without tools": ({"tool_choice": "required"}, "tool_choice"),
    "a choice of another tool": (
        {"tools": [FUNCTION], "tool_choice": {"type": "function", "function": {"name": "g"}}},
        "tool_choice",
    ),
    "allowed tools of elsewhere": (
        {"tools": [FUNCTION], "tool_choice": allowed("auto", "g")},
        "tool_choice",
    ),
    "an unknown choice": ({"tools": [FUNCTION], "tool_choice": "any"}, "tool_choice"),
    "an unknown response format": ({"response_format": {"type": "xml"}}, "response_format"),
    "a format without its schema": ({"response_format": {"type": "json_schema"}}, "response_format"),
    "a schema without a name": (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
        "response_format",
    ),
    "a schema with a wrong name": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}},
        "response_format",
    ),
    "a remote reference": (
        {"response_format": schema({"$ref": "http://127.0.0.1/x.json"})},
        "response_format.json_schema.schema",
    ),
    "a schema that refers to itself": (
        {"response_format": schema({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"})},
        "response_format.json_schema.schema",
    ),
    "a schema that is none": (
        {"response_format": schema({"type": "strnig"})},
        "response_format.json_schema.schema",
    ),
    "a schema that is not held": (
        {"response_format": schema({"type": "array", "items": {}, "uniqueItems": True})},
        "response_format.json_schema.schema",
    ),
    "an enum bomb": (
        {"response_format": schema({"enum": [str(n) for n in range(2000)]})},
        "response_format.json_schema.schema",
    ),
    "a schema too deep": (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": nested(40)}}]},
        "tools[0].function.parameters",
    ),
}


@pytest.mark.parametrize(("fields", "param"), BAD.values(), ids=BAD.keys())
async def test_what_is_out_of_bounds_is_refused_by_name(
    client: AsyncClient, fields: dict[str, Any], param: str
) -> None:
    response = await client.post(CHAT, json={k: v for k, v in chat_body(**fields).items() if v is not None})
    body = refused(response, 400, param=param)
    assert body["error"]["type"] == "invalid_request_error"
    assert len(response.content) < 5000


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/secret"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "video_url", "video_url": {"url": "file:///etc/passwd"}},
    ],
    ids=lambda part: part["type"],
)
async def test_only_text_goes_to_a_text_model(client: AsyncClient, part: dict[str, Any]) -> None:
    response = await client.post(CHAT, json=chat_body(messages=[{"role": "user", "content": [part]}]))
    refused(response, 400, param="messages[0].content[0]")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b'"text"', b"\xff\xfe", b'{"model": NaN}', b"[" * 100_000],
    ids=["empty", "cut", "null", "list", "string", "bytes", "nan", "deep"],
)
async def test_a_body_that_is_no_json_object_is_refused(client: AsyncClient, body: bytes) -> None:
    refused(await client.post(CHAT, content=body, headers=JSON), 400)


@pytest.mark.parametrize("where", ["messages", "tools"])
async def test_a_body_nested_too_deep_is_refused(client: AsyncClient, where: str) -> None:
    deep: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Hi", "x": nested(300)}],
        "tools": [{"type": "function", "function": {"name": "f", "x": nested(300)}}],
    }
    refused(await client.post(CHAT, json=chat_body(**{where: deep[where]})), 400)


async def test_an_unknown_model_is_a_404_with_openais_code(client: AsyncClient) -> None:
    refused(await client.post(CHAT, json=chat_body(model="nobody/nothing")), 404, param="model", code="model_not_found")


async def test_unknown_and_forbidden_fields_are_ignored(client: AsyncClient) -> None:
    forbidden = ("chat_template", "documents", "mm_processor_kwargs", "logits_processors", "vllm_xargs")
    plain = await chat(client)
    body = await chat(client, **dict.fromkeys(forbidden, "{{ 1/0 }}"), stop_after_tool_calls=3, made_up=[1])
    assert body["choices"][0]["message"] == plain["choices"][0]["message"]


@pytest.mark.parametrize("content", ["word " * 600_000, [{"type": "text", "text": "word " * 600_000}]])
async def test_what_cannot_fit_in_the_context_is_refused_unread(client: AsyncClient, content: Any) -> None:
    response = await client.post(CHAT, json=chat_body(messages=[{"role": "user", "content": content}]))
    told = refused(response, 400, param="messages", code="context_length_exceeded")
    assert "far longer" in told["detail"]
    assert len(response.content) < 5000
