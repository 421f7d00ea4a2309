"""A repeated request under one Idempotency-Key makes one object."""

import asyncio
from contextlib import suppress

import pytest

from app.errors import Conflict
from app.ids import new_id
from app.store.idempotency import claim_key, find_claimed, is_claimed, release_key, reserve_key
from app.store.session import Store
from tests.rows import make_org

pytestmark = pytest.mark.anyio


async def claim(store: Store, org_id: str, key: str | None, request: object = "same") -> tuple[str, str]:
    """The id that was offered, and the one to answer with."""
    object_id = new_id("ftjob")
    async with store.begin() as session:
        return object_id, await claim_key(session, org_id, key, request, object_id)


async def org_id(store: Store) -> str:
    async with store.begin() as session:
        return (await make_org(session)).id


@pytest.mark.parametrize("n_round", range(3))
async def test_requests_that_race_answer_with_the_same_object(store: Store, n_round: int) -> None:
    org = await org_id(store)
    claims = await asyncio.gather(*(claim(store, org, f"key {n_round}") for _ in range(12)))
    assert len({answered for _, answered in claims}) == 1
    assert sum(offered == answered for offered, answered in claims) == 1


async def test_a_key_belongs_to_its_organisation(store: Store) -> None:
    mine, theirs = await org_id(store), await org_id(store)
    for org in (mine, theirs):
        offered, answered = await claim(store, org, "key")
        assert offered == answered


async def test_a_key_used_with_another_request_is_a_conflict(store: Store) -> None:
    org = await org_id(store)
    await claim(store, org, "key", {"a": 1, "b": 2})
    assert (await claim(store, org, "key", {"b": 2, "a": 1}))[1]
    with pytest.raises(Conflict):
        await claim(store, org, "key", {"a": 2})


async def test_without_a_key_every_request_makes_its_own(store: Store) -> None:
    org = await org_id(store)
    claims = [await claim(store, org, None) for _ in range(2)]
    assert all(offered == answered for offered, answered in claims)


async def test_a_key_whose_request_failed_can_be_used_again(store: Store) -> None:
    org = await org_id(store)
    with suppress(LookupError):
        async with store.begin() as session:
            await claim_key(session, org, "key", "same", "lost")
            raise LookupError
    offered, answered = await claim(store, org, "key")
    assert offered == answered


async def reserve(store: Store, org_id: str, object_id: str, request: object = "same", *, seconds: float = 60) -> bool:
    async with store.begin() as session:
        return await reserve_key(session, org_id, "key", request, object_id, seconds=seconds)


async def found(store: Store, org_id: str) -> str | None:
    async with store.read() as session:
        return await find_claimed(session, org_id, "key", "same")


async def is_made(store: Store, org_id: str) -> bool:
    async with store.read() as session:
        return await is_claimed(session, org_id, "key")


async def test_of_requests_that_race_one_makes_the_object(store: Store) -> None:
    org = await org_id(store)
    ids = [f"resp_{n}" for n in range(12)]
    chosen = await asyncio.gather(*(reserve(store, org, object_id) for object_id in ids))
    assert chosen.count(True) == 1
    mine = ids[chosen.index(True)]
    assert await reserve(store, org, mine)
    assert (await found(store, org), await is_made(store, org)) == (None, False)
    async with store.begin() as session:
        assert await claim_key(session, org, "key", "same", mine) == mine
    assert (await found(store, org), await is_made(store, org)) == (mine, True)
    assert not any(await asyncio.gather(*(reserve(store, org, object_id) for object_id in ids if object_id != mine)))


async def test_holding_on_to_a_key_does_not_undo_what_was_made(store: Store) -> None:
    org = await org_id(store)
    await reserve(store, org, "mine")
    async with store.begin() as session:
        await claim_key(session, org, "key", "same", "mine")
    await reserve(store, org, "mine", seconds=-1)
    async with store.begin() as session:
        await release_key(session, org, "key", "mine")
    assert await found(store, org) == "mine"


async def test_a_key_that_was_let_go_or_has_lapsed_is_the_next_ones(store: Store) -> None:
    org = await org_id(store)
    assert await reserve(store, org, "first")
    async with store.begin() as session:
        await release_key(session, org, "key", "another's")
    assert not await reserve(store, org, "second")
    async with store.begin() as session:
        await release_key(session, org, "key", "first")
    assert await reserve(store, org, "second", seconds=-1)
    assert await reserve(store, org, "third")


async def test_a_key_that_is_held_is_not_for_another_request(store: Store) -> None:
    org = await org_id(store)
    await reserve(store, org, "first")
    with pytest.raises(Conflict):
        await reserve(store, org, "second", "other")
