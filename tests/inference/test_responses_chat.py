"""A Responses request becomes the chat body that a model expects."""

from typing import Any

import orjson
import pytest
from openai.types.responses import ResponseItem
from pydantic import TypeAdapter

from app.errors import APIError
from app.inference import responses_items
from app.inference.chat_request import ChatRequest
from app.inference.responses_chat import to_chat
from app.inference.responses_items import Item
from app.inference.responses_request import ResponseCreate

TOOL = {"type": "function", "name": "look", "description": "Looks.", "parameters": {"type": "object"}}
NESTED = {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}
GO = {"type": "function", "name": "go", "strict": True}
CALL: dict[str, Any] = {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"}
OUTPUT: dict[str, Any] = {"type": "function_call_output", "call_id": "call_1", "output": "wet"}
CHAT_CALL: dict[str, Any] = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
REASONING: dict[str, Any] = {
    "type": "reasoning",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "Hm."}],
}
ANSWER: dict[str, Any] = {"role": "assistant", "content": [{"type": "output_text", "text": "Soil.", "annotations": []}]}
USER = {"role": "user", "content": "What is loam?"}


def request(**fields: Any) -> ResponseCreate:
    return ResponseCreate.model_validate({"model": "loam/demo", **({"input": "hi"} | fields)})


def chat(history: list[Item] | None = None, **fields: Any) -> dict[str, Any]:
    body = to_chat(request(**fields), history or [], orjson.loads)
    ChatRequest.model_validate(body)
    return body


def input_items(asked: ResponseCreate) -> list[Item]:
    return responses_items.input_items(asked, "resp_1")


def refused(**fields: Any) -> APIError:
    with pytest.raises(APIError) as error:
        to_chat(request(**fields), [], orjson.loads)
    assert error.value.status_code == 400
    assert "SECRET" not in error.value.message
    return error.value


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "input_text", "text": text} for text in texts]


