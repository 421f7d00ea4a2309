"""The `openai` package's WebSocket to /responses, unmodified: connections, both kinds, and its sessions with lanes."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import pytest
from openai import AsyncOpenAI, OpenAI
from openai.lib.responses_websocket import (
    AsyncResponsesWebSocketSession,
    ResponsesWebSocketError,
    ResponsesWebSocketLimits,
    ResponsesWebSocketSession,
)
from openai.resources.responses.responses import ResponsesConnection
from openai.types.responses import Response, ResponsesClientEventParam

from tests.asking import MODEL

# The synchronous client opens its connection in a way that the library below it calls old.
pytestmark = pytest.mark.filterwarnings("ignore:connect\\(\\) must be used as a context manager:DeprecationWarning")

LIMITS = ResponsesWebSocketLimits(
    max_lanes=4, max_events_per_lane=1000, max_events=2000, max_bytes_per_lane=1 << 20, max_bytes=1 << 21
)


@pytest.fixture(scope="module")
def openai(reach: dict[str, Any]) -> Iterator[OpenAI]:
    with OpenAI(**reach) as client:
        yield client


@pytest.fixture
async def aopenai(reach: dict[str, Any]) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(**reach) as client:
        yield client


def asking(text: str, **fields: Any) -> ResponsesClientEventParam:
    event = {"type": "response.create", "model": MODEL, "input": text, **fields}
    return cast(ResponsesClientEventParam, event)


def answered(connection: ResponsesConnection) -> Response:
    for event in connection:
        if event.type == "response.completed":
            return Response.model_validate(event.response.to_dict())
        assert event.type != "error", event
    raise AssertionError("the connection ended first")


def test_a_conversation_over_one_connection(openai: OpenAI) -> None:
    with openai.responses.connect() as connection:
        connection.send(asking("I am Ada.", store=False))
        first = answered(connection)
        connection.send(asking("Who am I?", store=False, previous_response_id=first.id))
        second = answered(connection)
    assert "I am Ada." in first.output_text
    assert first.usage
    assert second.usage
    assert second.usage.input_tokens > first.usage.input_tokens


def test_an_error_is_an_event_that_the_client_knows(openai: OpenAI) -> None:
    with openai.responses.connect() as connection:
        connection.send(asking("Hi", previous_response_id="resp_x"))
        event = connection.recv()
        assert event.type == "error"
        assert (event.status, event.error.code) == (400, "previous_response_not_found")
        connection.send(asking("Hi"))
        assert answered(connection).status == "completed"


def test_a_session_sends_the_events_of_each_lane_where_they_belong(openai: OpenAI) -> None:
    with openai.responses.connect() as connection, ResponsesWebSocketSession(connection, limits=LIMITS) as session:
        lanes = [session.lane("a"), session.lane("b")]
        for lane in lanes:
            lane.send(asking("Hello", store=False))
        finals = [lane.get_final_response(timeout=20) for lane in lanes]
        assert [final.status for final in finals] == ["completed", "completed"]
        assert finals[0].id != finals[1].id
        lanes[0].send(asking("Hello", top_p=5))
        with pytest.raises(ResponsesWebSocketError):
            lanes[0].get_final_response(timeout=20)


@pytest.mark.anyio
async def test_the_asynchronous_client_likewise(aopenai: AsyncOpenAI) -> None:
    async with (
        aopenai.responses.connect() as connection,
        AsyncResponsesWebSocketSession(connection, limits=LIMITS) as session,
    ):
        await session.default.send(asking("I am Ada.", store=False))
        first = await session.default.get_final_response()
        await session.default.send(asking("Who am I?", store=False, previous_response_id=first.id))
        second = await session.default.get_final_response()
    assert first.usage
    assert second.usage
    assert second.usage.input_tokens > first.usage.input_tokens


def test_a_conversation_is_made_short(openai: OpenAI) -> None:
    window = openai.responses.compact(model=MODEL, input=[{"role": "user", "content": "I am Ada."}])
    assert [item.type for item in window.output] == ["message", "compaction"]
    # Its type for output items knows no message of a user, though its documentation says that there are some.
    question: Any = {"role": "user", "content": "Who am I?"}
    items = [*(item.to_dict(warnings=False) for item in window.output), question]
    assert openai.responses.create(model=MODEL, input=items).status == "completed"
