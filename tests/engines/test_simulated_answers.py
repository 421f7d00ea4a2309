"""What the simulated engine says, whole and in streams."""

import ast
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import httpx2
import jsonschema
import pytest
from openai import OpenAI

from tests.engines.simulated_client import CHAT, Json, chat, content, running, stream, user

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 3}},
            "required": ["city", "days"],
        },
    },
}
CHATS, ALL = "openai/chat_completion/protocol.py", "serve/engine/protocol.py"  # where vLLM has its classes


@pytest.fixture(scope="module")
def engine() -> Iterator[httpx.Client]:
    flags = ["--simulate-tokens-per-second", "0", "--reasoning-parser", "qwen3", "--max-lora-rank", "16"]
    with running(*flags) as (_, client, _):
        yield client


def test_the_same_request_gets_the_same_answer(engine: httpx.Client) -> None:
    assert content(chat(engine)) == content(chat(engine)) == 'You said: "Hello there". This answer is simulated.'


def test_it_says_that_it_is_simulated(engine: httpx.Client) -> None:
    assert engine.get("/health").headers["x-simulated"] == "true"


def test_a_stream_says_what_the_whole_answer_says_and_counts_the_same(engine: httpx.Client) -> None:
    whole = chat(engine)
    chunks = stream(engine, stream_options={"include_usage": True, "continuous_usage_stats": True})
    *parts, last = chunks
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in parts) == content(whole)
    assert parts[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert parts[-1]["choices"][0]["finish_reason"] == "stop"
    assert [chunk["usage"]["completion_tokens"] for chunk in parts[:-1]] == list(range(len(parts) - 1))
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"] == len(parts) - 2


def test_without_being_asked_a_stream_has_no_usage(engine: httpx.Client) -> None:
    assert not any("usage" in chunk for chunk in stream(engine))


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_an_answer_ends_at_its_limit(engine: httpx.Client, limit: str) -> None:
    body = chat(engine, "Hello there", **{limit: 2})
    assert (content(body), body["choices"][0]["finish_reason"]) == ("You said", "length")
    assert body["usage"]["completion_tokens"] == 2


def test_an_answer_ends_before_a_stop_string(engine: httpx.Client) -> None:
    [choice] = chat(engine, stop=["there", "never"])["choices"]
    assert choice["message"]["content"] == 'You said: "Hello '
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "there")


def test_ignoring_the_end_fills_the_limit(engine: httpx.Client) -> None:
    assert chat(engine, ignore_eos=True, max_tokens=50)["usage"]["completion_tokens"] == 50


def test_n_answers_differ(engine: httpx.Client) -> None:
    body = chat(engine, n=6, logprobs=True)
    assert len({content(body, index) for index in range(6)}) == 6
    chunks = stream(engine, n=2)
    assert {chunk["choices"][0]["index"] for chunk in chunks} == {0, 1}


def test_logprobs_tell_of_each_token(engine: httpx.Client) -> None:
    body = chat(engine, logprobs=True, top_logprobs=3)
    tokens = body["choices"][0]["logprobs"]["content"]
    assert "".join(token["token"] for token in tokens) == content(body)
    assert all(bytes(token["bytes"]).decode() == token["token"] for token in tokens)
    assert all(len(token["top_logprobs"]) == 3 and token["logprob"] <= 0 for token in tokens)


def test_json_comes_when_asked_for(engine: httpx.Client) -> None:
    assert "Hello there" in json.loads(content(chat(engine, response_format={"type": "json_object"})))["answer"]
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}
    asked = {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}
    jsonschema.validate(json.loads(content(chat(engine, response_format=asked))), schema)


def test_text_parts_are_read_as_text(engine: httpx.Client) -> None:
    parts = [{"type": "text", "text": "Hello "}, {"type": "text", "text": "there"}]
    body = chat(engine, messages=[{"role": "user", "content": parts}])
    assert content(body) == content(chat(engine))


