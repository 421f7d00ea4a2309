"""GET /balance/…"""

from datetime import datetime

import pytest
from httpx import AsyncClient

from tests.asking import chat, ok, refused

pytestmark = pytest.mark.anyio


async def test_a_new_organisation_has_its_welcome_credit(client: AsyncClient) -> None:
    body = ok(await client.get("/v1/balance/current"))
    assert (body["balance_cents"], body["balance_dollars"]) == (10_000, 100.0)
    assert datetime.fromisoformat(body["last_updated"]).tzinfo


async def test_usage_counts_the_tokens_and_has_no_nulls(client: AsyncClient) -> None:
    usage = (await chat(client))["usage"]
    body = ok(await client.get("/v1/balance/usage"))
    for period in ("current_month", "last_30_days"):
        assert body[period]["token_count"] == usage["total_tokens"]
        assert None not in body[period].values()


async def test_windows_are_told_in_the_order_they_are_asked(client: AsyncClient) -> None:
    body = ok(await client.get("/v1/balance/usage/windows", params={"hours": "168, 24"}))
    assert [window["window_hours"] for window in body["windows"]] == [168, 24]
    assert len(ok(await client.get("/v1/balance/usage/windows"))["windows"]) == 2


@pytest.mark.parametrize(
    "hours", ["", "0", "-1", "1.5", "x", "24,", "²", "9" * 400, "000000001" + "9" * 400, "1," * 30]
)
async def test_hours_that_are_none_are_refused(client: AsyncClient, hours: str) -> None:
    refused(await client.get("/v1/balance/usage/windows", params={"hours": hours}), 400, param="hours")