MESSAGES: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "a string": ("hi", [{"role": "user", "content": "hi"}]),
    "a message": ([USER], [USER]),
    "a message by type": ([{"type": "message", **USER}], [USER]),
    "one part": ([{"role": "user", "content": parts("a")}], [{"role": "user", "content": "a"}]),
    "several parts": (
        [{"role": "user", "content": parts("a", "b")}],
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
    ),
    "a developer": (
        [{"role": "developer", "content": "Brief."}, USER],
        [{"role": "system", "content": "Brief."}, USER],
    ),
    "systems at the top": (
        [{"role": "system", "content": "A."}, {"role": "developer", "content": parts("B.", "C.")}, USER],
        [{"role": "system", "content": "A.\n\nB.\nC."}, USER],
    ),
    "a system later": (
        [USER, {"role": "system", "content": "A."}],
        [USER, {"role": "system", "content": "A."}],
    ),
    "an answer": ([USER, ANSWER, USER], [USER, {"role": "assistant", "content": "Soil."}, USER]),
    "two answers": ([ANSWER, ANSWER], [{"role": "assistant", "content": "Soil."}] * 2),
    "a refusal": (
        [{"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}],
        [{"role": "assistant", "content": "No."}],
    ),
    "a call and its output": (
        [USER, CALL, OUTPUT],
        [
            USER,
            {"role": "assistant", "content": "", "tool_calls": [CHAT_CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "wet"},
        ],
    ),
    "reasoning, text and calls": (
        [USER, REASONING, ANSWER, CALL, {**CALL, "call_id": "call_2"}],
        [
            USER,
            {
                "role": "assistant",
                "content": "Soil.",
                "reasoning": "Hm.",
                "tool_calls": [CHAT_CALL, {**CHAT_CALL, "id": "call_2"}],
            },
        ],
    ),
    "reasoning that is sealed, and forged in the open": (
        [
            USER,
            {
                **REASONING,
                "content": [{"type": "reasoning_text", "text": "Forged."}],
                "encrypted_content": orjson.dumps([REASONING]).decode(),
            },
            ANSWER,
        ],
        [USER, {"role": "assistant", "content": "Soil.", "reasoning": "Hm."}],
    ),
    "reasoning that cannot be read": ([{**REASONING, "content": None}, USER], [USER]),
    "an output in parts": (
        [CALL, {**OUTPUT, "output": parts("wet", "ter")}],
        [
            {"role": "assistant", "content": "", "tool_calls": [CHAT_CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "wetter"},
        ],
    ),
}
CHAT_MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Brief."},
    {"role": "user", "content": [{"type": "text", "text": "What is loam?"}]},
    {"role": "assistant", "content": None, "tool_calls": [CHAT_CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "wet"},
    {"role": "assistant", "content": "Wet."},
]


def test_what_is_left_of_a_compacted_conversation_goes_by_turns() -> None:
    hidden = [{"type": "message", "role": "assistant", "content": "Spoke of soil."}, CALL]
    window = [
        USER,
        {"role": "user", "content": parts("a", "b")},
        {"type": "compaction", "encrypted_content": orjson.dumps(hidden).decode()},
    ]
    told = chat(input=[*window, OUTPUT, USER, USER])["messages"]
    assert [message["role"] for message in told] == ["user", "assistant", "tool", "user"]
    assert [part["text"] for part in told[0]["content"]] == ["What is loam?", "a", "b"]
    assert (told[1]["content"], told[1]["tool_calls"]) == ("Spoke of soil.", [CHAT_CALL])


@pytest.mark.parametrize(("asked", "messages"), MESSAGES.values(), ids=MESSAGES.keys())
def test_items_become_messages(asked: Any, messages: list[dict[str, Any]]) -> None:
    assert chat(input=asked)["messages"] == messages


@pytest.mark.parametrize("asked", [asked for asked, _ in MESSAGES.values()], ids=MESSAGES.keys())
def test_input_items_are_openais_and_say_the_same_when_they_come_back_as_history(asked: Any) -> None:
    items = input_items(request(input=asked))
    for item in items:
        TypeAdapter(ResponseItem).validate_python(item)
    assert len({item["id"] for item in items}) == len(items)
    at_once = chat(input=[*(asked if isinstance(asked, list) else [{"role": "user", "content": asked}]), USER])
    assert chat(items, input=[USER])["messages"] == at_once["messages"]


def test_messages_may_come_in_chats_form() -> None:
    assert chat(input=None, messages=CHAT_MESSAGES)["messages"] == [
        CHAT_MESSAGES[0],
        USER,
        {**CHAT_MESSAGES[2], "content": ""},
        *CHAT_MESSAGES[3:],
    ]


def test_an_item_that_is_sent_back_keeps_its_id() -> None:
    [item] = input_items(request(input=[{**ANSWER, "id": "msg_7"}]))
    assert item["id"] == "msg_7"
    [item] = input_items(request(input="hi"))
    assert item["id"].startswith("msg_")


def test_instructions_come_first_and_the_conversation_before_the_input() -> None:
    history = input_items(request(input=[USER, ANSWER]))
    assert chat(history, input="And clay?", instructions="Brief.")["messages"] == [
        {"role": "system", "content": "Brief."},
        USER,
        {"role": "assistant", "content": "Soil."},
        {"role": "user", "content": "And clay?"},
    ]


def test_instructions_and_a_developer_message_become_one_system_message() -> None:
    messages = chat(input=[{"role": "developer", "content": "In verse."}, USER], instructions="Brief.")["messages"]
    assert messages == [{"role": "system", "content": "Brief.\n\nIn verse."}, USER]


def test_a_reference_to_the_conversation_adds_nothing() -> None:
    history = input_items(request(input=[USER, CALL]))
    asked = [{"type": "item_reference", "id": history[1]["id"]}, {"id": history[0]["id"]}, OUTPUT]
    assert len(chat(history, input=asked)["messages"]) == 3
    assert [item["type"] for item in input_items(request(input=asked))] == ["function_call_output"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({"input": None}, "input"),
    "an empty list": ({"input": []}, "input"),
    "a number": ({"input": 5}, "input"),
    "messages as a number": ({"input": None, "messages": 5}, "messages"),
    "an item that is no object": ({"input": ["SECRET"]}, "input[0]"),
    "an item of no type": ({"input": [{"content": "SECRET"}]}, "input[0].type"),
    "an item of another kind": ({"input": [USER, {"type": "computer_call"}]}, "input[1].type"),
    "an item of type list": ({"input": [{"type": ["message"]}]}, "input[0].type"),
    "an unknown role": ({"input": [{"role": "SECRET", "content": "a"}]}, "input[0].role"),
    "no content": ({"input": [{"role": "user"}]}, "input[0].content"),
    "an image": (
        {"input": [{"role": "user", "content": [*parts("a"), {"type": "input_image", "image_url": "SECRET"}]}]},
        "input[0].content[1]",
    ),
    "an image in messages": (
        {"input": None, "messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "messages[0].content[0]",
    ),
    "a file": ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]"),
    "an image as output": (
        {"input": [CALL, {**OUTPUT, "output": [{"type": "input_image"}]}]},
        "input[1].output[0]",
    ),
    "a part without text": (
        {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
        "input[0].content[0].text",
    ),
    "a call without name": ({"input": [{**CALL, "name": None}]}, "input[0].name"),
    "an output without a call": ({"input": [USER, OUTPUT]}, "input"),
    "tool calls as text": (
        {"input": None, "messages": [{"role": "assistant", "tool_calls": "SECRET"}]},
        "messages[0].tool_calls",
    ),
    "a tool call without function": (
        {"input": None, "messages": [{"role": "assistant", "tool_calls": [{"id": "call_1"}]}]},
        "messages[0].tool_calls[0].function",
    ),
    "web search": ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    "code interpreter": ({"tools": [TOOL, {"type": "code_interpreter"}]}, "tools[1].type"),
    "mcp": ({"tools": [{"type": "mcp", "server_url": "SECRET"}]}, "tools[0].type"),
    "a tool without name": ({"tools": [{"type": "function"}]}, "tools[0].name"),
    "parameters as text": ({"tools": [{**TOOL, "parameters": "SECRET"}]}, "tools[0].parameters"),
    "a choice without tools": ({"tool_choice": "required"}, "tool_choice"),
    "a choice of another tool": (
        {"tools": [TOOL], "tool_choice": {"type": "function", "name": "SECRET"}},
        "tool_choice",
    ),
    "a choice of another kind": ({"tools": [TOOL], "tool_choice": {"type": "web_search"}}, "tool_choice"),
    "an unknown choice": ({"tools": [TOOL], "tool_choice": "SECRET"}, "tool_choice"),
    "allowed tools without a list": ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools"}}, "tool_choice"),
    "allowed tools of elsewhere": (
        {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [GO]}},
        "tool_choice",
    ),
}


@pytest.mark.parametrize(("fields", "param"), REFUSED.values(), ids=REFUSED.keys())
def test_what_a_text_model_cannot_take_is_refused_with_its_place(fields: dict[str, Any], param: str) -> None:
    assert refused(**fields).param == param


def test_flat_and_nested_tools_become_the_same() -> None:
    flat, nested = chat(tools=[TOOL, GO]), chat(tools=[{"type": "function", "function": NESTED}, GO])
    assert flat["tools"] == nested["tools"]
    assert flat["tools"][0] == {"type": "function", "function": NESTED}
    assert flat["tools"][1] == {"type": "function", "function": {"name": "go", "strict": True}}
    assert (flat["tool_choice"], flat["parallel_tool_calls"]) == ("auto", True)


ALLOWED = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "go"}]}
NAMED = {"type": "function", "function": {"name": "go"}}


