"""What is charged of an answer that its reader leaves, and of one that a bug ends; and how prompts are counted."""

import asyncio
from dataclasses import replace

import pytest

from app.billing.ledger import Entry, InsufficientFunds
from app.inference.chat_request import INTERVAL
from app.inference.chunks import ChunkReader
from app.inference.engine_errors import ContextExceeded
from app.inference.relay import MAX_TOKEN_CHARS, Relay, TokenCount
from app.orgs.allowances import Allowance
from app.orgs.at_once import Crowd, TooManyAtOnce
from app.orgs.keys import CurrentKey
from app.orgs.roles import Role
from tests.billing.test_ledger import write
from tests.engines.engine_double import HEAD, whole
from tests.inference import test_passage
from tests.inference.test_passage import ALL, ALL_TOKENS, SOME, SOME_TOKENS, Gateway
from tests.rows import target

pytestmark = pytest.mark.anyio

BODY = {"messages": [{"role": "user", "content": "Hi"}]}

gateway = test_passage.gateway


async def funded_relay(gateway: Gateway) -> Relay:
    await write(gateway.store, Entry(org_id=gateway.org_id, source="test", kind="credit", amount_micros=10**6))
    return Relay(gateway.settings, gateway.pool, gateway.charges, target(), gateway.org_id, "req_1", "salt")


async def answer(gateway: Gateway, more: asyncio.Event | None = None) -> None:
    """The engine's part: some of an answer, and the rest when it is wanted."""
    peer = await gateway.double.peer()
    await peer.asked()
    peer.say(HEAD + SOME)
    if more:
        await more.wait()
        peer.say(ALL)


async def charged_tokens(gateway: Gateway) -> list[int]:
    return [entry.completion_tokens for entry in await gateway.charged() if entry.kind == "inference"]


async def read_until(gateway: Gateway, error: BaseException) -> None:
    """An answer that ends with `error` after some of it was read."""
    relay, reader = await funded_relay(gateway), ChunkReader()

    async def read() -> None:
        async with relay.stream(BODY, reader) as pieces:
            reader.feed(await anext(pieces))
            raise error

    answering = asyncio.create_task(answer(gateway))
    with pytest.raises(type(error)):
        await read()
    await answering


@pytest.mark.parametrize("error", [asyncio.CancelledError(), GeneratorExit(), BrokenPipeError()], ids=repr)
async def test_who_leaves_pays_for_what_was_generated(gateway: Gateway, error: BaseException) -> None:
    await read_until(gateway, error)
    assert await charged_tokens(gateway) == [SOME_TOKENS]


async def test_nothing_is_charged_for_an_answer_that_a_bug_ended(gateway: Gateway) -> None:
    await read_until(gateway, ZeroDivisionError())
    assert await charged_tokens(gateway) == []


@pytest.mark.parametrize("lies_unread", [True, False])
async def test_an_engine_that_counts_now_and_then_is_heard_out_whatever_lies_there_unread(
    gateway: Gateway, lies_unread: bool
) -> None:
    relay, has_left, reader = await funded_relay(gateway), asyncio.Event(), ChunkReader()

    async def leave() -> None:
        async with relay.stream({**BODY, INTERVAL: 16}, reader) as pieces:
            if not lies_unread:
                reader.feed(await anext(pieces))
            has_left.set()
            leaving.cancel()
            await asyncio.Event().wait()

    answering, leaving = asyncio.create_task(answer(gateway, has_left)), asyncio.create_task(leave())
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await answering
    assert await charged_tokens(gateway) == [ALL_TOKENS]


async def test_who_has_a_prompt_counted_is_among_those_who_ask_at_once(gateway: Gateway) -> None:
    crowd, relays = Crowd("this key", 1, 0.0, 0.0), [await funded_relay(gateway) for _ in range(2)]
    for relay in relays:
        relay.allowance = Allowance(CurrentKey(gateway.org_id, "key", Role.MEMBER), [], [], [crowd])
    counting = asyncio.create_task(relays[0].count(BODY))
    peer = await gateway.double.peer()
    await peer.asked()
    with pytest.raises(TooManyAtOnce):
        await relays[1].count(BODY)
    peer.say(whole(b'{"count": 3, "max_model_len": 64}'))
    assert await counting == TokenCount(3, 64)
    assert crowd.mine == 0


async def test_what_cannot_fit_by_far_is_not_counted(gateway: Gateway) -> None:
    relay = await funded_relay(gateway)
    text = "x" * (relay.target.model.context_length * MAX_TOKEN_CHARS + 1)
    with pytest.raises(ContextExceeded):
        await relay.count({"messages": [{"role": "user", "content": text}]})
    assert gateway.double.n_connections == 0


async def test_something_must_be_left_for_a_model_that_is_free_too(gateway: Gateway) -> None:
    priced = target()
    prices = priced.model.dollars_per_million_tokens
    free = prices.model_copy(update=dict.fromkeys(("prompt", "cached_prompt", "completion"), 0))
    model = priced.model.model_copy(update={"dollars_per_million_tokens": free})
    relay = Relay(
        gateway.settings, gateway.pool, gateway.charges, replace(priced, model=model), gateway.org_id, "req_1", "salt"
    )
    with pytest.raises(InsufficientFunds):
        await relay.hold_soon(BODY, 100)
    assert not relay.hold_now(BODY, 100)
