"""Clients of Responses that leave the real engine: it is idle at once, and what it made for them is charged."""

import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from httpx import AsyncClient
from sqlalchemy import select

from app.inference.chat_request import WHOLE_INTERVAL
from app.settings import Settings
from app.store.session import Store
from app.store.tables import EngineStatus
from tests.asking import ok
from tests.eventually import eventually
from tests.inference.test_leaving import RESPONSES, Client, leaving
from tests.real.engines import LEASE_SECONDS, count_generated, count_running
from tests.servers import Server

pytestmark = [pytest.mark.engine, pytest.mark.anyio]

Json = dict[str, Any]

# The demo model's own answers are short.
WORDS = {"type": "array", "items": {"enum": ["soil", "sand"]}, "minItems": 400, "maxItems": 1000}
ENDLESS = {"type": "object", "properties": {"words": WORDS}, "required": ["words"], "additionalProperties": False}
ASKED: Json = {
    "text": {"format": {"type": "json_schema", "name": "words", "schema": ENDLESS, "strict": True}},
    "temperature": 1,
    "max_output_tokens": 2000,
}
WAYS: list[Json] = [
    {"path": RESPONSES, **ASKED},
    {"path": RESPONSES, "stream": True, **ASKED},
    {"path": "socket", **ASKED},
]
# One of each way on its way, and a whole answer's tokens, which are told some at a time and not waited for for ever.
UNTOLD_TOKENS = len(WAYS) + WHOLE_INTERVAL


@pytest.fixture
async def clients(real: Server) -> AsyncIterator[list[Client]]:
    """The engine is up, and has met the grammar."""
    orgs = [real.new_org() for _ in WAYS]
    https = [AsyncClient(base_url=real.url, headers=org.headers, timeout=120) for org in orgs]
    async with AsyncClient(base_url=real.url, headers=real.new_org().headers, timeout=120) as http:
        ok(await http.post(RESPONSES, json={"model": "loam/demo", "input": "Hi", **ASKED, "max_output_tokens": 1}))
    yield [
        Client(org, http, way["path"], {name: value for name, value in way.items() if name != "path"})
        for org, http, way in zip(orgs, https, WAYS, strict=True)
    ]
    for http in https:
        await http.aclose()


@pytest.mark.parametrize("n_tokens", [0, 3 * UNTOLD_TOKENS], ids=["before the first byte", "in the middle"])
async def test_who_leaves_ends_the_generation_and_pays_for_what_was_made(
    real: Server, clients: list[Client], n_tokens: int
) -> None:
    earlier = count_generated(real)
    async with leaving(*(client.ask("Go on", "loam/demo") for client in clients)):
        await eventually(lambda: count_running(real) == len(clients))
        await eventually(lambda: count_generated(real) - earlier >= n_tokens)
        made = count_generated(real) - earlier
    await eventually(lambda: count_running(real) == 0, within_seconds=1)
    # All that was made before; what vLLM makes until it hears of the hanging up it tells nobody.
    charged = await eventually(partial(charges_of, real, clients, at_least=made - UNTOLD_TOKENS))
    assert sum(charged) <= count_generated(real) - earlier
    assert await in_flight_after(real, time.time()) == 0


async def charges_of(server: Server, clients: list[Client], *, at_least: int) -> list[int]:
    """Tokens of each, once they are so many together; else none."""
    charged = [await client.charged_tokens(server) for client in clients]
    return charged if sum(charged) >= at_least else []


async def in_flight_after(server: Server, moment: float) -> int:
    """Leases on the engine, as the gateway says of itself after that moment."""
    store = Store(Settings(data_dir=server.data_dir).store_url)

    async def status() -> EngineStatus | None:
        async with store.read() as session:
            written_since = EngineStatus.expires_at > moment + LEASE_SECONDS
            rows = select(EngineStatus).where(EngineStatus.model == "loam/demo", written_since)
            return await session.scalar(rows)

    found = await eventually(status, within_seconds=5)
    await store.close()
    assert found
    return found.in_flight