def test_thoughts_come_first_when_asked_for(engine: httpx.Client) -> None:
    thinking: Json = {"chat_template_kwargs": {"enable_thinking": True}}
    body = chat(engine, **thinking)
    message = body["choices"][0]["message"]
    assert message["reasoning"].startswith("The user said")
    assert message["content"] == content(chat(engine))
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] > 0
    deltas = [chunk["choices"][0]["delta"] for chunk in stream(engine, **thinking)]
    assert "".join(delta.get("reasoning", "") for delta in deltas) == message["reasoning"]
    assert chat(engine)["choices"][0]["message"]["reasoning"] is None


@pytest.mark.parametrize(
    ("text", "choice", "called", "reason"),
    [
        ("What is the weather?", "auto", True, "tool_calls"),
        ("call get_weather", None, True, "tool_calls"),
        ("What can I get?", "auto", False, "stop"),
        ("Hello", "required", True, "tool_calls"),
        ("Hello", {"type": "function", "function": {"name": "get_weather"}}, True, "stop"),  # as vLLM has it
        ("What is the weather?", "none", False, "stop"),
    ],
)
def test_a_tool_is_called_when_it_should_be(
    engine: httpx.Client, text: str, choice: Any, called: bool, reason: str
) -> None:
    fields = {"tools": [WEATHER], **({"tool_choice": choice} if choice else {})}
    [answer] = chat(engine, text, **fields)["choices"]
    assert answer["finish_reason"] == reason
    assert bool(answer["message"].get("tool_calls")) is called
    if called:
        [call] = answer["message"]["tool_calls"]
        assert call["function"]["name"] == "get_weather"
        jsonschema.validate(json.loads(call["function"]["arguments"]), WEATHER["function"]["parameters"])  # type: ignore[index]


def test_a_tools_result_is_answered_in_text(engine: httpx.Client) -> None:
    messages = [*user("What is the weather?"), {"role": "tool", "tool_call_id": "c", "content": "It rains."}]
    assert "It rains." in content(chat(engine, messages=messages, tools=[WEATHER]))


def test_a_streamed_tool_call_names_itself_first(engine: httpx.Client) -> None:
    chunks = stream(engine, "What is the weather?", tools=[WEATHER])
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    first, *rest = [delta["tool_calls"][0] for delta in deltas if "tool_calls" in delta]
    assert first["id"]
    assert first["function"]["name"] == "get_weather"
    assert all(set(part) == {"index", "function"} for part in rest)
    json.loads("".join(part["function"]["arguments"] for part in [first, *rest]))
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_the_openai_package_understands_it() -> None:
    with (
        running() as (_, _, path),
        httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path))) as http_client,
        OpenAI(api_key="none", base_url="http://engine/v1", http_client=http_client, max_retries=0) as client,
    ):
        assert [model.id for model in client.models.list()] == ["base"]
        messages: Any = user("What is the weather?")
        with client.chat.completions.stream(model="base", messages=messages, n=2) as events:
            final = events.get_final_completion()
        assert final.choices[1].message.content
        tools: Any = [WEATHER]
        answer = client.chat.completions.create(model="base", messages=messages, tools=tools)
        assert answer.choices[0].message.tool_calls
        assert answer.usage
        assert answer.usage.prompt_tokens_details


@pytest.mark.engine
def test_its_bodies_have_the_fields_of_vllm_in_their_order(engine: httpx.Client) -> None:
    body = chat(engine, "What is the weather?", tools=[WEATHER])
    assert list(body) == fields_of("ChatCompletionResponse", CHATS)
    assert list(body["choices"][0]) == fields_of("ChatCompletionResponseChoice", CHATS)
    assert list(body["choices"][0]["message"]) == fields_of("ChatMessage", CHATS)
    assert list(body["usage"]) == fields_of("UsageInfo", ALL)
    assert list(engine.get("/v1/models").json()["data"][0]) == fields_of("ModelCard", ALL)
    assert list(engine.post(CHAT, json={}).json()["error"]) == fields_of("ErrorInfo", ALL)


def fields_of(name: str, path: str) -> list[str]:
    """Of a class in vLLM's source: to import it takes ten seconds."""
    found = find_spec("vllm")
    assert found
    assert found.submodule_search_locations
    tree = ast.parse(Path(found.submodule_search_locations[0], "entrypoints", path).read_text())
    [body] = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    return [line.target.id for line in body if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)]
