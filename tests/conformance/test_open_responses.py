"""What Open Responses' own compliance suite asks of a server, of the simulated engine and of the real one."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import orjson
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.asking import events_of, refused
from tests.conformance.cases import FLAT_TOOLS
from tests.conformance.shapes import OPEN_RESPONSES
from tests.servers import Server

Json = dict[str, Any]
Ask = Callable[..., httpx.Response]
Connect = Callable[[], AbstractContextManager[ClientConnection]]

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
def client(request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    server: Server = request.getfixturevalue(request.param)
    with httpx.Client(base_url=server.url, headers=server.new_org().headers, timeout=180) as client:
        yield client


@pytest.fixture
def ask(client: httpx.Client) -> Ask:
    return lambda **body: client.post("/v1/responses", json={"model": "loam/demo", **body})


@pytest.fixture
def compact(client: httpx.Client) -> Ask:
    return lambda **body: client.post("/v1/responses/compact", json={"model": "loam/demo", **body})


@pytest.fixture
def connection(client: httpx.Client) -> Connect:
    """A new WebSocket each time."""
    url = str(client.base_url.copy_with(scheme="ws", path="/v1/responses"))
    headers = {"Authorization": client.headers["Authorization"]}
    return lambda: connect(url, additional_headers=headers)


def whole(response: httpx.Response) -> Json:
    assert response.status_code == 200, response.text
    body: Json = response.json()
    OPEN_RESPONSES.check("ResponseResource", body)
    return body


def streamed(response: httpx.Response) -> list[Json]:
    assert response.status_code == 200, response.text
    events = events_of(response)
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


def turn(socket: ClientConnection, **body: Any) -> Json:
    """The response, its events checked on the way; or the error event."""
    socket.send(orjson.dumps({"type": "response.create", "model": "loam/demo", "store": False, **body}).decode())
    for frame in socket:
        event: Json = orjson.loads(frame)
        if event["type"] == "error":
            OPEN_RESPONSES.check("WebSocketErrorEvent", event)
            return event
        OPEN_RESPONSES.check_event(event)
        if event["type"] in ("response.completed", "response.failed", "response.incomplete"):
            response: Json = event["response"]
            OPEN_RESPONSES.check("ResponseResource", response)
            return response
    raise AssertionError("the connection ended before the turn")


def code_of(told: Json) -> str:
    assert told.get("type") == "error", told
    return str(told["error"]["code"])


def test_responses_come_over_a_websocket_one_after_another(connection: Connect) -> None:
    with connection() as socket:
        responses = [
            turn(socket, input=ASKED["a message"]),
            turn(socket, input="Say: the second."),
            turn(socket, input="Hi"),
        ]
    assert [response["status"] for response in responses] == ["completed"] * 3
    assert len({response["id"] for response in responses}) == 3


def test_a_connection_goes_on_from_what_is_not_stored(connection: Connect) -> None:
    with connection() as socket:
        first = turn(socket, input="The word is cobalt. Say OK.")
        second = turn(socket, input="What is the word?", previous_response_id=first["id"])
    assert second["status"] == "completed"
    assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"]


def test_another_connection_cannot_and_begins_anew(connection: Connect) -> None:
    with connection() as socket:
        first = turn(socket, input="The word is copper. Say OK.")
    with connection() as socket:
        again = turn(socket, input="What is the word?", previous_response_id=first["id"])
        assert code_of(again) == "previous_response_not_found"
        assert turn(socket, input=ASKED["a message"])["status"] == "completed"


def test_what_never_was_cannot_be_gone_on_from(connection: Connect) -> None:
    with connection() as socket:
        told = turn(socket, input="Hi", previous_response_id="resp_that_never_was")
    assert (code_of(told), told["status"]) == ("previous_response_not_found", 400)


def test_a_failed_turn_is_no_longer_gone_on_from(connection: Connect) -> None:
    stray = {"type": "function_call_output", "call_id": "call_that_never_was", "output": "Nothing."}
    with connection() as socket:
        first = turn(socket, input="The word is ember. Say OK.")
        assert turn(socket, input=[stray], previous_response_id=first["id"])["status"] == 400
        again = turn(socket, input="What is the word?", previous_response_id=first["id"])
    assert code_of(again) == "previous_response_not_found"


TO_COMPACT: list[Json] = [
    {"type": "message", "role": "user", "content": "We agreed to meet on Tuesday; tell the cook first."},
    {"type": "message", "role": "assistant", "content": "I see: Tuesday, and the cook hears of it before."},
]


def test_a_conversation_is_compacted(compact: Ask) -> None:
    response = compact(input=TO_COMPACT, prompt_cache_key="open-responses")
    assert response.status_code == 200, response.text
    OPEN_RESPONSES.check("CompactResource", response.json())
    assert [item["type"] for item in response.json()["output"]] == ["message", "compaction"]


def test_a_compacted_window_begins_a_new_chain(compact: Ask, connection: Connect) -> None:
    window = compact(input=TO_COMPACT).json()["output"]
    with connection() as socket:
        response = turn(socket, input=[*window, {"type": "message", "role": "user", "content": "When?"}], tools=[])
    assert response["status"] == "completed"


def test_compacting_needs_a_model(compact: Ask) -> None:
    refused(compact(model=None, input=TO_COMPACT), 400, param="model")
