"""`truncation: auto` drops the oldest of what may go, and only as much as it must."""

import re
from typing import Any

import pytest
from httpx import AsyncClient

from app.inference.truncation import fewest_by_size, steps_that_may_go, without
from tests.asking import MODEL, ok, refused
from tests.servers import Server, TestOrg

pytestmark = pytest.mark.anyio

RESPONSES = "/v1/responses"
CONTEXT = 4096

# One letter a message: system, user, assistant, assistant that calls, tool; a digit names the call.
CASES: dict[str, tuple[str, list[str]]] = {
    "one question": ("u", []),
    "a question under a system message": ("su", []),
    "an earlier turn": ("uau", ["ua"]),
    "earlier turns, oldest first": ("suauau", ["ua", "ua"]),
    "questions one after the other": ("uuau", ["u", "ua"]),
    "a system message between them stays": ("uasu", ["ua"]),
    "what the model said first": ("auau", ["a", "ua"]),
    "calls with their results": ("uc1t1au", ["uc1t1a"]),
    "what the last turn did, but its last step": ("uc1t1c2t2c3t3", ["c1t1", "c2t2"]),
    "both": ("suauc1t1c2t2", ["ua", "c1t1"]),
    "a conversation without a question": ("sc1t1c2t2", ["c1t1"]),
}
ROLES = {"s": "system", "u": "user", "a": "assistant", "c": "assistant", "t": "tool"}


def conversation(sketch: str) -> list[dict[str, Any]]:
    return [message(word) for word in re.findall(r"[sua]|[ct]\d", sketch)]


def message(word: str) -> dict[str, Any]:
    told: dict[str, Any] = {"role": ROLES[word[0]], "content": word}
    if word[0] == "c":
        told["tool_calls"] = [{"id": word[1]}]
    if word[0] == "t":
        told["tool_call_id"] = word[1]
    return told


def sketch_of(messages: list[dict[str, Any]]) -> str:
    return "".join(message["content"] for message in messages)


@pytest.mark.parametrize(("sketch", "expected"), CASES.values(), ids=CASES.keys())
def test_the_oldest_may_go_first(sketch: str, expected: list[str]) -> None:
    messages = conversation(sketch)
    assert sketch_of(messages) == sketch
    steps = steps_that_may_go(messages)
    assert [sketch_of([messages[i] for i in step]) for step in steps] == expected


def test_a_result_goes_with_its_call_though_it_came_later() -> None:
    messages = conversation("uc1ut1a")
    assert sketch_of(without({"messages": messages}, [[0, 1]])["messages"]) == "ua"


@pytest.mark.parametrize(("max_bytes", "fewest"), [(10_000, 1), (610, 1), (410, 2), (210, 3), (100, 4)])
def test_what_is_far_too_large_is_not_counted(max_bytes: int, fewest: int) -> None:
    messages = [{"role": "user", "content": "x" * 170} for _ in range(4)]  # 200 bytes each, and no tools
    assert fewest_by_size({"messages": messages}, [[0], [1], [2]], max_bytes) == fewest


async def test_a_talk_far_beyond_the_context_is_cut_in_a_moment(client: AsyncClient) -> None:
    body = ok(await ask(client, input=long_talk(1500), truncation="auto"))
    assert body["status"] == "completed"
    huge = [*long_talk(3), {"role": "user", "content": "word " * 100_000}]
    refused(await ask(client, input=huge, truncation="auto"), 400, param="input", code="context_length_exceeded")


def long_talk(n_turns: int) -> list[dict[str, Any]]:
    """About 100 tokens a turn."""
    talk = [
        turn
        for n in range(n_turns)
        for turn in (
            {"role": "user", "content": f"question {n} " + "word " * 40},
            {"role": "assistant", "content": f"answer {n} " + "word " * 40},
        )
    ]
    return [{"role": "developer", "content": "Be brief."}, *talk, {"role": "user", "content": "And the last question?"}]


async def ask(client: AsyncClient, **fields: Any) -> Any:
    return await client.post(RESPONSES, json={"model": MODEL, **fields})


async def test_a_talk_that_is_too_long_is_answered_without_its_beginning(client: AsyncClient) -> None:
    talk = long_talk(100)
    refused(await ask(client, input=talk), 400, param="input", code="context_length_exceeded")
    body = ok(await ask(client, input=talk, truncation="auto", max_output_tokens=300))
    assert body["status"] == "completed"
    assert "And the last question?" in body["output_text"]
    # As much as fits beside the answer's room, to within a turn.
    assert CONTEXT - 300 - 150 < body["usage"]["input_tokens"] <= CONTEXT - 300
    assert body["truncation"] == "auto"


async def test_a_talk_that_fits_is_left_whole(client: AsyncClient) -> None:
    talk = long_talk(5)
    whole = ok(await ask(client, input=talk))
    auto = ok(await ask(client, input=talk, truncation="auto"))
    assert auto["usage"]["input_tokens"] == whole["usage"]["input_tokens"]


async def test_a_stored_conversation_is_cut_too_and_stays_whole_in_the_store(client: AsyncClient) -> None:
    first = ok(await ask(client, input=long_talk(30)))
    second = ok(await ask(client, input=long_talk(30), previous_response_id=first["id"], truncation="auto"))
    items = ok(await client.get(f"{RESPONSES}/{second['id']}/input_items", params={"limit": 100}))
    assert len(items["data"]) == 62


async def test_a_last_question_that_is_too_long_alone_is_refused(client: AsyncClient) -> None:
    talk = [*long_talk(3), {"role": "user", "content": "word " * 5000}]
    body = refused(await ask(client, input=talk, truncation="auto"), 400, param="input", code="context_length_exceeded")
    assert "4096" in body["detail"]


@pytest.mark.engine
async def test_the_real_engine_counts_its_own_tokens_calls_and_tools_among_them(
    real: Server, real_org: TestOrg
) -> None:
    question = {"role": "user", "content": "Look until you find it."}
    looks = [step for number in range(100) for step in look(number)]
    tools = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}]
    asked = {
        "model": MODEL,
        "input": [question, *looks],
        "tools": tools,
        "truncation": "auto",
        "max_output_tokens": 200,
    }
    async with AsyncClient(base_url=real.url, headers=real_org.headers, timeout=120) as client:
        usage = ok(await client.post(RESPONSES, json=asked))["usage"]
    assert CONTEXT - 200 - 200 < usage["input_tokens"] <= CONTEXT - 200


def look(number: int) -> list[dict[str, Any]]:
    """About 100 tokens."""
    call = {"type": "function_call", "call_id": f"call_{number}", "name": "look", "arguments": "{}"}
    return [call, {"type": "function_call_output", "call_id": call["call_id"], "output": f"{number} of nothing " * 12}]


async def test_a_stream_is_cut_before_it_begins(client: AsyncClient) -> None:
    response = await ask(client, input=long_talk(100), truncation="auto", stream=True)
    assert response.status_code == 200
    assert "event: response.completed" in response.text
