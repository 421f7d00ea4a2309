"""The engines of this gateway and the devices they hold."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import count

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.catalog.spec import GpuChoice, ModelSpec
from app.devices import leases
from app.devices.inventory import Device
from app.engines.engine import Engine, EngineKey, State
from app.engines.launcher import Launcher
from app.engines.placement import Running
from app.engines.statuses import forget_statuses
from app.files.storage import Storage
from app.settings import Settings
from app.store.session import Store

log = structlog.get_logger()


class Fleet:
    """An engine belongs to it from the moment it has devices until it is to stop, and has them until it has stopped.

    `on_stopped` is called whenever that has made devices free.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        storage: Storage,
        launcher: Launcher,
        devices: Sequence[Device],
    ) -> None:
        self.devices = devices
        self.on_stopped: Callable[[], None] = lambda: None
        self._settings = settings
        self._store = store
        self._storage = storage
        self._launcher = launcher
        self._engines: dict[EngineKey, list[Engine]] = {}
        self._stops: dict[Engine, asyncio.Task[None]] = {}

    @property
    def engines(self) -> list[Engine]:
        return [engine for replicas in self._engines.values() for engine in replicas]

    @property
    def present(self) -> list[Engine]:
        """Also those that are stopping."""
        return [*self.engines, *self._stops]

    def replicas(self, key: EngineKey) -> Sequence[Engine]:
        return self._engines.get(key, ())

    def is_pinned(self, engine: Engine) -> bool:
        """The first engine of a model that the catalog pins; further replicas come and go."""
        return engine.model.pinned and engine in self.replicas(engine.key)[:1]

    async def add(self, model: ModelSpec, gpu: GpuChoice) -> Engine | None:
        """A stopped engine that has its devices; None when others were quicker."""
        taken = {replica.number for replica in self.replicas(EngineKey(model.id, gpu))}
        number = next(n for n in count(1) if n not in taken)
        engine = Engine(self._settings, self._storage, self._launcher, model, gpu, number)
        async with self._store.begin() as session:
            engine.devices = await leases.acquire(
                session, self.devices, gpu, engine.id, seconds=self._settings.lease_seconds
            )
        if not engine.devices:
            return None
        self._engines.setdefault(engine.key, []).append(engine)
        return engine

    def retire(self, *engines: Engine) -> asyncio.Future[list[None]]:
        """Nobody leases them from now on; what is returned is done when they have stopped."""
        for engine in engines:
            if engine in self.replicas(engine.key):
                log.info("engine stopping", model=engine.model.id, gpu=str(engine.key.gpu))
                self._forget(engine)
                self._stops[engine] = asyncio.create_task(self._stop(engine))
        return asyncio.gather(*(self._stops[engine] for engine in engines if engine in self._stops))

    async def stop_all(self) -> None:
        self.retire(*self.engines)
        await asyncio.gather(*self._stops.values())

    async def hold_devices(self) -> None:
        """Extend every lease; stop engines that have lost theirs to others."""
        lost = []
        async with self._store.begin() as session:
            for engine in self.present:
                held = await leases.extend(session, engine.id, seconds=self._settings.lease_seconds)
                if held < len(engine.devices) and engine not in self._stops:
                    lost.append(engine)
        await self.retire(*lost)

    def running(self, *, draining: frozenset[Engine]) -> list[Running]:
        """As placement sees them."""
        return [self.seen(engine, is_draining=engine in draining) for engine in self.present]

    def seen(self, engine: Engine, *, is_draining: bool = False) -> Running:
        return Running(
            engine.id,
            engine.key.model_id,
            engine.key.gpu,
            in_flight=engine.in_flight,
            idle_seconds=engine.idle_seconds,
            ready_seconds=engine.ready_seconds,
            is_starting=engine.state is State.STARTING,
            is_stopping=engine in self._stops,
            is_draining=is_draining,
            is_pinned=self.is_pinned(engine),
        )

    def _forget(self, engine: Engine) -> None:
        self._engines[engine.key].remove(engine)
        if not self._engines[engine.key]:
            del self._engines[engine.key]

    async def _stop(self, engine: Engine) -> None:
        try:
            await engine.retire()
            async with self._store.begin() as session:
                await leases.release(session, engine.id)
                await forget_statuses(session, [engine.id])
        except (SQLAlchemyError, OSError) as error:  # then its leases run out
            log.warning("cannot give devices back", engine=engine.id, error=repr(error)[:300])
        finally:
            del self._stops[engine]
            self.on_stopped()