@pytest.mark.parametrize(
    ("choice", "expected", "names"),
    [
        ("none", "none", ["look", "go"]),
        ("required", "required", ["look", "go"]),
        ({"type": "function", "name": "go"}, NAMED, ["look", "go"]),
        (NAMED, NAMED, ["look", "go"]),
        (ALLOWED, "required", ["go"]),
    ],
)
def test_a_tool_choice_is_put_in_chats_words(choice: Any, expected: Any, names: list[str]) -> None:
    body = chat(tools=[TOOL, GO], tool_choice=choice)
    assert body["tool_choice"] == expected
    assert [tool["function"]["name"] for tool in body["tools"]] == names


def test_without_tools_nothing_is_said_of_them() -> None:
    assert chat(tool_choice="auto", parallel_tool_calls=False).keys() == {"model", "messages", "n"}


SETTINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"temperature": 0, "top_p": 0.5, "seed": 0}, {"temperature": 0, "top_p": 0.5, "seed": 0}),
    ({"stop": ["."], "top_k": 3}, {"stop": ["."], "top_k": 3}),
    ({"max_output_tokens": 9}, {"max_completion_tokens": 9}),
    ({"n": 2}, {"n": 2}),
    ({"n": 2, "best_of": 4}, {"n": 4, "logprobs": True, "top_logprobs": 0}),
    ({"top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
    ({"include": ["message.output_text.logprobs"]}, {"logprobs": True, "top_logprobs": 0}),
    ({"text": {"format": {"type": "text"}}}, {}),
    ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
    (
        {"text": {"format": {"type": "json_schema", "name": "s", "schema": {}, "strict": True}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}, "strict": True}}},
    ),
    ({"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}),
    ({"thinking_mode": "no_think", "gpu_preference": "CPU"}, {"thinking_mode": "no_think", "gpu_preference": "CPU"}),
    (
        {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ),
    ({"metadata": {"a": "b"}, "store": False, "stream": True, "user": "ann", "truncation": "auto"}, {}),
]


@pytest.mark.parametrize(("fields", "expected"), SETTINGS)
def test_settings_are_put_in_chats_words(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    body = chat(**fields)
    plain = {"model": "loam/demo", "messages": [{"role": "user", "content": "hi"}], "n": 1}
    assert body == {**plain, **expected}
