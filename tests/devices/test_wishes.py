"""Wishes for devices: told from the first time on, for as long as they are repeated."""

import pytest
from sqlalchemy import update

from app.catalog.spec import GpuChoice
from app.devices.wishes import Wish, list_wishes, owed, wish, withdraw, withdraw_others
from app.store.session import Store
from app.store.tables import DeviceWish

pytestmark = pytest.mark.anyio


async def make(store: Store, holder: str, gpu: str = "A100", *, seconds: float = 60) -> None:
    async with store.begin() as session:
        await wish(session, "here", holder, GpuChoice.parse(gpu), seconds=seconds)


async def age(store: Store, seconds: float) -> None:
    async with store.begin() as session:
        await session.execute(update(DeviceWish).values(wished_at=DeviceWish.wished_at - seconds))


async def wishes(store: Store, host: str = "here") -> list[Wish]:
    async with store.read() as session:
        return await list_wishes(session, host)


async def test_a_wish_that_is_repeated_counts_from_its_first_time(store: Store) -> None:
    await make(store, "old")
    await age(store, 100)
    await make(store, "new")
    await make(store, "old")
    assert [(w.holder, round(w.waited_seconds, -1)) for w in await wishes(store)] == [("old", 100), ("new", 0)]
    assert await wishes(store, "elsewhere") == []


async def test_a_wish_for_more_or_fewer_devices_than_before_has_waited_as_long(store: Store) -> None:
    await make(store, "job", "A100:2")
    await age(store, 100)
    await make(store, "job", "A100")
    assert [(str(w.gpu), round(w.waited_seconds, -1)) for w in await wishes(store)] == [("A100", 100)]


async def test_a_wish_that_is_not_repeated_runs_out(store: Store) -> None:
    await make(store, "job", seconds=-1)
    assert await wishes(store) == []
    await age(store, 100)
    await make(store, "job")
    assert [round(w.waited_seconds, -1) for w in await wishes(store)] == [0]


async def test_wishes_are_withdrawn(store: Store) -> None:
    for holder in ("job_a", "job_b", "job_c", "gateway_a"):
        await make(store, holder)
    async with store.begin() as session:
        await withdraw(session, "here", "job_a")
        await withdraw_others(session, "elsewhere", [], prefix="job_")
    assert {w.holder for w in await wishes(store)} == {"job_b", "job_c", "gateway_a"}
    async with store.begin() as session:
        await withdraw_others(session, "here", ["job_c"], prefix="job_")
    assert {w.holder for w in await wishes(store)} == {"job_c", "gateway_a"}


@pytest.mark.parametrize(
    ("wished", "given_way_to"),
    [
        (["gateway_b/1"], ["gateway_b/1"]),
        (["gateway_a/1", "gateway_b/1"], []),
        (["gateway_b/1", "gateway_a/1", "gateway_c/1"], ["gateway_b/1"]),
        (["gateway_a/1", "job"], ["job"]),
        (["gateway_a/1 H100", "gateway_b/1"], ["gateway_b/1"]),
    ],
)
def test_of_two_gateways_the_one_that_has_waited_longer_is_given_way_to(
    wished: list[str], given_way_to: list[str]
) -> None:
    told = [each.split() for each in wished]
    made = [Wish(holder, GpuChoice.parse(gpu[0] if gpu else "A100"), 1.0) for holder, *gpu in told]
    assert [each.holder for each in owed(made, "gateway", "gateway_a/")] == given_way_to
