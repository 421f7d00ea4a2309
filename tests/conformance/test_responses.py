"""Responses, their events, items and lists are what OpenAI's document says, and what Open Responses says."""

from typing import Any

import pytest
from httpx import AsyncClient

from tests.asking import MODEL, events_of, ok
from tests.conformance.cases import RESPONSES, THINKER, response_asked
from tests.conformance.shapes import OPEN_RESPONSES, OPENAI

pytestmark = pytest.mark.anyio

PATH = "/v1/responses"
THOUGHTS = {"model": THINKER, "reasoning": {"effort": "low"}, "chat_template_kwargs": {"enable_thinking": True}}
CASES = {**RESPONSES, "thoughts": THOUGHTS}


def check_response(response: dict[str, Any]) -> None:
    OPENAI.check("Response", response)
    OPEN_RESPONSES.check("ResponseResource", response)


def check_event(event: dict[str, Any]) -> None:
    OPENAI.check_event(event)
    # Open Responses leaves `_text` out of the names of these events; we send OpenAI's.
    if not event["type"].startswith("response.reasoning_text."):
        OPEN_RESPONSES.check_event(event)


async def events(client: AsyncClient, fields: dict[str, Any]) -> list[dict[str, Any]]:
    response = await client.post(PATH, json={**response_asked(fields), "stream": True})
    assert response.status_code == 200, response.text
    return events_of(response)


@pytest.mark.parametrize("fields", CASES.values(), ids=CASES.keys())
async def test_a_response_is_of_the_documents_shape(client: AsyncClient, fields: dict[str, Any]) -> None:
    response = ok(await client.post(PATH, json=response_asked(fields)))
    check_response(response)
    assert response["status"] == ("incomplete" if fields.get("max_output_tokens") == 1 else "completed")
    assert len(response["output"]) >= fields.get("n", 1)


@pytest.mark.parametrize("fields", CASES.values(), ids=CASES.keys())
async def test_every_event_is_of_the_documents_shape(client: AsyncClient, fields: dict[str, Any]) -> None:
    told = await events(client, fields)
    for event in told:
        check_event(event)
    assert told[-1]["type"] == f"response.{told[-1]['response']['status']}"
    check_response(told[-1]["response"])


async def test_thoughts_are_told_by_openais_names(client: AsyncClient) -> None:
    told = {event["type"] for event in await events(client, THOUGHTS)}
    assert {"response.reasoning_text.delta", "response.reasoning_text.done"} <= told


@pytest.mark.parametrize(("fault", "model"), [("error=1", MODEL), ("crash", "Qwen/Qwen2.5-3B-Instruct")])
async def test_a_failed_response_is_of_the_documents_shape(client: AsyncClient, fault: str, model: str) -> None:
    told = await events(client, {"model": model, "input": f"[simulate: {fault}]"})
    for event in told:
        check_event(event)
    assert told[-1]["type"] == "response.failed"
    check_response(ok(await client.get(f"{PATH}/{told[-1]['response']['id']}")))


@pytest.mark.parametrize("name", ["plain", "a whole conversation", "tools to choose from"])
async def test_what_is_kept_of_a_response_is_of_the_documents_shape(client: AsyncClient, name: str) -> None:
    created = ok(await client.post(PATH, json=response_asked(RESPONSES[name])))
    kept = ok(await client.get(f"{PATH}/{created['id']}"))
    check_response(kept)
    assert kept["output"] == created["output"]
    items = ok(await client.get(f"{PATH}/{created['id']}/input_items"))
    OPENAI.check("ResponseItemList", items)
    assert len(items["data"]) == len(RESPONSES[name].get("input", [""]))
    deleted = ok(await client.delete(f"{PATH}/{created['id']}"))
    assert deleted == {"id": created["id"], "object": "response", "deleted": True}


async def test_the_phase_of_an_earlier_answer_is_kept(client: AsyncClient) -> None:
    created = ok(await client.post(PATH, json=response_asked(RESPONSES["a whole conversation"])))
    items = ok(await client.get(f"{PATH}/{created['id']}/input_items", params={"order": "asc"}))["data"]
    assert [item["phase"] for item in items if item.get("role") == "assistant"] == ["commentary"]
