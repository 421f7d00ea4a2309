"""Places those who wait on engines, whenever something has changed: the hands of `placement`."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.catalog.resolve import Target
from app.catalog.spec import GpuChoice, ModelSpec
from app.devices import leases
from app.devices.wishes import Wish, list_wishes, owed, wish, withdraw_others
from app.engines.engine import ENGINE, Engine, State
from app.engines.fleet import Fleet
from app.engines.placement import Decision, MakeRoom, Refuse, Reuse, Rules, Start, Wait, are_crowded, may_grow, plan
from app.engines.waiters import NoCapacity, Waiter, Waiters, WaitingElsewhere
from app.errors import APIError, Unavailable
from app.ids import new_id
from app.settings import Settings
from app.store.session import Store

log = structlog.get_logger()

GATEWAY = "gateway"  # so begins the name of each, as a holder of wishes


class Placer:
    """One round at a time looks at all who wait; `stir()` asks for one."""

    def __init__(self, settings: Settings, store: Store, fleet: Fleet) -> None:
        self.giving_way: frozenset[Engine] = frozenset()  # busy, and given nothing more to do
        self._prefix = f"{new_id(GATEWAY)}/"
        self._wished: Mapping[str, GpuChoice] = {}
        self._settings = settings
        self._store = store
        self._fleet = fleet
        self._rules = Rules(settings.settle_seconds, settings.drain_after_seconds)
        self._waiters = Waiters(settings.max_waiting)
        self._is_stirred = False
        self._closed_by: APIError | None = None
        self._rounds: asyncio.Task[None] | None = None
        fleet.on_stopped = self.stir

    @property
    def is_needed(self) -> bool:
        """Whether anybody waits."""
        return len(self._waiters) > 0

    async def wait(self, target: Target, org_id: str, *, within_seconds: float) -> Engine:
        """An engine for the target, leased: its `in_flight` counts who waited. Raises NoCapacity, QueueFull."""
        if self._closed_by:
            raise self._closed_by
        waiter = self._waiters.add(target, org_id)
        self.stir()
        try:
            async with asyncio.timeout(within_seconds):
                return await waiter.placed
        except TimeoutError:
            self._leave(waiter)
            raise NoCapacity(f"Every {target.gpu} of this host is busy; try again.") from None
        except asyncio.CancelledError:
            self._leave(waiter)
            raise

    def stir(self) -> None:
        """Something has changed: see who can be placed now."""
        self._is_stirred = True
        if not self._closed_by and (self._rounds is None or self._rounds.done()):
            self._rounds = asyncio.create_task(self._go_round())

    async def look(self) -> None:
        """What others do to the devices and what time does is seen by looking only."""
        self.stir()
        await self._settle()

    async def close(self, error: APIError) -> None:
        """Turn all away who wait; start nothing from now on."""
        self._closed_by = error
        self._turn_away(error)
        await self._settle()

    def release(self, engine: Engine) -> None:
        """Whoever had leased it needs it no more."""
        engine.in_flight -= 1
        engine.last_used = time.monotonic()
        if not engine.in_flight and self.is_needed:
            self.stir()

    def _leave(self, waiter: Waiter) -> None:
        """It may have been placed in this very moment."""
        if waiter.has_left:
            self._waiters.leave(waiter)
            self.stir()
        elif not waiter.placed.exception():
            self.release(waiter.placed.result())

    async def _settle(self) -> None:
        if self._rounds:
            await asyncio.wait([self._rounds])

    def _turn_away(self, error: APIError) -> None:
        for waiter in self._waiters.requests():
            self._waiters.refuse(waiter, error)

    async def _go_round(self) -> None:
        while self._is_stirred and not self._closed_by:
            self._is_stirred = False
            try:
                await self._round()
            except (SQLAlchemyError, OSError) as error:
                log.warning("cannot look at the devices", error=repr(error)[:300])
                self._turn_away(Unavailable("The database cannot be reached; try again."))

    async def _round(self) -> None:
        holders, wishes = await self._look()
        # From here to the starts nothing may wait: an idle engine could be leased meanwhile.
        self._waiters.see_wishes(wishes)
        waiting = self._waiters.in_turn()
        free = Counter(device.type for device in self._fleet.devices if device.name not in holders)
        elsewhere = self._elsewhere(holders)
        decisions = self._plan(waiting, free, elsewhere)
        lacking = self._lacking(waiting, decisions, elsewhere)
        starting = self._carry_out(waiting, decisions)
        for waiter in starting:
            await self._start_for(waiter)
        await self._grow(free)
        await self._wish(lacking)

    async def _look(self) -> tuple[Mapping[str, str], list[Wish]]:
        async with self._store.read() as session:
            holders, wishes = await leases.holders(session), await list_wishes(session, socket.gethostname())
        return holders, owed(wishes, GATEWAY, self._prefix)

    def _elsewhere(self, holders: Mapping[str, str]) -> Counter[str]:
        """What engines of other gateways have."""
        own = {engine.id for engine in self._fleet.running(draining=frozenset())}
        names = {device.name: holders.get(device.name, "") for device in self._fleet.devices}
        theirs = {name for name, holder in names.items() if holder.startswith(f"{ENGINE}_") and holder not in own}
        return Counter(device.type for device in self._fleet.devices if device.name in theirs)

    def _plan(
        self, waiting: Sequence[Waiter | WaitingElsewhere], free: Mapping[str, int], elsewhere: Mapping[str, int]
    ) -> list[Decision]:
        total = Counter(device.type for device in self._fleet.devices)
        running = self._fleet.running(draining=self.giving_way)
        wanted = [one.wanted() for one in waiting]
        return plan(wanted, running, free=free, elsewhere=elsewhere, total=total, rules=self._rules)

    def _carry_out(self, waiting: Sequence[Waiter | WaitingElsewhere], decisions: Sequence[Decision]) -> list[Waiter]:
        """All but the starts, which are returned."""
        engines = {engine.id: engine for engine in self._fleet.engines}
        drained = [name for decision in decisions if isinstance(decision, MakeRoom) for name in decision.drain]
        self.giving_way = frozenset(engines[name] for name in drained)
        starting = []
        for one, decision in zip(waiting, decisions, strict=True):
            match one, decision:
                case _, MakeRoom(evict=names):
                    self._fleet.retire(*(engines[name] for name in names))
                case Waiter(), Reuse(name):
                    self._waiters.place(one, engines[name])
                case Waiter(), Refuse(reason):
                    self._waiters.refuse(one, NoCapacity(f"{one.target.model.id} cannot run: {reason}."))
                case Waiter(), Start():
                    starting.append(one)
        return starting

    def _lacking(
        self, waiting: Sequence[Waiter | WaitingElsewhere], decisions: Sequence[Decision], elsewhere: Mapping[str, int]
    ) -> dict[str, GpuChoice]:
        """By holder: what requests wait for, where engines of others have devices of the type.

        A wish stands until who waits has its engine: what others gave for it is free, and not its own yet.
        """
        lacking = {}
        for one, decision in zip(waiting, decisions, strict=True):
            holder = f"{self._prefix}{one.number}" if isinstance(one, Waiter) else ""
            match one, decision:
                case Waiter(), (Wait(lacks) | MakeRoom(lacks=lacks)) if lacks:
                    if holder in self._wished or elsewhere.get(one.target.gpu.type):
                        lacking[holder] = GpuChoice(one.target.gpu.type, lacks)
                case Waiter(), Start() if holder in self._wished:
                    lacking[holder] = self._wished[holder]
        return lacking

    async def _wish(self, lacking: Mapping[str, GpuChoice]) -> None:
        """Engines of other gateways on this host give way, as ours do for what waits there."""
        if not lacking and not self._wished:
            return
        host = socket.gethostname()
        async with self._store.begin() as session:
            await withdraw_others(session, host, lacking, prefix=self._prefix)
            for holder, gpu in lacking.items():
                await wish(session, host, holder, gpu, seconds=self._settings.lease_seconds)
        self._wished = lacking

    async def _start_for(self, waiter: Waiter) -> None:
        engine = await self._fleet.add(waiter.target.model, waiter.target.gpu)
        if engine is None:  # somebody was quicker; the next look may find others
            return
        if not waiter.placed.done():
            self._waiters.place(waiter, engine)
        self.stir()  # others may wait for the same

    async def _grow(self, free: Mapping[str, int]) -> None:
        """One engine more for each model that has too many requests at once."""
        limit = self._settings.replica_in_flight
        for key in {engine.key for engine in self._fleet.engines}:
            replicas = self._fleet.replicas(key)
            at_rest = [engine for engine in replicas if engine.state in (State.STOPPED, State.SLEEPING)]
            at_work = [self._fleet.seen(engine) for engine in replicas if engine.state in (State.STARTING, State.READY)]
            wanted = [one.wanted() for one in self._waiters.in_turn()]
            if at_rest and are_crowded(at_work, crowded_at=limit):
                with suppress(Unavailable):  # it has failed lately
                    at_rest[0].ensure_starting()
            elif may_grow(at_work, wanted, gpu=key.gpu, free=free.get(key.gpu.type, 0), crowded_at=limit):
                await self._add_replica(replicas[0].model, key.gpu)

    async def _add_replica(self, model: ModelSpec, gpu: GpuChoice) -> None:
        engine = await self._fleet.add(model, gpu)
        if engine:
            log.info("crowded: starting a replica", model=model.id, gpu=str(gpu))
            engine.ensure_starting()
