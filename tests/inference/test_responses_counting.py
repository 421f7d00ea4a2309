"""POST /responses/input_tokens: how long a prompt is, before anybody pays for it."""

from typing import Any

import pytest
from httpx import AsyncClient
from openai import AsyncOpenAI, BadRequestError

from tests.asking import MODEL, ledger_of, refused
from tests.conformance.cases import FLAT_TOOLS
from tests.servers import Server

pytestmark = pytest.mark.anyio

ASKED: dict[str, Any] = {"model": MODEL, "input": "How is the weather?", "instructions": "Be brief."}
TOOLS: Any = FLAT_TOOLS


async def test_as_many_are_counted_as_an_answer_says_it_was_asked_with(openai: AsyncOpenAI) -> None:
    first = await openai.responses.create(**ASKED, tools=TOOLS)
    counted = await openai.responses.input_tokens.count(**ASKED, tools=TOOLS)
    assert first.usage
    assert (counted.object, counted.input_tokens) == ("response.input_tokens", first.usage.input_tokens)
    goes_on: dict[str, Any] = {"model": MODEL, "input": "And now?"}
    first = await openai.responses.create(**ASKED)
    second = await openai.responses.create(**goes_on, previous_response_id=first.id)
    counted = await openai.responses.input_tokens.count(**goes_on, previous_response_id=first.id)
    assert second.usage
    assert counted.input_tokens == second.usage.input_tokens


async def test_counting_is_free_and_counts_what_is_too_long(
    simulated: Server, client: AsyncClient, openai: AsyncOpenAI
) -> None:
    counted = await openai.responses.input_tokens.count(model=MODEL, input="word " * 5000)
    assert counted.input_tokens > 5000
    await client.post("/v1/responses/input_tokens", json=ASKED)
    assert await ledger_of(simulated, client, "inference") == []


async def test_what_could_not_be_asked_is_not_counted(openai: AsyncOpenAI, client: AsyncClient) -> None:
    with pytest.raises(BadRequestError) as refusal:
        await openai.responses.input_tokens.count(model=MODEL, input="Hi", previous_response_id="resp_x")
    assert refusal.value.code == "previous_response_not_found"
    refused(
        await client.post("/v1/responses/input_tokens", json={"model": MODEL}),
        400,
        param="input",
        code="missing_required_parameter",
    )
