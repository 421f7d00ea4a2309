"""What this gateway's requests may spend: held in the store for all of them, and parted among them in memory.

A gateway that was silent for longer than its lease (stopped, or cut off from the database) may have let requests in
that others' money was then lent to: by as much as they cost a balance can fall below zero, and by no more.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Self

from sqlalchemy.ext.asyncio import AsyncSession

from app.billing import holds
from app.billing.ledger import InsufficientFunds
from app.billing.purse import Purse
from app.errors import APIError
from app.ids import new_id
from app.store.session import Store

WAIT_SECONDS = 2.0  # for money that other gateways do not use
ASK_AGAIN_SECONDS = 0.2
MARGIN = 0.2  # of the lease: how much earlier we stop to rely on it


class FundsHeld(APIError):
    """There is enough, but requests and jobs under way may need it."""

    status_code, type, code = 429, "insufficient_quota", "insufficient_quota"
    headers = {"Retry-After": "2"}

    def __init__(self) -> None:
        super().__init__("What is left of the balance is held for requests and jobs under way; try again shortly.")


@dataclass(slots=True)
class Hold:
    """A request's part, to be released once it has been charged."""

    purse: Purse
    micros: int

    def release(self) -> None:
        """Again is harmless."""
        self.purse.give_back(self.micros)
        self.micros = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.release()


@dataclass
class _Account:
    """One organisation's, in this gateway."""

    purse: Purse = field(default_factory=Purse)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked_at: float = 0.0
    good_until: float = 0.0
    in_store: int = 0
    lacking: int = 0
    seen: holds.Funding = field(default_factory=lambda: holds.Funding(0, 0))

    @property
    def has_more(self) -> bool:
        """Whether the store, when it was last asked, had more than is held here."""
        return self.seen.left_micros > self.in_store


class Funds:
    """`step()` now and then, `close()` at the end."""

    def __init__(self, store: Store, *, lease_seconds: float) -> None:
        self._store = store
        self._lease_seconds = lease_seconds
        self._holder = new_id("gateway")
        self._accounts: dict[str, _Account] = {}

    def hold_now(self, org_id: str, micros: int) -> Hold | None:
        """None where the store has to be asked."""
        account = self._accounts.get(org_id)
        if account is None or time.monotonic() >= account.good_until or not account.purse.take(micros):
            return None
        return Hold(account.purse, micros)

    async def hold(
        self, org_id: str, micros: int, *, least: int | None = None, wait_seconds: float = WAIT_SECONDS
    ) -> Hold:
        """So much, or what there is if that is no less than `least`. Raises InsufficientFunds, FundsHeld."""
        account, need = self._account(org_id), micros
        give_up_at = time.monotonic() + wait_seconds
        while True:
            came_at = time.monotonic()
            async with account.lock:
                if found := await self._find(org_id, account, micros, need, came_at):
                    return found
                was_outrun = account.has_more  # by others, who took what was free meanwhile
                is_hopeless = account.seen.others_micros == 0 and not was_outrun
                pause_seconds = 0 if was_outrun else ASK_AGAIN_SECONDS
                if is_hopeless or came_at + pause_seconds >= give_up_at:
                    return self._rest(org_id, account, micros, least)
            need = micros + account.purse.free if was_outrun else micros  # counting on nothing that is free
            await asyncio.sleep(pause_seconds)

    async def require(self, org_id: str) -> None:
        """Raises as `hold` does, unless there is something left to spend."""
        (self.hold_now(org_id, 1) or await self.hold(org_id, 1)).release()

    def spend(self, org_id: str, micros: int) -> None:
        """A charge is on its way to the ledger."""
        self._account(org_id).purse.spend(micros)

    def committed(self, org_id: str, micros: int) -> None:
        """It has arrived there."""
        self._account(org_id).purse.committed(micros)

    async def step(self) -> None:
        """Hold on to what is used, ask for more ahead of need, give the rest back."""
        if not self._accounts:
            return
        async with self._store.read() as session:
            wanted = await holds.wanted(session, self._holder)
        for org_id, account in list(self._accounts.items()):
            async with account.lock:
                await self._keep(org_id, account, is_wanted=org_id in wanted)

    async def close(self) -> None:
        """Nothing is under way any more."""
        async with self._store.begin() as session:
            await holds.release(session, self._holder)

    def _account(self, org_id: str) -> _Account:
        return self._accounts.get(org_id) or self._accounts.setdefault(org_id, _Account())

    async def _find(self, org_id: str, account: _Account, micros: int, need: int, came_at: float) -> Hold | None:
        """Who came before the store was last asked takes its answer for theirs, where it was that nothing is left."""
        if found := self.hold_now(org_id, micros):
            return found
        if account.asked_at < came_at or account.has_more:
            await self._ask(org_id, account, need)
        return self.hold_now(org_id, micros)

    def _rest(self, org_id: str, account: _Account, micros: int, least: int | None) -> Hold:
        rest = min(micros, account.purse.free)
        if least is not None and rest >= least and (found := self.hold_now(org_id, rest)):
            return found
        if account.seen.balance_micros >= (micros if least is None else least):
            raise FundsHeld
        raise InsufficientFunds

    async def _keep(self, org_id: str, account: _Account, *, is_wanted: bool) -> None:
        purse = account.purse
        purse.begin_period()
        is_stale = purse.kept < account.in_store // 2 or purse.usual > purse.granted
        is_ours = account.in_store > 0 or account.lacking > 0
        if is_ours and (is_stale or is_wanted or account.lacking or self._is_due(account)):
            await self._ask(org_id, account, 0, is_wanted=is_wanted)

    def _is_due(self, account: _Account) -> bool:
        return time.monotonic() > account.good_until - self._lease_seconds / 2

    async def _ask(self, org_id: str, account: _Account, need: int, *, is_wanted: bool = False) -> None:
        """Under the account's lock. What is taken or charged meanwhile changes nothing of what the store must hold."""
        purse, kept = account.purse, account.purse.kept
        asked_at = time.monotonic()
        async with self._store.begin() as session:
            seen = await holds.look(session, org_id, self._holder)
            more = purse.change(need, seen.left_micros - kept, is_wanted=is_wanted)
            lacking = max(0, need - purse.free - more)
            purse.granted += min(0, more)  # before others may have it
            writes = self._is_due(account) or (kept + more, lacking) != (account.in_store, account.lacking)
            if writes:
                await self._write(session, org_id, kept + more, lacking)
        purse.granted += max(0, more)
        account.asked_at, account.seen, account.in_store, account.lacking = asked_at, seen, kept + more, lacking
        if writes:
            account.good_until = asked_at + (1 - MARGIN) * self._lease_seconds

    async def _write(self, session: AsyncSession, org_id: str, micros: int, lacking: int) -> None:
        if micros or lacking:
            seconds = self._lease_seconds if micros else WAIT_SECONDS
            await holds.put(session, org_id, self._holder, micros, seconds=seconds, wanted_micros=lacking)
        else:
            await holds.release(session, self._holder, [org_id])
