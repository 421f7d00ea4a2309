"""POST /responses/compact: what people said word for word, and sealed, what the model did."""

from typing import Any

import pytest
from httpx import AsyncClient

from app.errors import BadRequest
from app.inference.responses_compaction import SUMMARY_HEAD, CompactRequest, compacted
from app.inference.responses_items import input_items
from app.inference.responses_request import ResponseCreate
from app.inference.seals import Seals
from tests.asking import MODEL, ledger_of, ok, refused
from tests.servers import Server

pytestmark = pytest.mark.anyio

RESPONSES, COMPACT = "/v1/responses", "/v1/responses/compact"
SEAL = Seals(b"key").of("org_a")
USER: dict[str, Any] = {"role": "user", "content": "I am called Ada."}
ANSWER: dict[str, Any] = {"role": "assistant", "content": "Good day, Ada. " * 200}
CALL: dict[str, Any] = {"type": "function_call", "call_id": "call_1", "name": "look", "arguments": "{}"}
OUTPUT: dict[str, Any] = {"type": "function_call_output", "call_id": "call_1", "output": "wet"}
REASONING: dict[str, Any] = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}


def items(*given: dict[str, Any]) -> list[dict[str, Any]]:
    return input_items(ResponseCreate.model_validate({"model": MODEL, "input": list(given)}), "resp_1")


def test_messages_of_people_stay_and_all_else_is_sealed() -> None:
    told = items({"role": "developer", "content": "Brief."}, USER, REASONING, ANSWER, CALL, OUTPUT, USER)
    *kept, last = compacted(told, "Greeted Ada.", SEAL)
    assert kept == [told[0], told[1], told[6]]
    assert set(last) == {"id", "type", "encrypted_content"}
    (hidden,) = SEAL.open(last["encrypted_content"])
    assert hidden["role"] == "assistant"
    assert hidden["content"][0]["text"] == SUMMARY_HEAD + "Greeted Ada."


def test_a_call_that_waits_for_its_result_is_not_forgotten() -> None:
    told = items(USER, CALL, OUTPUT, {**CALL, "call_id": "call_2"})
    *_, last = compacted(told, "Looked once.", SEAL)
    assert [item["call_id"] for item in SEAL.open(last["encrypted_content"])[1:]] == ["call_2"]


def test_a_summary_is_short_also_for_a_small_model() -> None:
    asked = CompactRequest(model=MODEL, input="hi")
    assert asked.asking_for_summary(100_000).max_output_tokens == 1024
    assert asked.asking_for_summary(512).max_output_tokens == 128


def test_there_must_be_something_to_make_short() -> None:
    with pytest.raises(BadRequest, match="input"):
        input_items(CompactRequest(model=MODEL).asking_for_summary(4096), "resp_1")


async def compact(client: AsyncClient, **fields: Any) -> dict[str, Any]:
    return ok(await client.post(COMPACT, json={"model": MODEL, **fields}))


async def test_a_short_window_goes_on_where_the_long_talk_ended(client: AsyncClient, simulated: Server) -> None:
    long = [USER, ANSWER, {"role": "user", "content": "And the weather?"}, ANSWER]
    window = await compact(client, input=long, instructions="Be brief.")
    assert window["object"] == "response.compaction"
    assert [item["type"] for item in window["output"]] == ["message", "message", "compaction"]
    (charge,) = await ledger_of(simulated, client, "inference")
    usage = window["usage"]
    assert (charge.prompt_tokens, charge.completion_tokens) == (usage["input_tokens"], usage["output_tokens"])
    question = {"role": "user", "content": "Who am I?"}
    at_length = ok(await client.post(RESPONSES, json={"model": MODEL, "input": [*long, question]}))
    in_short = ok(await client.post(RESPONSES, json={"model": MODEL, "input": [*window["output"], question]}))
    assert in_short["status"] == "completed"
    assert in_short["usage"]["input_tokens"] < at_length["usage"]["input_tokens"] / 3
    listed = ok(await client.get(f"{RESPONSES}/{in_short['id']}/input_items", params={"order": "asc"}))
    assert listed["data"][2] == window["output"][2]  # as sealed as it came


async def test_a_stored_conversation_can_be_made_short_and_a_window_again(client: AsyncClient) -> None:
    first = ok(await client.post(RESPONSES, json={"model": MODEL, "input": "I am called Ada."}))
    window = await compact(client, previous_response_id=first["id"])
    again = await compact(client, input=[*window["output"], {"role": "user", "content": "Go on."}])
    assert [item["type"] for item in again["output"]] == ["message", "message", "compaction"]
    goes_on = {"model": MODEL, "input": [*again["output"], {"role": "user", "content": "Who am I?"}]}
    response = ok(await client.post(RESPONSES, json=goes_on))
    after = {"model": MODEL, "input": "And now?", "previous_response_id": response["id"]}
    assert ok(await client.post(RESPONSES, json=after))["status"] == "completed"


async def test_what_was_sealed_for_another_is_a_clear_refusal(client: AsyncClient, simulated: Server) -> None:
    window = await compact(client, input=[USER, ANSWER])
    sealed = window["output"][-1]
    tampered = {**sealed, "encrypted_content": sealed["encrypted_content"][:-6] + "AAAAAA"}
    asked = {"model": MODEL, "input": [tampered, USER]}
    refused(await client.post(RESPONSES, json=asked), 400, param="input", code="invalid_encrypted_content")
    stranger = simulated.new_org().headers
    asked = {"model": MODEL, "input": [sealed, USER]}
    response = await client.post(RESPONSES, json=asked, headers=stranger)
    refused(response, 400, param="input", code="invalid_encrypted_content")


REFUSED: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "no input": ({}, "input", "missing_required_parameter"),
    "no model": ({"model": None, "input": "hi"}, "model", None),
    "an empty list": ({"input": []}, "input", None),
    "a number": ({"input": 7}, "input", None),
    "an unknown previous response": (
        {"input": "hi", "previous_response_id": "resp_x"},
        "previous_response_id",
        "previous_response_not_found",
    ),
    "a compaction without content": ({"input": [{"type": "compaction"}]}, "input[0].encrypted_content", None),
}


@pytest.mark.parametrize(("fields", "param", "code"), REFUSED.values(), ids=REFUSED.keys())
async def test_a_wrong_request_is_refused(
    client: AsyncClient, fields: dict[str, Any], param: str, code: str | None
) -> None:
    refused(await client.post(COMPACT, json={"model": MODEL, **fields}), 400, param=param, code=code)
