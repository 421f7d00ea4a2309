"""Keys: kept as hashes, revoked and expired ones refused, read from one well-formed header only."""

import time
from functools import partial

import pytest
from sqlalchemy import Update, event, select, update
from starlette.types import Scope

from app.orgs.auth import bearer_token
from app.orgs.key_ring import KeyRing
from app.orgs.keys import CurrentKey, hash_key, new_secret, of_secret
from app.orgs.roles import Role
from app.store.session import Store
from app.store.tables import ApiKey, Org
from tests.eventually import eventually
from tests.rows import make_key, make_org

pytestmark = pytest.mark.anyio


async def new_key(store: Store) -> tuple[str, ApiKey]:
    async with store.begin() as session:
        org = await make_org(session)
        key = await make_key(session, org)
        row = await session.scalar(select(ApiKey).where(ApiKey.org_id == org.id))
    assert row
    return key, row


async def test_a_key_is_known_and_not_kept(store: Store) -> None:
    key, row = await new_key(store)
    assert await KeyRing(store, cache_seconds=5).authenticate(key) == CurrentKey(row.org_id, row.id, Role.MEMBER)
    assert row.key_hash == hash_key(key)
    assert all(key not in str(getattr(row, column.key)) for column in ApiKey.__table__.columns)


@pytest.mark.parametrize("wrong", ["", "sk-loam-", "x" * 256, "' OR 1=1 --"])
async def test_an_unknown_key_is_nobody(store: Store, wrong: str) -> None:
    key, _ = await new_key(store)
    ring = KeyRing(store, cache_seconds=5)
    assert await ring.authenticate(wrong) is None
    assert await ring.authenticate(key[:-1]) is None
    assert await ring.authenticate(hash_key(key)) is None


async def test_a_key_that_was_just_refused_is_not_looked_up_again_at_once(store: Store) -> None:
    key, looks = new_secret(), list[object]()
    ring = KeyRing(store, cache_seconds=60)
    event.listen(store.engine.sync_engine, "begin", looks.append)
    assert [await ring.authenticate(key) for _ in range(2)] == [None, None]
    assert len(looks) == 1
    async with store.begin() as session:
        await make_key(session, await make_org(session), **of_secret(key))
    assert await eventually(partial(ring.authenticate, key), within_seconds=2)


async def test_an_expired_key_is_nobody(store: Store) -> None:
    key, row = await new_key(store)
    async with store.begin() as session:
        await session.execute(update(ApiKey).where(ApiKey.id == row.id).values(expires_at=time.time() - 1))
    assert await KeyRing(store, cache_seconds=5).authenticate(key) is None


async def test_a_key_that_expires_while_it_is_known_is_nobody_any_more(store: Store) -> None:
    key, row = await new_key(store)
    ring = KeyRing(store, cache_seconds=60)
    async with store.begin() as session:
        await session.execute(update(ApiKey).where(ApiKey.id == row.id).values(expires_at=time.time() + 0.5))
    assert await ring.authenticate(key)
    await eventually(lambda: ring.find_known(hash_key(key)) is None, within_seconds=2)
    assert await ring.authenticate(key) is None


@pytest.mark.parametrize(
    "change",
    [
        update(ApiKey).values(revoked_at=1.0),
        update(ApiKey).values(key_hash="another"),
        update(Org).values(deleted_at=1.0),
    ],
    ids=["revoked", "rotated", "of a deleted organisation"],
)
async def test_a_key_that_goes_is_forgotten_when_the_ring_looks_next(store: Store, change: Update) -> None:
    key, _ = await new_key(store)
    ring = KeyRing(store, cache_seconds=60)
    assert await ring.authenticate(key)
    await ring.keep_up()
    known = await ring.authenticate(key)
    await ring.keep_up()
    assert ring.find_known(hash_key(key)) is known  # nothing has changed
    async with store.begin() as session:
        await session.execute(change)
    await ring.keep_up()
    assert ring.find_known(hash_key(key)) is None
    assert await ring.authenticate(key) is None


async def test_a_change_of_what_a_key_may_do_is_seen_when_the_ring_looks_next(store: Store) -> None:
    key, _ = await new_key(store)
    ring = KeyRing(store, cache_seconds=60)
    await ring.authenticate(key)
    await ring.keep_up()
    async with store.begin() as session:
        await session.execute(update(ApiKey).values(role=Role.READ))
        await session.execute(update(Org).values(tokens_per_minute=7))
    await ring.keep_up()
    known = await ring.authenticate(key)
    assert known
    assert (known.role, known.org_limits.tokens_per_minute) == (Role.READ, 7)


async def test_when_a_key_was_used_is_told_and_makes_nobody_forget_it(store: Store) -> None:
    key, row = await new_key(store)
    ring, other = KeyRing(store, cache_seconds=60), KeyRing(store, cache_seconds=60)
    for each in (ring, other):
        await each.authenticate(key)
        await each.keep_up()
    known = await other.authenticate(key)
    await ring.authenticate(key)
    began = time.time()
    await ring.tell_used()
    await ring.tell_used()  # nothing more
    async with store.read() as session:
        used_at = await session.scalar(select(ApiKey.last_used_at).where(ApiKey.id == row.id))
    assert used_at
    assert began - 5 < used_at <= time.time()
    await other.keep_up()
    assert other.find_known(hash_key(key)) is known


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([(b"authorization", b"Bearer abc")], "abc"),
        ([(b"authorization", b"bearer abc")], "abc"),
        ([(b"authorization", b"Bearer  abc ")], "abc"),
        ([(b"authorization", b"Basic abc")], None),
        ([(b"authorization", b"Bearer")], None),
        ([(b"authorization", b"Bearer \xff")], None),
        ([(b"authorization", b"Bearer " + b"x" * 257)], None),
        ([(b"authorization", b"Bearer a"), (b"authorization", b"Bearer a")], None),
        ([], None),
    ],
)
def test_only_one_well_formed_header_is_read(headers: list[tuple[bytes, bytes]], token: str | None) -> None:
    scope: Scope = {"type": "http", "headers": headers}
    assert bearer_token(scope) == token
