"""The WebSocket of /responses over the simulated engine."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from httpx import AsyncClient
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from app.inference.responses_socket import MAX_WAITING
from tests.asking import CHAT, MODEL, chat_body, events_of, ledger_of, ok, spend_everything
from tests.eventually import eventually
from tests.inference.sockets import connected, create, receive, rest_of_turn, turn
from tests.real.engines import count_generated, count_running
from tests.servers import Server, TestOrg, running_server

pytestmark = pytest.mark.anyio

Json = dict[str, Any]
RESPONSES = "/v1/responses"


@pytest.fixture
async def socket(simulated: Server, org: TestOrg) -> AsyncIterator[ClientConnection]:
    async with connected(simulated.url, org.headers) as socket:
        yield socket


@pytest.fixture
async def http(simulated: Server, org: TestOrg) -> AsyncIterator[AsyncClient]:
    """Of the same organisation."""
    async with AsyncClient(base_url=simulated.url, headers=org.headers, timeout=30) as client:
        yield client


@pytest.mark.parametrize("prefix", ["/v1", "/api", "/api/v1"])
async def test_a_turn_has_the_events_of_a_stream(
    simulated: Server, org: TestOrg, http: AsyncClient, prefix: str
) -> None:
    async with connected(simulated.url, org.headers, f"{prefix}/responses") as socket:
        await create(socket)
        events = await rest_of_turn(socket)
    streamed = await http.post(RESPONSES, json={"model": MODEL, "input": "Hello there", "stream": True})
    assert [event["type"] for event in events] == [event["type"] for event in events_of(streamed)]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    stored = ok(await http.get(f"{RESPONSES}/{events[-1]['response']['id']}"))
    assert stored == events[-1]["response"]


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({}, ""),
        ({"Authorization": "Bearer sk-loam-wrong"}, ""),
        ({}, "?api_key={key}"),
        ({}, "?key={key}&authorization=Bearer%20{key}"),
        ({"Sec-WebSocket-Protocol": "openai-insecure-api-key.{key}"}, ""),
        ({"Cookie": "key={key}"}, ""),
    ],
)
async def test_without_a_key_in_its_header_there_is_no_connection(
    simulated: Server, org: TestOrg, headers: dict[str, str], query: str
) -> None:
    filled = {name: value.replace("{key}", org.key) for name, value in headers.items()}
    with pytest.raises(InvalidStatus) as error:
        async with connected(simulated.url, filled, RESPONSES + query.replace("{key}", org.key)):
            pass
    answer = error.value.response
    assert answer.status_code == 401
    assert answer.body
    assert orjson.loads(answer.body)["error"]["code"] == "invalid_api_key"
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("path", ["/v1/files", "/health", "/v1/responses/compact", "/nowhere"])
async def test_other_routes_are_no_sockets(simulated: Server, org: TestOrg, path: str) -> None:
    with pytest.raises(InvalidStatus) as error:
        async with connected(simulated.url, org.headers, path):
            pass
    assert error.value.response.status_code == 403
    with pytest.raises(InvalidStatus) as error:
        async with connected(simulated.url, {}, path):
            pass
    assert error.value.response.status_code == 401


TURN = {"type": "response.create", "model": MODEL, "input": "hi"}
WRONG: dict[str, tuple[Any, int, str | None, str]] = {
    "not JSON": ("{", 400, None, "invalid_request_error"),
    "nothing": ("", 400, None, "invalid_request_error"),
    "bytes that are not JSON": (b"\xff", 400, None, "invalid_request_error"),
    "a list": ("[]", 400, None, "invalid_request_error"),
    "nesting without end": ("[" * 200 + "]" * 200, 400, None, "invalid_request_error"),
    "no type": ({**TURN, "type": None}, 400, "type", "invalid_request_error"),
    "another type": ({**TURN, "type": "response.cancel"}, 400, "type", "invalid_request_error"),
    "the background": ({**TURN, "background": True}, 400, "background", "invalid_request_error"),
    "a stream_id that is none": ({**TURN, "stream_id": "a b"}, 400, "stream_id", "invalid_request_error"),
    "a number as stream_id": ({**TURN, "stream_id": 5}, 400, "stream_id", "invalid_request_error"),
    "a list as previous": ({**TURN, "previous_response_id": []}, 400, "previous_response_id", "invalid_request_error"),
    "no model": ({**TURN, "model": None}, 400, "model", "invalid_request_error"),
    "an unknown model": ({**TURN, "model": "no/such"}, 404, "model", "model_not_found"),
    "no input": ({**TURN, "input": None}, 400, "input", "missing_required_parameter"),
    "what the engine refuses": ({**TURN, "input": "w " * 9000}, 400, "input", "context_length_exceeded"),
    "an unknown previous": (
        {**TURN, "previous_response_id": "resp_x"},
        400,
        "previous_response_id",
        "previous_response_not_found",
    ),
    "a failing engine": ({**TURN, "input": "[simulate: error=0]"}, 503, None, "engine_error"),
}


@pytest.mark.parametrize(("message", "status", "param", "code"), WRONG.values(), ids=WRONG.keys())
async def test_an_error_is_told_and_the_connection_goes_on(
    socket: ClientConnection, message: Any, status: int, param: str | None, code: str
) -> None:
    await socket.send(message if isinstance(message, str | bytes) else orjson.dumps(message).decode())
    told = await receive(socket)
    assert (told["type"], told["status"]) == ("error", status), told
    assert (told["error"]["param"], told["error"]["code"]) == (param, code)
    assert told["error"]["message"]
    assert (await turn(socket))["status"] == "completed"


async def test_turns_that_were_sent_together_are_answered_one_after_the_other(
    socket: ClientConnection, simulated: Server, http: AsyncClient
) -> None:
    for mark in ("a", "b.2", "a"):
        await create(socket, f"I say {mark}", stream_id=mark)
    await create(socket, "I say nothing")
    turns = [await rest_of_turn(socket) for _ in range(4)]
    assert [{event.get("stream_id") for event in events} for events in turns] == [{"a"}, {"b.2"}, {"a"}, {None}]
    assert all(len({event["response"]["id"] for event in events if "response" in event}) == 1 for events in turns)
    assert "I say b.2" in turns[1][-1]["response"]["output_text"]
    assert len(await ledger_of(simulated, http, "inference")) == 4


async def test_what_is_not_stored_can_be_gone_on_from_here_and_nowhere_else(
    simulated: Server, org: TestOrg, socket: ClientConnection, http: AsyncClient
) -> None:
    first = await turn(socket, "I am Ada " + "word " * 200, store=False)
    second = await turn(socket, "Who am I?", store=False, previous_response_id=first["id"])
    assert second["usage"]["input_tokens"] > first["usage"]["input_tokens"]
    third = await turn(socket, "And now?", store=False, previous_response_id=second["id"])
    assert third["usage"]["input_tokens"] > second["usage"]["input_tokens"]
    async with connected(simulated.url, org.headers) as other:
        told = await turn(other, "Who am I?", store=False, previous_response_id=second["id"])
    assert told["error"]["code"] == "previous_response_not_found"
    gone = await http.post(RESPONSES, json={"model": MODEL, "input": "hi", "previous_response_id": second["id"]})
    assert gone.json()["error"]["code"] == "previous_response_not_found"


async def test_a_turn_that_fails_makes_the_connection_forget_what_it_went_on_from(socket: ClientConnection) -> None:
    for failing in ({"top_p": 5}, {"asked": "[simulate: error=2]"}):
        first = await turn(socket, store=False)
        failed = await turn(socket, **{"store": False, "previous_response_id": first["id"], **failing})
        assert failed["type" if "type" in failed else "status"] in ("error", "failed")
        told = await turn(socket, store=False, previous_response_id=first["id"])
        assert told["error"]["code"] == "previous_response_not_found"


async def test_a_stored_response_brings_what_was_not_stored_before_it(
    socket: ClientConnection, http: AsyncClient
) -> None:
    first = await turn(socket, "I am Ada", store=False)
    second = await turn(socket, "Who am I?", previous_response_id=first["id"])
    assert second["previous_response_id"] == first["id"]
    items = ok(await http.get(f"{RESPONSES}/{second['id']}/input_items", params={"order": "asc"}))["data"]
    assert [item["role"] for item in items] == ["user", "assistant", "user"]
    asked = {"model": MODEL, "input": "And now?", "previous_response_id": second["id"]}
    third = ok(await http.post(RESPONSES, json=asked))
    assert third["usage"]["input_tokens"] > second["usage"]["input_tokens"]


async def test_stored_conversations_go_on_over_either_way(socket: ClientConnection, http: AsyncClient) -> None:
    first = ok(await http.post(RESPONSES, json={"model": MODEL, "input": "I am Ada"}))
    second = await turn(socket, "Who am I?", store=False, previous_response_id=first["id"])
    third = await turn(socket, "And now?", previous_response_id=second["id"])
    assert third["usage"]["input_tokens"] > second["usage"]["input_tokens"] > first["usage"]["input_tokens"]
    ok(await http.delete(f"{RESPONSES}/{third['id']}"))
    told = await turn(socket, previous_response_id=third["id"])
    assert told["error"]["code"] == "previous_response_not_found"


async def test_a_turn_that_generates_nothing_costs_nothing_and_can_be_gone_on_from(
    socket: ClientConnection, simulated: Server, http: AsyncClient
) -> None:
    await create(socket, "I am Ada", generate=False, store=False)
    events = await rest_of_turn(socket)
    assert [event["type"] for event in events] == ["response.created", "response.in_progress", "response.completed"]
    prepared = events[-1]["response"]
    assert (prepared["output"], prepared["usage"]["total_tokens"]) == ([], 0)
    assert await ledger_of(simulated, http, "inference") == []
    alone = await turn(socket, "Who am I?")
    after = await turn(socket, "Who am I?", previous_response_id=prepared["id"])
    assert after["usage"]["input_tokens"] > alone["usage"]["input_tokens"]


async def test_who_sends_more_than_can_wait_is_told_so(socket: ClientConnection) -> None:
    await create(socket, "[simulate: slow=1]")
    assert (await receive(socket))["type"] == "response.created"
    for _ in range(MAX_WAITING + 1):
        await create(socket, max_output_tokens=1)
    events = [await receive(socket)]
    while events[-1]["type"] != "error":
        events.append(await receive(socket))
    assert (events[-1]["status"], events[-1]["error"]["code"]) == (429, "rate_limit_exceeded")
    await rest_of_turn(socket)
    for _ in range(MAX_WAITING):
        assert (await rest_of_turn(socket))[-1]["type"] == "response.incomplete"


async def test_every_turn_needs_funds_and_a_key(simulated: Server, org: TestOrg, socket: ClientConnection) -> None:
    assert (await turn(socket))["status"] == "completed"
    await spend_everything(simulated, org)
    await eventually(lambda: is_refused(socket, 402))
    keys = simulated.loam("keys", "list", "--org", org.name)
    key_id = next(word for word in keys.split() if word.startswith("key_"))
    simulated.loam("keys", "revoke", key_id)
    await eventually(lambda: is_refused(socket, 401))


async def is_refused(socket: ClientConnection, status: int) -> bool:
    return bool((await turn(socket, max_output_tokens=1)).get("status") == status)


async def test_who_leaves_ends_the_generation_within_a_second_and_pays_for_what_it_was(
    simulated: Server, org: TestOrg, http: AsyncClient
) -> None:
    async with connected(simulated.url, org.headers) as socket:
        await turn(socket, generate=False)
        before = count_generated(simulated)
        await create(socket, "[simulate: pace=40] [simulate: tokens=2000]")
        await create(socket, "This one waits.")
        n_deltas = 0
        while n_deltas < 8:
            n_deltas += (await receive(socket))["type"] == "response.output_text.delta"
    await eventually(lambda: count_running(simulated) == 0, within_seconds=1)
    generated = count_generated(simulated) - before
    (charge,) = await eventually(lambda: ledger_of(simulated, http, "inference"))
    assert n_deltas <= charge.completion_tokens <= generated < 100
    assert generated - charge.completion_tokens <= 2  # what was on its way
    assert count_generated(simulated) - before == generated  # what waited never began


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Its connections last a second, and its messages are small. Its engine is there."""
    limits = {"LOAM_WEBSOCKET_SECONDS": "1", "LOAM_MAX_BODY_BYTES": "5000"}
    with running_server(tmp_path_factory.mktemp("hasty"), "--simulate", command="serve", **limits) as server:
        ok(httpx.post(server.url + CHAT, json=chat_body(), headers=server.new_org().headers, timeout=30))
        yield server


