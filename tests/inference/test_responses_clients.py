"""A Response and its events are valid by openai's own types, and its stream helper builds the same from them."""

from typing import Any

import httpx2
import pytest
from openai import OpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from app.inference.responses_retold import retold
from app.inference.responses_stream import encode, finished_response
from app.inference.responses_told import output_told
from tests.inference.vllm_chunks import CUT, STREAMS, USAGE, all_events, final, machine

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


@pytest.mark.parametrize("chunks", STREAMS.values(), ids=STREAMS.keys())
def test_every_event_is_one_of_openai_and_they_are_counted_without_gaps(chunks: list[dict[str, Any]]) -> None:
    events = list(all_events(chunks))
    for event in events:
        assert EVENT.validate_python(event).type == event["type"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["type"] == f"response.{events[-1]['response']['status']}"
    Response.model_validate(events[-1]["response"])


@pytest.mark.parametrize("chunks", STREAMS.values(), ids=STREAMS.keys())
def test_deltas_and_done_events_add_up_to_the_final_object(chunks: list[dict[str, Any]]) -> None:
    texts: dict[int, str] = {}
    done: dict[int, Any] = {}
    for event in all_events(chunks):
        if event["type"].endswith(".delta"):
            texts[event["output_index"]] = texts.get(event["output_index"], "") + event["delta"]
        if event["type"] == "response.output_item.done":
            done[event["output_index"]] = event["item"]
    output = event["response"]["output"]
    assert [done[index] for index in range(len(output))] == output
    for index, item in enumerate(output):
        text = item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
        assert texts.get(index, "") == text


def client_for(chunks: list[dict[str, Any]]) -> OpenAI:
    body = b"".join(encode(event) for event in all_events(chunks)) + b"data: [DONE]\n\n"
    headers = {"content-type": "text/event-stream"}
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, headers=headers, content=body))
    return OpenAI(api_key="k", base_url="http://loam.test/v1", http_client=httpx2.Client(transport=transport))


@pytest.mark.parametrize("name", [name for name in STREAMS if not name.startswith("cut")])
def test_openais_stream_helper_builds_the_same_response(name: str) -> None:
    with (
        client_for(STREAMS[name]) as client,
        client.responses.stream(model="loam/demo", input="What is loam?") as stream,
    ):
        response = stream.get_final_response()
    expected = final(STREAMS[name])
    assert response.status == "completed"
    assert response.output_text == expected["output_text"]
    assert [item.type for item in response.output] == [item["type"] for item in expected["output"]]


def test_openais_stream_helper_passes_on_an_answer_that_was_cut() -> None:
    with (
        client_for(CUT) as client,
        client.responses.stream(model="loam/demo", input="What is loam?") as stream,
    ):
        *_, last = stream
    assert last.type == "response.incomplete"
    assert last.response.output_text == "Loam is a"


@pytest.mark.parametrize("chunks", STREAMS.values(), ids=STREAMS.keys())
def test_a_finished_response_is_told_again_as_openais_events(chunks: list[dict[str, Any]]) -> None:
    response = final(chunks)
    events = retold(response)
    for event in events:
        assert EVENT.validate_python(event).type == event["type"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert output_told(events[:-1]) == response["output"]
    assert list(dict.fromkeys(e["type"] for e in events)) == list(dict.fromkeys(e["type"] for e in all_events(chunks)))
    assert events[-1]["response"] == response


def completion_of(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole completion that these chunks, of one choice, are the stream of."""
    choices = [choice for part in chunks for choice in part["choices"]]
    deltas = [choice["delta"] for choice in choices]
    calls: dict[int, Any] = {}
    for call in [call for delta in deltas for call in delta.get("tool_calls", ())]:
        known = calls.setdefault(call["index"], {**call, "function": {**call["function"], "arguments": ""}})
        known["function"]["arguments"] += call["function"]["arguments"]
    tokens = [token for choice in choices if choice["logprobs"] for token in choice["logprobs"]["content"]]
    message = {
        "role": "assistant",
        "content": "".join(delta.get("content") or "" for delta in deltas) or None,
        "reasoning": "".join(delta.get("reasoning") or "" for delta in deltas) or None,
        "tool_calls": list(calls.values()),
    }
    logprobs = {"content": tokens} if tokens else None
    reason = choices[-1]["finish_reason"]
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": reason}
    return {"object": "chat.completion", "choices": [choice], "usage": USAGE}


def without_ids(response: dict[str, Any]) -> dict[str, Any]:
    output = [{name: value for name, value in item.items() if name != "id"} for item in response["output"]]
    return {**response, "output": output}


@pytest.mark.parametrize("name", [name for name in STREAMS if name != "two answers"])
def test_a_whole_completion_gives_the_response_its_stream_gives(name: str) -> None:
    whole = finished_response(machine().response, completion_of(STREAMS[name]), clock=lambda: 1705.9)
    assert without_ids(whole) == without_ids(final(STREAMS[name]))
