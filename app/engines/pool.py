"""EnginePool: leases the engines of this gateway to requests, and looks after them."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.to_thread
import structlog

from app.catalog.resolve import Target
from app.catalog.spec import GpuChoice
from app.devices import leases
from app.devices.inventory import Device, for_engines
from app.draining import Draining
from app.engines.adapters import Adapters
from app.engines.affinity import Affinity, prefixes_of
from app.engines.command import engine_program
from app.engines.engine import Engine, EngineKey, State
from app.engines.fitting import check_memory
from app.engines.fleet import Fleet
from app.engines.launcher import Launcher
from app.engines.orphans import sweep_orphans
from app.engines.placer import Placer
from app.engines.statuses import forget_statuses
from app.files.storage import Storage
from app.settings import Settings
from app.store.session import Store

log = structlog.get_logger()


class Leased:
    """An engine that was to be had at once, and its adapter; to be released once."""

    def __init__(self, engine: Engine, placer: Placer, adapters: Adapters | None, adapter_id: str) -> None:
        self.engine = engine
        self._placer = placer
        self._adapters = adapters  # of the process that runs now: the next one knows nothing of it
        self._adapter_id = adapter_id

    def release(self) -> None:
        if self._adapters:
            self._adapters.let_go(self._adapter_id)
        self._placer.release(self.engine)


class EnginePool:
    """One engine for each (model, GPU type), and more of them where they are crowded and devices are free.

    Somebody calls `look_at_devices()`, `hold_devices()` and `look_after()` now and then, and `drain()` at the end.
    """

    def __init__(self, settings: Settings, store: Store, storage: Storage, devices: Sequence[Device]) -> None:
        self.devices = for_engines(devices)
        self._settings = settings
        self._store = store
        self._storage = storage
        program = engine_program(settings, on_cpu=all(device.type == "CPU" for device in self.devices))
        self._launcher = Launcher(storage.engines, program, standbys=settings.standbys)
        self._fleet = Fleet(settings, store, storage, self._launcher, self.devices)
        self._placer = Placer(settings, store, self._fleet)
        self._affinity = Affinity()
        self._is_draining = False

    @property
    def engines(self) -> list[Engine]:
        return self._fleet.engines

    @property
    def present(self) -> list[Engine]:
        """Also those that are stopping, whom nobody leases any more."""
        return self._fleet.present

    def find(self, model_id: str, gpu: GpuChoice | None = None) -> list[Engine]:
        """The engines of a model, on one GPU type or on all."""
        return [e for e in self.engines if e.key.model_id == model_id and gpu in (None, e.key.gpu)]

    @asynccontextmanager
    async def lease(
        self, target: Target, *, org_id: str = "", body: Mapping[str, Any] | None = None
    ) -> AsyncIterator[Engine]:
        """A ready engine with the target's adapter loaded, kept from eviction until the block ends.

        Where there is a queue, `org_id` says whose turn is taken; among replicas, `body` helps to choose.
        Raises StartFailed, StillStarting, DoesNotFit, NoCapacity, QueueFull, AdapterRefused, NoAdapterSlot,
        Draining.
        """
        deadline = time.monotonic() + self._settings.cold_start_seconds
        engine = await self._occupy(target, org_id, body or {})
        async with self._occupied(engine, target, deadline):
            yield engine

    @asynccontextmanager
    async def lease_of(self, engine: Engine, target: Target) -> AsyncIterator[None]:
        """The same of one engine, which serves the target's model."""
        engine.in_flight += 1
        async with self._occupied(engine, target, time.monotonic() + self._settings.cold_start_seconds):
            yield

    @asynccontextmanager
    async def _occupied(self, engine: Engine, target: Target, deadline: float) -> AsyncIterator[None]:
        try:
            await engine.ensure_ready(within_seconds=deadline - time.monotonic())
            if target.adapter is None:
                yield
            else:
                async with engine.adapters.held(target.adapter, within_seconds=deadline - time.monotonic()):
                    yield
        finally:
            self._placer.release(engine)

    def lease_now(self, target: Target, *, body: Mapping[str, Any]) -> "Leased | None":
        """What `lease` would give without any waiting, to be released by who gets it; None where it would wait."""
        engine = None if self._is_draining else self._find_running(target, body)
        if engine is None or not engine.is_ready:
            return None
        adapters = engine.adapters if target.adapter else None
        if adapters and target.adapter and not adapters.hold(target.adapter.id):
            return None
        engine.in_flight += 1
        return Leased(engine, self._placer, adapters, target.adapter.id if target.adapter else "")

    async def sweep(self) -> None:
        """Before the first request: end the engines that a killed gateway left, and free their devices."""
        holders = await anyio.to_thread.run_sync(sweep_orphans, self._storage.engines)
        async with self._store.begin() as session:
            for holder in holders:
                await leases.release(session, holder)
            await forget_statuses(session, holders)

    async def look_at_devices(self) -> None:
        """Now and then, so that those who wait get what others have freed, and jobs what they wish for."""
        await self._placer.look()

    async def hold_devices(self) -> None:
        """Well within every lease: hold on to the devices, stop engines that have lost theirs to others."""
        await self._fleet.hold_devices()

    async def retire(self, engines: Sequence[Engine]) -> None:
        """Nobody needs them any more. Returns when they have stopped."""
        await self._fleet.retire(*engines)

    async def look_after(self) -> None:
        """Now and then: stop engines that idle for long, end those that hang; that takes as long as they are silent."""
        await asyncio.gather(*(self._look_after(engine) for engine in self.engines))
        if not any(engine.state is State.STARTING for engine in self.engines):
            await self._launcher.replenish()

    async def finish(self, *, grace_seconds: float) -> None:
        """Refuse new leases, let the running ones end."""
        self._is_draining = True
        await self._placer.close(Draining())
        with anyio.move_on_after(grace_seconds):
            while any(engine.in_flight for engine in self.engines):
                await anyio.sleep(0.05)

    async def drain(self, *, grace_seconds: float) -> None:
        """Refuse new leases, let the running ones end, stop all engines."""
        await self.finish(grace_seconds=grace_seconds)
        await self._fleet.stop_all()
        await self._launcher.close()

    async def _look_after(self, engine: Engine) -> None:
        engine.log.bound()
        idle_seconds = 0.0 if engine.in_flight or self._fleet.is_pinned(engine) else engine.idle_seconds
        if idle_seconds > self._settings.engine_idle_seconds:
            await self._fleet.retire(engine)
        elif min(idle_seconds, engine.ready_seconds) > self._settings.sleep_after_seconds:
            engine.fall_asleep()
        elif await engine.hangs(self._settings.stream_silence_seconds):
            log.error("engine hangs; ending it", model=engine.model.id)
            await engine.kill()  # its requests end with an error, the next one starts it again

    async def _occupy(self, target: Target, org_id: str, body: Mapping[str, Any]) -> Engine:
        if self._is_draining:
            raise Draining
        engine = self._find_running(target, body)
        if engine is None:
            await anyio.to_thread.run_sync(check_memory, self._settings, target.model, target.gpu, self._fleet.devices)
            return await self._placer.wait(target, org_id, within_seconds=self._settings.cold_start_seconds)
        engine.in_flight += 1
        return engine

    def _find_running(self, target: Target, body: Mapping[str, Any]) -> Engine | None:
        replicas = self._fleet.replicas(EngineKey(target.model.id, target.gpu))
        if self._placer.giving_way:
            replicas = [engine for engine in replicas if engine not in self._placer.giving_way]
        if len(replicas) < 2:
            return replicas[0] if replicas else None
        return self._affinity.choose(
            replicas,
            adapter_id=target.adapter.id if target.adapter else None,
            prefixes=prefixes_of(body),
            crowded_at=self._settings.replica_in_flight,
        )
