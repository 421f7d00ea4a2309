"""Chunks become events: which, in what order, and what the Response holds at the end."""

from typing import Any

import orjson
import pytest
from openai.types.responses import Response

from app.inference.responses_object import new_response
from app.inference.responses_request import ResponseCreate
from app.inference.responses_stream import ResponseEvents, encode
from tests.inference.vllm_chunks import (
    BLANK,
    CALLS,
    CUT,
    CUT_IN_THOUGHT,
    EMPTY,
    LAST,
    LOGPROBS,
    ROLE,
    TEXT,
    TEXT_AND_CALL,
    THOUGHT,
    TWO,
    all_events,
    call_chunk,
    chunk,
    final,
    machine,
)


def types(chunks: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in all_events(chunks)]


def test_text_comes_as_one_message() -> None:
    assert types(TEXT) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    response = final(TEXT)
    assert response["output_text"] == "Loam is soil."
    assert (response["status"], response["created_at"], response["completed_at"]) == ("completed", 1700, 1705)
    assert response["usage"] == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 14,
    }


def test_a_thought_comes_as_an_item_before_the_message() -> None:
    assert types(THOUGHT)[2:] == [
        "output_item.added",
        "content_part.added",
        *["reasoning_text.delta"] * 3,
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    thought, message = final(THOUGHT)["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "Soil? Yes."}]
    assert message["content"][0]["text"] == "\n\nSoil."


def test_calls_come_as_items_and_blanks_before_them_are_no_message() -> None:
    assert types(CALLS)[2:] == [
        "output_item.added",
        *["function_call_arguments.delta"] * 2,
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    calls = final(CALLS)["output"]
    assert [(call["call_id"], call["name"], call["arguments"], call["status"]) for call in calls] == [
        ("call_0", "look", '{"at": "soil"}', "completed"),
        ("call_1", "look", '{"at": "sky"}', "completed"),
    ]


def test_text_before_a_call_is_a_message() -> None:
    output = final([*TEXT_AND_CALL, LAST])["output"]
    assert [item["type"] for item in output] == ["message", "function_call"]


def test_each_of_several_answers_is_a_message() -> None:
    response = final(TWO)
    assert [item["content"][0]["text"] for item in response["output"]] == ["one!", "two?"]
    assert response["output_text"] == "one!two?"


@pytest.mark.parametrize(("chunks", "text"), [(EMPTY, ""), (BLANK, "\n ")])
def test_an_answer_of_nothing_is_still_a_message(chunks: list[dict[str, Any]], text: str) -> None:
    [message] = final(chunks)["output"]
    assert message["content"][0]["text"] == text


@pytest.mark.parametrize(("chunks", "kind"), [(CUT, "message"), (CUT_IN_THOUGHT, "reasoning")])
def test_an_answer_that_was_cut_is_incomplete(chunks: list[dict[str, Any]], kind: str) -> None:
    response = final(chunks)
    assert response["status"] == "incomplete"
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["completed_at"] is None
    assert [(item["type"], item["status"]) for item in response["output"]] == [(kind, "incomplete")]


def test_logprobs_come_with_the_text_they_belong_to() -> None:
    deltas = [event for event in all_events(LOGPROBS) if event["type"] == "response.output_text.delta"]
    assert [[entry["token"] for entry in delta["logprobs"]] for delta in deltas] == [["L", "o"], ["~", "a", "m"]]
    [part] = final(LOGPROBS)["output"][0]["content"]
    assert "".join(entry["token"] for entry in part["logprobs"]) == "Lo~am"
    assert part["logprobs"][0]["top_logprobs"][1] == {"token": "x", "bytes": [120], "logprob": -9999.0}


def test_a_stream_that_breaks_off_is_a_failure() -> None:
    *_, last = all_events(TEXT[:3])
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["code"] == "server_error"
    assert last["response"]["output_text"] == "Loam is soil."
    assert [item["status"] for item in last["response"]["output"]] == ["incomplete"]
    assert last["response"]["usage"]["output_tokens"] == 2
    Response.model_validate(last["response"])


@pytest.mark.parametrize("chunks", [[], [ROLE], [chunk(content="a", finish_reason="abort")], TWO[:5]])
def test_what_the_engine_did_not_end_never_looks_like_success(chunks: list[dict[str, Any]]) -> None:
    *_, last = all_events(chunks)
    assert last["type"] == "response.failed"


def test_nothing_follows_the_end() -> None:
    events = machine()
    events.start()
    [failed] = events.fail("The engine went away.", "engine_gone")
    assert failed["response"]["error"] == {"code": "server_error", "message": "The engine went away."}
    assert [*events.feed(TEXT[1]), *events.finish(), *events.fail("Again.")] == []
    assert events.response == failed["response"]


def test_the_choices_of_a_stream_without_a_last_usage_are_added_up() -> None:
    assert final(TWO[:-1])["usage"]["output_tokens"] == 4


def test_a_background_response_is_queued_first() -> None:
    request = ResponseCreate.model_validate({"model": "m", "input": "a", "background": True})
    events = ResponseEvents(new_response(request, response_id="resp_1", created_at=1, status="queued"))
    started = [*events.queue(), *events.start()]
    assert [event["type"] for event in started] == [
        "response.created",
        "response.queued",
        "response.in_progress",
    ]
    assert [event["response"]["status"] for event in started] == ["queued", "queued", "in_progress"]


CALLED = {
    "one at a time": ({"parallel_tool_calls": False}, ["first"]),
    "at most one": ({"max_tool_calls": 1}, ["first"]),
    "at most two": ({"max_tool_calls": 2}, ["first", "second"]),
    "as many as it likes": ({}, ["first", "second", "third"]),
}


@pytest.mark.parametrize(("fields", "names"), CALLED.values(), ids=CALLED.keys())
def test_calls_beyond_the_limits_are_ignored(fields: dict[str, Any], names: list[str]) -> None:
    calls = [call_chunk("{}", name=name, index=i) for i, name in enumerate(("first", "second", "third"))]
    *_, last = all_events([ROLE, *calls, chunk(finish_reason="tool_calls"), LAST], **fields)
    output = last["response"]["output"]
    assert [(item["name"], item["arguments"]) for item in output] == [(name, "{}") for name in names]
    assert last["type"] == "response.completed"


def test_several_answers_share_the_limit_of_calls() -> None:
    calls = [call_chunk("{}", name="look", choice=i) for i in range(2)]
    ends = [chunk(index=i, finish_reason="tool_calls") for i in range(2)]
    *_, last = all_events([ROLE, *calls, *ends, LAST], max_tool_calls=1, n=2)
    assert [item["type"] for item in last["response"]["output"]] == ["function_call", "message"]


def test_events_are_not_changed_by_what_comes_later() -> None:
    events = machine()
    early = [*events.start(), *events.feed(TEXT[1])]
    before = orjson.dumps(early)
    for part in TEXT[2:]:
        events.feed(part)
    events.finish()
    assert orjson.dumps(early) == before


def test_an_event_is_written_as_one_line_of_data_under_its_name() -> None:
    event = {"type": "response.output_text.delta", "sequence_number": 4, "delta": "a\n\nb"}
    expected = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":4,'
    assert encode(event) == expected + b'"delta":"a\\n\\nb"}\n\n'
