"""Places those who wait on engines, whenever something has changed: the hands of `placement`."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.catalog.resolve import Target
from app.catalog.spec import GpuChoice
from app.devices import leases
from app.devices.wishes import Wish, list_wishes, owed, wish, withdraw_others
from app.engines.engine import Engine
from app.engines.fleet import Fleet
from app.engines.placement import Decision, MakeRoom, Refuse, Reuse, Rules, Start, Wait, may_grow, plan
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
        self._has_wished = False
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
        held, wishes = await self._look()
        # From here to the starts nothing may wait: an idle engine could be leased meanwhile.
        self._waiters.see_wishes(wishes)
        waiting = self._waiters.in_turn()
        free = Counter(device.type for device in self._fleet.devices if device.name not in held)
        decisions = self._plan(waiting, free)
        lacking = self._lacking(waiting, decisions, held)
        starting = self._carry_out(waiting, decisions)
        for waiter in starting:
            await self._start_for(waiter)
        await self._grow(free)
        await self._wish(lacking)

    async def _look(self) -> tuple[set[str], list[Wish]]:
        async with self._store.read() as session:
            held, wishes = await leases.held(session), await list_wishes(session, socket.gethostname())
        return held, owed(wishes, GATEWAY, self._prefix)

    def _plan(self, waiting: Sequence[Waiter | WaitingElsewhere], free: Mapping[str, int]) -> list[Decision]:
        total = Counter(device.type for device in self._fleet.devices)
        running = self._fleet.running(draining=self.giving_way)
        return plan([one.wanted() for one in waiting], running, free=free, total=total, rules=self._rules)

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
        self, waiting: Sequence[Waiter | WaitingElsewhere], decisions: Sequence[Decision], held: Collection[str]
    ) -> dict[str, GpuChoice]:
        """By holder: what requests wait for, where others have devices of the type. At most one for each type."""
        engines = self._fleet.running(draining=frozenset())
        own = Counter[str]()
        for engine in engines:
            own[engine.gpu.type] += engine.gpu.count
        taken = Counter(device.type for device in self._fleet.devices if device.name in held)
        return {
            f"{self._prefix}{one.number}": GpuChoice(type=one.target.gpu.type, count=lacks)
            for one, decision in zip(waiting, decisions, strict=True)
            if isinstance(one, Waiter)
            and isinstance(decision, Wait)
            and (lacks := decision.lacks)
            and taken[one.target.gpu.type] > own[one.target.gpu.type]
        }

    async def _wish(self, lacking: Mapping[str, GpuChoice]) -> None:
        """Engines of other gateways on this host give way, as ours do for what waits there."""
        if not lacking and not self._has_wished:
            return
        host = socket.gethostname()
        async with self._store.begin() as session:
            await withdraw_others(session, host, lacking, prefix=self._prefix)
            for holder, gpu in lacking.items():
                await wish(session, host, holder, gpu, seconds=self._settings.lease_seconds)
        self._has_wished = bool(lacking)

    async def _start_for(self, waiter: Waiter) -> None:
        engine = await self._fleet.add(waiter.target.model, waiter.target.gpu)
        if engine is None:  # somebody was quicker; the next look may find others
            return
        if not waiter.placed.done():
            self._waiters.place(waiter, engine)
        self.stir()  # others may wait for the same

    async def _grow(self, free: Mapping[str, int]) -> None:
        """Start one replica for each model that has too many requests at once."""
        for key in {engine.key for engine in self._fleet.engines}:
            replicas = [self._fleet.seen(engine) for engine in self._fleet.replicas(key)]
            wanted = [one.wanted() for one in self._waiters.in_turn()]
            limit = self._settings.replica_in_flight
            if not may_grow(replicas, wanted, gpu=key.gpu, free=free.get(key.gpu.type, 0), crowded_at=limit):
                continue
            engine = await self._fleet.add(self._fleet.replicas(key)[0].model, key.gpu)
            if engine:
                log.info("crowded: starting a replica", model=key.model_id, gpu=str(key.gpu))
                engine.ensure_starting()
