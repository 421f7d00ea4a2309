"""What Open Responses' own compliance suite asks of a server over HTTP, of the simulated engine and of the real one.

Left out are its cases of WebSockets and of `/responses/compact`, which this server does not have.
"""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import orjson
import pytest

from tests.asking import data_lines, refused
from tests.conformance.cases import FLAT_TOOLS
from tests.conformance.shapes import OPEN_RESPONSES
from tests.servers import Server

Json = dict[str, Any]
Ask = Callable[..., httpx.Response]

PIXEL = "data:image/png;base64,iVBORw0KGgo="
ASKED: dict[str, list[Json]] = {
    "a message": [{"type": "message", "role": "user", "content": "Greet me in three words."}],
    "a system message first": [
        {"type": "message", "role": "system", "content": "You are a sailor and speak like one."},
        {"type": "message", "role": "user", "content": "Greet me."},
    ],
    "a developer message first": [
        {"type": "message", "role": "developer", "content": "Be brief."},
        {"type": "message", "role": "user", "content": "Greet me."},
    ],
    "several turns": [
        {"type": "message", "role": "user", "content": "I am called Ada."},
        {"type": "message", "role": "assistant", "content": "Good day, Ada. What can I do for you?"},
        {"type": "message", "role": "user", "content": "What am I called?"},
    ],
    "earlier answers with phases": [
        {"type": "message", "role": "assistant", "phase": "commentary", "content": "I shall look it up."},
        {"type": "message", "role": "assistant", "phase": "final_answer", "content": "It is seven."},
        {"type": "message", "role": "user", "content": "Say the number again."},
    ],
}
WEATHER: Json = {"input": [{"type": "message", "role": "user", "content": "What is the weather in Rome?"}]}


@pytest.fixture(params=["simulated", pytest.param("real", marks=pytest.mark.engine)])
def ask(request: pytest.FixtureRequest) -> Iterator[Ask]:
    server: Server = request.getfixturevalue(request.param)
    with httpx.Client(base_url=server.url, headers=server.new_org().headers, timeout=180) as client:
        yield lambda **body: client.post("/v1/responses", json={"model": "loam/demo", **body})


def whole(response: httpx.Response) -> Json:
    assert response.status_code == 200, response.text
    body: Json = response.json()
    OPEN_RESPONSES.check("ResponseResource", body)
    return body


def streamed(response: httpx.Response) -> list[Json]:
    assert response.status_code == 200, response.text
    events = [orjson.loads(line) for line in data_lines(response.text)]
    for event in events:
        OPEN_RESPONSES.check_event(event)
    OPEN_RESPONSES.check("ResponseResource", events[-1]["response"])
    return events


@pytest.mark.parametrize("items", ASKED.values(), ids=ASKED.keys())
def test_a_conversation_is_answered(ask: Ask, items: list[Json]) -> None:
    response = whole(ask(input=items))
    assert response["status"] == "completed"
    assert [item["type"] for item in response["output"]] == ["message"]


def test_an_answer_is_streamed(ask: Ask) -> None:
    events = streamed(ask(input=ASKED["a message"], stream=True))
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert events[-1]["response"]["status"] == "completed"
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "".join(deltas) != ""


def test_a_function_is_called(ask: Ask) -> None:
    response = whole(ask(**WEATHER, tools=FLAT_TOOLS))
    assert "function_call" in [item["type"] for item in response["output"]]


def test_a_streamed_call_is_added_written_and_done(ask: Ask) -> None:
    events = streamed(ask(**WEATHER, tools=FLAT_TOOLS, stream=True))
    told = [(event["type"], event.get("item", {}).get("type", "function_call")) for event in events]
    order = ("output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done")
    places = [told.index((f"response.{name}", "function_call")) for name in order]
    assert places == sorted(places)


def test_an_image_is_refused_by_a_text_model_in_words_and_with_its_place(ask: Ask) -> None:
    content = [{"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": PIXEL}]
    response = ask(input=[{"type": "message", "role": "user", "content": content}])
    body = refused(response, 400, param="input[0].content[1]")
    assert "text model" in body["detail"]
