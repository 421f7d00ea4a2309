"""What a training row may be, and in which words a wrong one is refused."""

import json
from typing import Any

import orjson
import pytest

from app.files.training_row import RowError, check_row, parse

CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "soil"}'}}
USER = {"role": "user", "content": "What is loam?"}
ANSWER = {"role": "assistant", "content": "A soil of sand, silt and clay."}
ASKING = {"role": "assistant", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "wet"}
ROW = {"messages": [USER, ANSWER]}
LINE = orjson.dumps(ROW)


def row(*messages: Any, **fields: Any) -> dict[str, Any]:
    return {"messages": list(messages), **fields}


def assistant(**fields: Any) -> dict[str, Any]:
    return row(USER, {"role": "assistant", **fields})


def called(**function: Any) -> dict[str, Any]:
    return assistant(content=None, tool_calls=[{**CALL, "function": function}])


GOOD_ROWS: dict[str, dict[str, Any]] = {
    "plain": ROW,
    "system": row({"role": "system", "content": "Be brief."}, USER, ANSWER),
    "developer": row({"role": "developer", "content": "Be brief."}, USER, ANSWER),
    "several turns": row(USER, ANSWER, USER, ANSWER),
    "ends with a question": row(USER, ANSWER, USER),
    "no question": row(ANSWER),
    "weights": row(USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 1}),
    "weight null": row(USER, {**ANSWER, "weight": None}),
    "one weight left out": row(USER, {**ANSWER, "weight": 0}, USER, ANSWER),
    "text parts": row(
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": ""}]}, ANSWER
    ),
    "assistant text parts": assistant(content=[{"type": "text", "text": "a"}]),
    "emoji": assistant(content="🌱👩‍🌾"),
    "right-to-left": assistant(content="תרבה \u202b طفال"),
    "line separators": assistant(content="a\u2028b\u2029c\u0085d\x0be"),
    "template syntax": assistant(content="{{ 1/0 }} {% raw %} ${x} %s"),
    "control tokens": assistant(content="<|im_end|><|im_start|>system"),
    "written NUL": assistant(content="\\u0000 is an escape"),
    "tool call": row(USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}),
    "tool call without content": assistant(tool_calls=[CALL]),
    "tool call with text": assistant(content="Let me see.", tool_calls=[CALL]),
    "tool call with an object of arguments": called(name="look", arguments={"at": "soil"}),
    "tool call without id": assistant(tool_calls=[{"function": {"name": "look", "arguments": "{}"}}]),
    "empty tool calls": assistant(content="No.", tool_calls=[]),
    "tool result": row(USER, ASKING, RESULT, ANSWER),
    "tools": row(
        USER,
        ANSWER,
        tools=[{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
    ),
    "flat tools": row(USER, ANSWER, tools=[{"type": "function", "name": "look", "parameters": {}}, {"name": "go"}]),
    "an empty answer that is not learned": row(USER, {"role": "assistant", "weight": 0}, USER, ANSWER),
    "no tools": row(USER, ANSWER, tools=None, parallel_tool_calls=None),
    "parallel tool calls": row(USER, ANSWER, tools=[{"name": "look"}], parallel_tool_calls=False),
    "other keys": row({**USER, "name": "ann", "x": 1.5}, ANSWER, prompt="p", completion="c", id=7, deep=[[[{}]]]),
    "many objects side by side": row(USER, ANSWER, many=[{} for _ in range(500)]),
}


@pytest.mark.parametrize("fields", GOOD_ROWS.values(), ids=GOOD_ROWS.keys())
@pytest.mark.parametrize("ascii_only", [True, False], ids=["escaped", "utf-8"])
def test_a_good_row_passes(fields: dict[str, Any], ascii_only: bool) -> None:
    check_row(parse(json.dumps(fields, ensure_ascii=ascii_only).encode()))


NO_ANSWER = "messages[1] is an assistant message without content or tool calls"
NO_TEXT = "messages[0].content must be a string or a list of text parts"
CALLED = "messages[1].tool_calls[0].function"
BAD_ROWS: list[tuple[Any, str]] = [
    (None, "must be an object (got null)"),
    ("messages", "must be an object (got string)"),
    ([ROW], "must be an object (got list)"),
    (7, "must be an object (got number)"),
    ({}, "messages is missing"),
    ({"prompt": "a", "completion": "b"}, "this is a prompt/completion row"),
    ({"chosen": [], "rejected": []}, "this is a preference pair"),
    ({"input": {}, "preferred_output": [], "non_preferred_output": []}, "this is a preference pair"),
    ({"conversations": []}, "this is a ShareGPT row"),
    ({"instruction": "a", "output": "b"}, "this is an instruction row"),
    ({"text": "a"}, "this is a plain-text row"),
    ({"messages": None}, "messages must be a list of messages (got null)"),
    ({"messages": {}}, "messages must be a list of messages (got object)"),
    ({"messages": []}, "messages must be a list of messages (got an empty one)"),
    (row("hi"), "messages[0] must be an object (got string)"),
    (row({"content": "a"}), "messages[0].role must be one of"),
    (row({**USER, "role": "robot"}, ANSWER), "messages[0].role must be one of system, developer, user"),
    (row({**USER, "role": ["user"]}, ANSWER), "(got list)"),
    (row({"role": "user"}, ANSWER), f"{NO_TEXT} (got nothing)"),
    (row({**USER, "content": 5}, ANSWER), f"{NO_TEXT} (got number)"),
    (row({**USER, "content": None}, ANSWER), "(got null)"),
    (row({**USER, "content": {"text": "a"}}, ANSWER), "(got object)"),
    (row({**USER, "content": ["a"]}, ANSWER), "messages[0].content[0] must be a text part (got string)"),
    (
        row({**USER, "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, ANSWER),
        "messages[0].content[0] must be a text part: images",
    ),
    (
        row({**USER, "content": [{"type": "text", "text": 1}]}, ANSWER),
        "messages[0].content[0].text must be a string (got number)",
    ),
    (row({**USER, "content": [{"type": "text"}]}, ANSWER), "content[0].text must be a string (got nothing)"),
    (row(USER), "messages has no assistant message"),
    (assistant(), NO_ANSWER),
    (assistant(content=None), NO_ANSWER),
    (assistant(content=""), NO_ANSWER),
    (assistant(content=" \n"), NO_ANSWER),
    (assistant(content=[]), NO_ANSWER),
    (assistant(content="", tool_calls=[]), NO_ANSWER),
    (assistant(content=3), "messages[1].content must be a string"),
    (assistant(tool_calls="look"), "messages[1].tool_calls must be a list (got string)"),
    (assistant(tool_calls=["look"]), "messages[1].tool_calls[0] must be an object (got string)"),
    (assistant(tool_calls=[{**CALL, "id": 1}]), "messages[1].tool_calls[0].id must be a string (got number)"),
    (
        assistant(tool_calls=[{**CALL, "type": "web_search"}]),
        "messages[1].tool_calls[0].type must be function",
    ),
    (
        assistant(tool_calls=[{"id": "call_1"}]),
        "messages[1].tool_calls[0].function must be an object (got nothing)",
    ),
    (called(arguments="{}"), f"{CALLED}.name must be a name (got nothing)"),
    (called(name="", arguments="{}"), f"{CALLED}.name must be a name (got an empty string)"),
    (called(name="look"), f"{CALLED}.arguments must be a JSON object (got nothing)"),
    (called(name="look", arguments=""), f"{CALLED}.arguments must be JSON"),
    (called(name="look", arguments="at: soil"), f"{CALLED}.arguments must be JSON"),
    (called(name="look", arguments='{"at": NaN}'), f"{CALLED}.arguments must be JSON"),
    (called(name="look", arguments="[" * 5000), "nested too deeply"),
    (called(name="look", arguments='"soil"'), "function.arguments must be a JSON object (got string)"),
    (row(USER, RESULT, ANSWER), "messages[1] is a tool result without a tool call"),
    (
        row(USER, ASKING, {**RESULT, "tool_call_id": "call_2"}),
        "messages[2] is a tool result without a tool call",
    ),
    (
        row(USER, ASKING, {**RESULT, "tool_call_id": 1}),
        "messages[2].tool_call_id must be a string (got number)",
    ),
    (row(USER, {**ANSWER, "weight": 2}), "messages[1].weight must be 0 or 1"),
    (row(USER, {**ANSWER, "weight": True}), "messages[1].weight must be 0 or 1"),
    (row(USER, {**ANSWER, "weight": "1"}), "messages[1].weight must be 0 or 1"),
    (
        row(USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 0}),
        "every assistant message has weight 0",
    ),
    (row(USER, ANSWER, tools={}), "tools must be a list (got object)"),
    (row(USER, ANSWER, tools=["look"]), "tools[0] must be an object (got string)"),
    (row(USER, ANSWER, tools=[{"type": "retrieval"}]), "tools[0].type must be function"),
    (
        row(USER, ANSWER, tools=[{"type": "function", "function": {}}]),
        "tools[0].function.name must be a name (got nothing)",
    ),
    (
        row(USER, ANSWER, tools=[{"name": "look", "parameters": "x"}]),
        "tools[0].parameters must be an object (got string)",
    ),
    (row(USER, ANSWER, parallel_tool_calls="no"), "parallel_tool_calls must be a boolean (got string)"),
    (row({**USER, "x": "a\x00b"}, ANSWER), "a NUL character"),
]


@pytest.mark.parametrize(("fields", "message"), BAD_ROWS)
def test_a_bad_row_is_refused_with_the_reason(fields: Any, message: str) -> None:
    with pytest.raises(RowError) as refused:
        check_row(parse(json.dumps(fields).encode()))
    assert message in str(refused.value)
    assert len(str(refused.value)) < 200


def at_depth(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return LINE[:-1] + b', "deep": ' + opening * depth + b"1" + closing * depth + b"}"


BAD_LINES: dict[str, tuple[bytes, str]] = {
    "not JSON": (b"hello, Loam", "not valid JSON"),
    "single quotes": (b"{'messages': []}", "not valid JSON"),
    "trailing comma": (LINE + b",", "more than one JSON value on the line"),
    "two objects": (LINE + b" " + LINE, "more than one JSON value on the line"),
    "cut off": (LINE[:-9], "breaks off"),
    "raw control character": (LINE.replace(b"What", b"Wh\x01t"), "not valid JSON"),
    "raw NUL": (LINE.replace(b"What", b"Wh\x00t"), "NUL"),
    "NaN": (b'{"x": NaN, ' + LINE[1:], "not valid JSON"),
    "Infinity": (b'{"x": -Infinity, ' + LINE[1:], "not valid JSON"),
    "huge integer": (b'{"x": ' + b"9" * 5000 + b", " + LINE[1:], "a number is too large"),
    "huge float": (b'{"x": 1e999, ' + LINE[1:], "a number is too large"),
    "lone surrogate": (LINE.replace(b"What", b"\\ud83c"), "surrogate"),
    "reversed surrogates": (LINE.replace(b"What", b"\\udf31\\ud83c"), "surrogate"),
    "raw surrogate": (LINE.replace(b"What", b"\xed\xa0\xbc"), "not valid UTF-8"),
    "invalid UTF-8": (LINE.replace(b"What", b"\xff"), "not valid UTF-8"),
    "latin-1": (LINE.replace(b"What", "Grüße".encode("latin-1")), "not valid UTF-8"),
    "nested": (at_depth(100), "nested too deeply"),
    "nested beyond a parser": (at_depth(100_000), "nested too deeply"),
    "nested objects": (at_depth(990, b'{"a":', b"}"), "nested too deeply"),
    "unclosed": (b"[" * 100_000, "nested too deeply"),
    "BOM in the middle": (b"\xef\xbb\xbf" + LINE, "not valid JSON"),
}


@pytest.mark.parametrize(("line", "message"), BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_line_that_cannot_be_read_is_refused(line: bytes, message: str) -> None:
    with pytest.raises(RowError) as refused:
        check_row(parse(line))
    assert message in str(refused.value)
    assert len(str(refused.value)) < 200


def test_nesting_below_the_limit_passes() -> None:
    check_row(parse(at_depth(90)))
