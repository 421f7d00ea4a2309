"""What is charged of an answer that its reader leaves, and of one that a bug ends."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.billing.ledger import Entry
from app.inference.chunks import ChunkReader
from app.inference.relay import Relay
from tests.billing.test_ledger import write
from tests.engines.engine_double import HEAD
from tests.inference import test_passage
from tests.inference.test_passage import SOME, SOME_TOKENS, Gateway
from tests.rows import target

pytestmark = pytest.mark.anyio

gateway = test_passage.gateway


async def charged_tokens(gateway: Gateway) -> list[int]:
    return [entry.completion_tokens for entry in await gateway.charged() if entry.kind == "inference"]


async def ended_by(gateway: Gateway, error: BaseException) -> None:
    """An answer, after some of it was read."""
    await write(gateway.store, Entry(org_id=gateway.org_id, source="test", kind="credit", amount_micros=10**6))
    relay = Relay(gateway.settings, gateway.pool, gateway.charges, target(), gateway.org_id, "req_1", "salt")
    reader = ChunkReader()

    async def read(pieces: AsyncIterator[bytes]) -> None:
        async for piece in pieces:
            reader.feed(piece)
            if reader.usage:
                raise error

    async def answer() -> None:
        peer = await gateway.double.peer()
        await peer.asked()
        peer.say(HEAD + SOME)

    answering = asyncio.create_task(answer())
    with pytest.raises(type(error)):
        async with relay.stream({"messages": [{"role": "user", "content": "Hi"}]}, reader) as pieces:
            await read(pieces)
    await answering


@pytest.mark.parametrize("error", [asyncio.CancelledError(), GeneratorExit(), BrokenPipeError()], ids=repr)
async def test_who_leaves_pays_for_what_was_generated(gateway: Gateway, error: BaseException) -> None:
    await ended_by(gateway, error)
    assert await charged_tokens(gateway) == [SOME_TOKENS]


async def test_nothing_is_charged_for_an_answer_that_a_bug_ended(gateway: Gateway) -> None:
    await ended_by(gateway, ZeroDivisionError())
    assert await charged_tokens(gateway) == []
