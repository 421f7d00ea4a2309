"""Limits that two gateways share through the store."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from app.ids import new_id
from app.orgs import allowances
from app.orgs.allowances import Allowance, Allowances, RateLimited
from app.orgs.at_once import TooManyAtOnce
from app.orgs.keys import CurrentKey, Limits
from app.orgs.roles import Role
from app.store.session import Store
from app.store.tables import UnderWay

pytestmark = pytest.mark.anyio

NONE = Limits()


def a_key(own: Limits, org: Limits = NONE, org_id: str = "org") -> CurrentKey:
    return CurrentKey(org_id, new_id("key"), Role.MEMBER, limits=own, org_limits=org)


@pytest.fixture
async def gateways(store: Store, store_url: str) -> AsyncIterator[tuple[Allowances, Allowances]]:
    other = Store(store_url)
    yield Allowances(store), Allowances(other)
    await other.close()


def take_all(allowance: Allowance) -> int:
    """How many requests are let in until one is refused."""
    for n_taken in range(1000):
        if not allowance.has_left():
            return n_taken
        allowance.take()
    raise AssertionError("no limit")


def told(allowance: Allowance, name: str) -> str:
    return dict(allowance.headers())[b"x-ratelimit-" + name.encode()].decode()


async def test_what_one_gateway_let_in_the_other_does_not_once_it_has_been_told(
    gateways: tuple[Allowances, Allowances],
) -> None:
    key = a_key(Limits(requests_per_minute=6))
    first, second = [await gateway.of(key) for gateway in gateways]
    for _ in range(4):
        first.take()
    await gateways[0].share()
    await gateways[1].share()
    assert take_all(second) == 2
    await gateways[1].share()
    await gateways[0].share()
    assert take_all(first) == 0


async def test_what_is_shared_while_the_store_is_asked_is_not_forgotten(
    gateways: tuple[Allowances, Allowances], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, limit = gateways[0], Limits(requests_per_minute=5)
    first = await ours.of(a_key(NONE, limit))
    levels, has_read, may_go_on = allowances._levels, asyncio.Event(), asyncio.Event()

    async def levels_of_a_moment_ago(session: AsyncSession, subjects: Sequence[str]) -> dict[str, float]:
        found = await levels(session, subjects)
        has_read.set()
        await may_go_on.wait()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(allowances, "_levels", levels_of_a_moment_ago)
        asking = asyncio.create_task(ours.of(a_key(NONE, limit)))
        await has_read.wait()
    assert take_all(first) == 5
    await ours.share()
    may_go_on.set()
    assert take_all(await asking) == 0


async def test_a_gateway_that_has_just_started_knows_what_was_taken(gateways: tuple[Allowances, Allowances]) -> None:
    key = a_key(Limits(requests_per_minute=5))
    assert take_all(await gateways[0].of(key)) == 5
    await gateways[0].share()
    assert take_all(await gateways[1].of(key)) == 0


async def test_gateways_that_cannot_hear_of_each_other_let_in_no_more_than_both_their_limits_and_pay_it_back(
    gateways: tuple[Allowances, Allowances],
) -> None:
    key = a_key(Limits(requests_per_minute=5))
    first, second = [await gateway.of(key) for gateway in gateways]
    assert (take_all(first), take_all(second)) == (5, 5)
    for gateway in (*gateways, gateways[0]):
        await gateway.share()
    assert told(first, "remaining-requests") == "0"
    assert told(first, "reset-requests").startswith(("1m5", "2m0"))


async def test_the_keys_of_an_organisation_share_its_limit(store: Store) -> None:
    allowances, org = Allowances(store), Limits(requests_per_minute=3)
    first, second = [await allowances.of(a_key(NONE, org)) for _ in range(2)]
    other = await allowances.of(a_key(NONE, org, org_id="another"))
    assert [take_all(each) for each in (first, second, other)] == [3, 0, 3]


async def test_the_limit_that_is_reached_first_is_told(store: Store) -> None:
    key = a_key(Limits(requests_per_minute=9, tokens_per_minute=100), Limits(requests_per_minute=5))
    allowance = await Allowances(store).of(key)
    allowance.take()
    assert told(allowance, "limit-requests") == "5"
    assert told(allowance, "remaining-requests") == "4"
    assert told(allowance, "remaining-tokens") == "100"


async def test_tokens_are_counted_when_used_and_who_comes_after_waits(store: Store) -> None:
    allowance = await Allowances(store).of(a_key(Limits(tokens_per_minute=100)))
    allowance.take()
    allowance.spend(150)
    with pytest.raises(RateLimited, match="100 tokens a minute") as refusal:
        allowance.require()
    assert 30 <= int(refusal.value.headers["Retry-After"]) <= 31


async def test_a_limit_that_was_changed_holds_at_once(store: Store) -> None:
    allowances, key = Allowances(store), a_key(Limits(requests_per_minute=2))
    assert take_all(await allowances.of(key)) == 2
    raised = CurrentKey(key.org_id, key.key_id, key.role, limits=Limits(requests_per_minute=200))
    assert allowances.find_known(raised) is None
    assert (await allowances.of(raised)).has_left() is False  # the two were a minute's worth when they were taken


async def test_where_nobody_has_limits_the_store_is_left_alone() -> None:
    nowhere = Store("sqlite+aiosqlite:////nowhere/loam.db")
    await Allowances(nowhere).share()
    await nowhere.close()


def begin_all(allowance: Allowance) -> int:
    """How many requests may be under way until one is refused."""
    for n_begun in range(1000):
        try:
            allowance.begin()
        except TooManyAtOnce:
            assert not allowance.has_left()
            return n_begun
    raise AssertionError("no limit")


async def test_as_many_requests_run_at_once_as_may_and_another_when_one_has_ended(store: Store) -> None:
    allowance = await Allowances(store).of(a_key(Limits(requests_at_once=3)))
    assert begin_all(allowance) == 3
    with pytest.raises(TooManyAtOnce, match="3 requests of this key"):
        allowance.require()
    allowance.end()
    allowance.require()
    assert begin_all(allowance) == 1


async def test_keys_share_how_many_requests_their_organisation_may_make_at_once(store: Store) -> None:
    allowances, org = Allowances(store), Limits(requests_at_once=3)
    first, second = [await allowances.of(a_key(Limits(requests_at_once=2), org)) for _ in range(2)]
    assert [begin_all(each) for each in (first, second)] == [2, 1]
    with pytest.raises(TooManyAtOnce, match="3 requests of this organisation"):
        second.require()


async def test_what_runs_on_one_gateway_the_other_counts_once_it_has_been_told(
    gateways: tuple[Allowances, Allowances],
) -> None:
    key = a_key(Limits(requests_at_once=5))
    first, second = [await gateway.of(key) for gateway in gateways]
    for _ in range(4):
        first.begin()
    for gateway in gateways:
        await gateway.share()
    assert begin_all(second) == 1
    for _ in range(3):
        first.end()
    for gateway in gateways:
        await gateway.share()
    assert begin_all(second) == 3


async def test_a_gateway_that_has_just_started_knows_what_runs_on_others_but_not_on_dead_ones(
    store: Store, gateways: tuple[Allowances, Allowances]
) -> None:
    key = a_key(Limits(requests_at_once=5))
    assert begin_all(await gateways[0].of(key)) == 5
    await gateways[0].share()
    assert begin_all(await gateways[1].of(key)) == 0
    async with store.begin() as session:
        await session.execute(update(UnderWay).values(expires_at=0.0))
    assert begin_all(await Allowances(store).of(key)) == 5


async def test_whoever_changes_a_limit_does_not_change_how_many_are_under_way(store: Store) -> None:
    allowances, key = Allowances(store), a_key(Limits(requests_at_once=2))
    before = await allowances.of(key)
    assert begin_all(before) == 2
    raised = CurrentKey(key.org_id, key.key_id, key.role, limits=Limits(requests_at_once=5))
    after = await allowances.of(raised)
    assert begin_all(after) == 3
    before.end()
    assert begin_all(after) == 1