async def test_a_connection_that_has_lasted_its_time_ends_after_its_turn(hasty: Server) -> None:
    async with connected(hasty.url, hasty.new_org().headers) as socket:
        await create(socket, "[simulate: slow=1.5]")
        *_, done = await rest_of_turn(socket)
        assert done["type"] == "response.completed"
        told = await receive(socket)
        assert (told["type"], told["status"]) == ("error", 400)
        assert told["error"]["code"] == "websocket_connection_limit_reached"
        with pytest.raises(ConnectionClosed):
            await socket.recv()
    assert socket.close_code == 1000


async def test_a_message_is_held_to_the_limit_of_bodies(hasty: Server) -> None:
    async with connected(hasty.url, hasty.new_org().headers) as socket:
        await create(socket, "word " * 2000)
        with pytest.raises(ConnectionClosed):
            await socket.recv()
    assert socket.close_code == 1009


async def test_a_conversation_longer_than_that_is_not_remembered(hasty: Server) -> None:
    async with connected(hasty.url, hasty.new_org().headers) as socket:
        long = await turn(socket, "word " * 900, store=False)
        told = await turn(socket, store=False, previous_response_id=long["id"])
    assert told["error"]["code"] == "previous_response_not_found"


async def test_a_server_that_shuts_down_ends_the_turn_that_runs_and_then_the_connection(tmp_path: Path) -> None:
    with running_server(tmp_path, "--simulate", command="serve") as server:
        org = server.new_org()
        async with connected(server.url, org.headers) as idle, connected(server.url, org.headers) as busy:
            await create(busy, "[simulate: pace=20] [simulate: tokens=30]")
            await create(busy, "This one is not begun.")
            while (await receive(busy))["type"] != "response.output_text.delta":
                pass
            stopping = asyncio.create_task(asyncio.to_thread(server.stop, signal.SIGTERM))
            with pytest.raises(ConnectionClosed):
                await idle.recv()
            *_, done = await rest_of_turn(busy)
            assert (done["type"], done["response"]["usage"]["output_tokens"]) == ("response.completed", 30)
            with pytest.raises(ConnectionClosed):
                await busy.recv()
        assert (idle.close_code, busy.close_code) == (1001, 1001)
        assert await stopping == 0
