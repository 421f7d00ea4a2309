"""Clients that leave, at every moment and on every way: the engine is idle at once, and nothing of theirs is left.

All ways leave together, each of an organisation of its own, so that one look at the engine judges them all.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from httpx import AsyncClient

from tests.asking import CHAT, ledger_of, ok, spend_everything
from tests.eventually import eventually
from tests.inference.sockets import connected, create, receive
from tests.real.engines import count_generated, count_running
from tests.servers import Server, TestOrg, running_server

pytestmark = pytest.mark.anyio

Json = dict[str, Any]

MODEL, OTHER = "Qwen/Qwen3-0.6B", "loam/demo"  # of one price
RESPONSES = "/v1/responses"
MAX_TOKENS = 2000
# Enough for one such answer, and not for what is held of two.
LITTLE_MICROS = 140

WAYS: list[Json] = [
    {"path": CHAT},
    {"path": CHAT, "stream": True},
    {"path": f"{CHAT}?from=here"},  # a query is the application's to read
    {"path": f"{CHAT}?from=here", "stream": True},
    {"path": RESPONSES},
    {"path": RESPONSES, "stream": True},
    {"path": RESPONSES, "stream": True, "best_of": 2, "max_output_tokens": MAX_TOKENS // 2},
    {"path": "socket"},
]

N_SAMPLES = len(WAYS) + 1  # one is the best of two


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One GPU: another model's engine starts at once where nobody has a lease on the first one's, else much later."""
    times = {"LOAM_SIMULATE_START_SECONDS": "0.5", "LOAM_KEEP_ALIVE_SECONDS": "0.1", "LOAM_DEVICES": '["A100:1"]'}
    known = {"LOAM_KEY_CACHE_SECONDS": "60"}  # who is known is answered below ASGI
    noted = {"LOAM_LOG_PROMPTS": "true"}
    with running_server(tmp_path_factory.mktemp("left"), "--simulate", **times, **known, **noted) as server:
        yield server
        asyncio.run(answered(server, OTHER))


async def answered(server: Server, model: str) -> None:
    async with AsyncClient(base_url=server.url, headers=server.new_org().headers, timeout=20) as http:
        ok(await http.post(CHAT, json={"model": model, "messages": [{"role": "user", "content": "Hi"}]}))


@dataclass
class Client:
    """Of an organisation with little money, asking in one way."""

    org: TestOrg
    http: AsyncClient
    path: str
    fields: Json

    async def ask(self, text: str, model: str = MODEL) -> None:
        """Reads until it is cancelled."""
        asked = {"model": model, "max_tokens": MAX_TOKENS, **self.fields}
        if self.path == "socket":
            async with connected(str(self.http.base_url).rstrip("/"), self.org.headers) as socket:
                try:
                    await create(socket, text, **asked)
                    while True:
                        await receive(socket)
                finally:  # it is a reset: the library's own goodbye ends too early in a task that is being cancelled
                    socket.transport.abort()
        body = asked | (
            {"input": text} if self.path == RESPONSES else {"messages": [{"role": "user", "content": text}]}
        )
        ok(await self.http.post(self.path, json=body))

    async def greet(self) -> None:
        """From now on the gateway knows it."""
        greeting = {"model": MODEL, "max_tokens": 1, "messages": [{"role": "user", "content": "Hi"}]}
        ok(await self.http.post(CHAT, json=greeting))

    async def charged_tokens(self, server: Server) -> int:
        return sum(charge.completion_tokens for charge in await ledger_of(server, self.http, "inference"))


@pytest.fixture
async def clients(server: Server) -> AsyncIterator[list[Client]]:
    orgs = [server.new_org() for _ in WAYS]
    for org in orgs:
        await spend_everything(server, org, but_micros=LITTLE_MICROS)
    https = [AsyncClient(base_url=server.url, headers=org.headers, timeout=30) for org in orgs]
    yield [
        Client(org, http, way["path"], {name: value for name, value in way.items() if name != "path"})
        for org, http, way in zip(orgs, https, WAYS, strict=True)
    ]
    for http in https:
        await http.aclose()


@asynccontextmanager
async def leaving(*asking: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Who asks hangs up when the block ends."""
    tasks = [asyncio.ensure_future(each) for each in asking]
    yield
    assert not [task for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_who_leaves_in_the_cold_start_leaves_nothing_behind(server: Server, clients: list[Client]) -> None:
    async with leaving(*(client.ask("Good morning", OTHER) for client in clients)):
        await eventually(lambda: count_asked(server, "Good morning") == len(clients))
    await answered(server, MODEL)
    assert [await client.charged_tokens(server) for client in clients] == [0] * len(clients)


async def test_who_leaves_before_the_first_word_pays_nothing(server: Server, clients: list[Client]) -> None:
    for client in clients:
        await client.greet()
    for _ in range(2):  # money that were still held would not be there again
        async with leaving(*(client.ask("Hello [simulate: slow=20]") for client in clients)):
            await eventually(lambda: count_running(server) == len(clients))
        await eventually(lambda: count_running(server) == 0, within_seconds=1)
    assert [await client.charged_tokens(server) for client in clients] == [1] * len(clients)


async def test_who_leaves_in_the_middle_ends_the_generation_and_pays_for_what_was_made(
    server: Server, clients: list[Client]
) -> None:
    for client in clients:
        await client.greet()
    for _ in range(2):
        earlier, paid = count_generated(server), [await client.charged_tokens(server) for client in clients]
        async with leaving(*(client.ask("Go on [simulate: pace=50] [simulate: tokens=2000]") for client in clients)):
            await eventually(lambda: count_running(server) == len(clients))
            made = await generated(server, earlier + 20 * N_SAMPLES) - earlier
            await generated(server, earlier + made + N_SAMPLES)
        await eventually(lambda: count_running(server) == 0, within_seconds=1)
        charged = await eventually(partial(charges_since, server, clients, paid))
        # What an engine makes until it hears of the hanging up it tells nobody, since neither this one nor vLLM speaks
        # of the usage of what was aborted. All before is paid for, but for a token of each sample on its way.
        assert made <= sum(charged) <= count_generated(server) - earlier


def count_asked(server: Server, text: str) -> int:
    """Requests that got as far as to wait for an engine."""
    return sum("asked" in line and text in line for line in server.log.splitlines())


async def generated(server: Server, n_tokens: int) -> int:
    """What the engines have made, once that is as much."""

    def enough() -> int:
        count = count_generated(server)
        return count if count >= n_tokens else 0

    return await eventually(enough)


async def charges_since(server: Server, clients: list[Client], paid: list[int]) -> list[int]:
    """Tokens, once each has paid something; else none."""
    charged = [await client.charged_tokens(server) - before for client, before in zip(clients, paid, strict=True)]
    return charged if all(charged) else []
