"""A chat's messages, judged and made an engine's without one."""

from typing import Any

import pytest

from app.errors import BadRequest
from app.inference.messages import check_messages, for_engine

USER = {"role": "user", "content": "Hi"}


def call(**fields: Any) -> dict[str, Any]:
    return {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}, **fields}


def called(*calls: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


def arguments(text: Any) -> dict[str, Any]:
    return called(call(function={"name": "f", "arguments": text}))


@pytest.mark.parametrize(
    "message",
    [
        USER,
        {"role": "user", "content": []},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "no"}]},
        {"role": "user", "content": "Hi", "name": None},
        {"role": "assistant"},
        {"role": "assistant", "content": None, "tool_calls": None, "refusal": None, "audio": None},
        {"role": "assistant", "content": "Yes", "tool_calls": []},
        called(call(), call(id="d", type=None)),
        arguments("{no JSON"),
        {"role": "tool", "tool_call_id": "c", "content": "ok"},
        {"role": "function", "name": "f", "content": None},
    ],
)
def test_a_well_formed_message_passes(message: dict[str, Any]) -> None:
    check_messages([message])


@pytest.mark.parametrize(
    ("message", "where"),
    [
        ({"role": ["user"], "content": "Hi"}, ""),
        ({"role": "user"}, ".content"),
        ({"role": "user", "content": None}, ".content"),
        ({"role": "system", "content": None}, ".content"),
        ({"role": "tool", "tool_call_id": "c", "content": None}, ".content"),
        ({"role": "tool", "tool_call_id": 5, "content": "ok"}, ".tool_call_id"),
        ({"role": "user", "content": "Hi", "name": 5}, ".name"),
        ({"role": "assistant", "content": "Hi", "reasoning": ["a"]}, ".reasoning"),
        ({"role": "assistant", "tool_calls": "f"}, ".tool_calls"),
        (called("f"), ".tool_calls[0]"),
        (called(call(), None), ".tool_calls[1]"),
        (called({"id": "c", "type": "custom", "custom": {"name": "f", "input": "x"}}), ".tool_calls[0]"),
        (called(call(function="f")), ".tool_calls[0]"),
        (called(call(id=None)), ".tool_calls[0].id"),
        (called(call(function={"arguments": "{}"})), ".tool_calls[0].function.name"),
        (arguments(None), ".tool_calls[0].function.arguments"),
        (arguments({"a": 1}), ".tool_calls[0].function.arguments"),
        (arguments('{"a":' * 101 + "1" + "}" * 101), ".tool_calls[0].function.arguments"),
    ],
)
def test_a_malformed_message_is_refused_at_its_place(message: dict[str, Any], where: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        check_messages([USER, message])
    assert refusal.value.param == f"messages[1]{where}"


def test_an_engine_is_sent_what_it_knows_of_a_message_and_no_nulls() -> None:
    parts = [{"type": "text", "text": "Hi", "cache_control": {}}, {"type": "refusal", "refusal": "no", "text": None}]
    sent = for_engine({"role": "user", "content": parts, "name": None, "tools": [{}], "task": "x"})
    assert sent == {
        "role": "user",
        "content": [{"type": "text", "text": "Hi"}, {"type": "refusal", "refusal": "no"}],
    }
    assert for_engine(called(call(type=None, index=0))) == {"role": "assistant", "tool_calls": [call()]}
    thought = {"role": "assistant", "content": "Yes", "reasoning": "Hm"}
    assert for_engine({**thought, "tool_calls": [], "function_call": None}) == thought


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{no",
        "[" * 5000 + "]" * 5000,
        f'{{"a": {"9" * 5000}}}',
        r'{"a": "\ud800"}',
        '{"a": NaN}',
        "5",
        "[1]",
        "null",
    ],
)
def test_arguments_that_an_engine_would_fail_at_are_none(text: str) -> None:
    message = arguments(text)
    check_messages([message])
    assert for_engine(message)["tool_calls"][0]["function"]["arguments"] == "{}"
