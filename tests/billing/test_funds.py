"""Two gateways' funds on one store."""

import asyncio

import pytest
from sqlalchemy import event

from app.billing import holds
from app.billing.charges import Charges
from app.billing.funds import ASK_AGAIN_SECONDS, Funds, FundsHeld
from app.billing.ledger import InsufficientFunds
from app.store.session import Store
from tests.billing.test_ledger import balance, entry, new_org, write

pytestmark = pytest.mark.anyio


@pytest.fixture
async def org(store: Store) -> str:
    """With a thousand micro-dollars."""
    org = await new_org(store)
    await write(store, entry(org, f"credit:{org}", 1000, kind="credit"))
    return org


def funds_on(store: Store, lease_seconds: float = 15) -> Funds:
    return Funds(store, lease_seconds=lease_seconds)


async def held_by_others(store: Store, org: str) -> int:
    async with store.begin() as session:
        return (await holds.look(session, org, "nobody")).others_micros


async def test_nothing_is_at_hand_before_the_store_was_asked(store: Store, org: str) -> None:
    funds = funds_on(store)
    assert funds.hold_now(org, 100) is None
    hold = await funds.hold(org, 100)
    assert funds.hold_now(org, 1) is None
    hold.release()
    assert funds.hold_now(org, 100)


async def test_more_than_the_balance_is_refused_and_all_of_it_is_not(store: Store, org: str) -> None:
    funds = funds_on(store)
    with pytest.raises(InsufficientFunds):
        await funds.hold(org, 1001)
    (await funds.hold(org, 1000)).release()


async def test_what_requests_under_way_hold_is_told_from_what_is_gone(store: Store, org: str) -> None:
    funds = funds_on(store)
    await funds.hold(org, 900)
    with pytest.raises(FundsHeld):
        await funds.hold(org, 200)


async def test_the_rest_is_held_for_who_can_do_with_less(store: Store, org: str) -> None:
    funds = funds_on(store)
    await funds.hold(org, 900)
    assert (await funds.hold(org, 500, least=50)).micros == 100
    with pytest.raises(FundsHeld):
        await funds.hold(org, 500, least=50)


async def test_who_has_no_time_to_ask_twice_asks_once(store: Store, org: str) -> None:
    funds, asks = funds_on(store), list[object]()
    await funds_on(store).hold(org, 900)
    event.listen(store.engine.sync_engine, "commit", asks.append)
    with pytest.raises(FundsHeld):
        await funds.hold(org, 200, wait_seconds=ASK_AGAIN_SECONDS)
    assert len(asks) == 1


async def test_what_one_gateway_does_not_use_another_gets_when_it_lacks_it(store: Store, org: str) -> None:
    idle, busy = funds_on(store), funds_on(store)
    (await idle.hold(org, 900)).release()
    asking = asyncio.create_task(busy.hold(org, 950))
    while not asking.done():
        await idle.step()
        await asyncio.sleep(0)
    assert (await asking).micros == 950


async def test_a_purse_nobody_uses_goes_back_by_itself(store: Store, org: str) -> None:
    funds = funds_on(store, lease_seconds=0.5)
    (await funds.hold(org, 100)).release()
    async with asyncio.timeout(10):
        while await held_by_others(store, org):
            await funds.step()
            await asyncio.sleep(0.05)


async def test_what_a_dead_gateway_held_is_free_when_its_lease_has_run_out(store: Store, org: str) -> None:
    dead, other = funds_on(store, lease_seconds=1), funds_on(store)
    await dead.hold(org, 1000)
    async with asyncio.timeout(10):
        (await other.hold(org, 1000)).release()


async def test_a_gateway_whose_lease_ran_out_lets_nothing_in_on_its_word(store: Store, org: str) -> None:
    funds = funds_on(store, lease_seconds=0.5)
    (await funds.hold(org, 1000)).release()
    await asyncio.sleep(0.5)  # the clock is what is tested
    assert funds.hold_now(org, 1) is None


async def test_what_is_charged_is_not_there_to_be_held_again(store: Store, org: str) -> None:
    funds = funds_on(store)
    charges = Charges(store, funds)
    hold = await funds.hold(org, 1000)
    await charges.record(entry(org, "a", -300))
    hold.release()
    with pytest.raises(InsufficientFunds):
        await funds.hold(org, 701)
    (await funds.hold(org, 700)).release()
    assert await balance(store, org) == 700


async def test_holds_and_charges_of_many_at_once_never_go_below_zero(store_url: str) -> None:
    stores = [Store(store_url) for _ in range(2)]
    both = [funds_on(store) for store in stores]
    charges = [Charges(store, funds) for store, funds in zip(stores, both, strict=True)]
    org = await new_org(stores[0])
    await write(stores[0], entry(org, "credit", 1000, kind="credit"))

    async def spend(n: int) -> None:
        try:
            hold = await both[n % 2].hold(org, 70)
        except (InsufficientFunds, FundsHeld):
            return
        await charges[n % 2].record(entry(org, f"request:{n}", -60))
        hold.release()

    async def share() -> None:
        """As gateways do all the time: what one does not use the other gets."""
        while True:
            for funds in both:
                await funds.step()
            await asyncio.sleep(0.05)

    sharing = asyncio.create_task(share())
    await asyncio.gather(*(spend(n) for n in range(60)))
    sharing.cancel()
    await asyncio.gather(sharing, return_exceptions=True)
    assert 0 <= await balance(stores[0], org) <= 400
    for store in stores:
        await store.close()


async def test_nobody_is_refused_because_others_take_what_is_free_while_the_store_is_asked(store: Store) -> None:
    org, funds = await new_org(store), funds_on(store)
    await write(store, entry(org, f"credit:{org}", 10**9, kind="credit"))
    (await funds.hold(org, 1000)).release()
    asking = asyncio.create_task(funds.hold(org, 5000))
    while not asking.done():  # it counts on what is free
        funds.hold_now(org, 1)
        await asyncio.sleep(0.0002)
    assert (await asking).micros == 5000
