"""Requests that do not say how long their answer may be go on for as long as there are funds."""

import pytest
from httpx import AsyncClient

from tests.asking import CHAT, chat_body, data_lines, events_of, leave_funds, ledger_of, ok, refused
from tests.servers import Server

pytestmark = pytest.mark.anyio

LONG = "Count [simulate: tokens=3000] [simulate: pace=100000]"
MICROS = 60  # for a prompt and some 1,000 tokens


@pytest.fixture
async def poor(simulated: Server, client: AsyncClient) -> AsyncClient:
    org_id = ok(await client.get("/v1/balance/current"))["organization_id"]
    await leave_funds(simulated, org_id, MICROS)
    return client


async def charged_micros(server: Server, client: AsyncClient) -> int:
    return sum(-entry.amount_micros for entry in await ledger_of(server, client, "inference"))


async def test_a_stream_ends_with_an_error_where_funds_do(simulated: Server, poor: AsyncClient) -> None:
    response = await poor.post(CHAT, json=chat_body(LONG, stream=True))
    assert response.status_code == 200
    *_, last = data_lines(response.text)
    assert '"code":"insufficient_quota"' in last
    assert 0 < await charged_micros(simulated, poor) <= MICROS


async def test_a_streamed_response_fails_where_funds_end(simulated: Server, poor: AsyncClient) -> None:
    response = await poor.post("/v1/responses", json={"model": "loam/demo", "input": LONG, "stream": True})
    *_, last = events_of(response)
    assert last["type"] == "response.failed"
    assert "The balance does not cover it" in last["response"]["error"]["message"]
    assert 0 < await charged_micros(simulated, poor) <= MICROS


async def test_a_whole_answer_is_cut_where_funds_end(simulated: Server, poor: AsyncClient) -> None:
    choice = ok(await poor.post(CHAT, json=chat_body(LONG)))["choices"][0]
    assert choice["finish_reason"] == "length"
    assert 0 < await charged_micros(simulated, poor) <= MICROS


async def test_who_says_how_long_an_answer_may_be_gets_all_of_it_or_none(poor: AsyncClient) -> None:
    refused(await poor.post(CHAT, json=chat_body(LONG, max_tokens=3000)), 402, code="insufficient_quota")


async def test_what_has_been_paid_for_is_told_again_although_nothing_is_left(
    simulated: Server, client: AsyncClient
) -> None:
    asked, key = {"model": "loam/demo", "input": "Hello"}, {"Idempotency-Key": "paid"}
    paid = ok(await client.post("/v1/responses", json=asked, headers=key))
    await leave_funds(simulated, ok(await client.get("/v1/balance/current"))["organization_id"], 0)
    assert ok(await client.post("/v1/responses", json=asked, headers=key))["id"] == paid["id"]
