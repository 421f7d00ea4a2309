"""EnginePool: owns the engines of this gateway, and leases them to requests."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import anyio
import structlog

from app.catalog.resolve import Target
from app.catalog.spec import GpuChoice
from app.devices import leases
from app.devices.inventory import Device
from app.draining import Draining
from app.engines.command import engine_program
from app.engines.engine import Engine, EngineKey, State
from app.engines.launcher import Launcher
from app.engines.orphans import sweep_orphans
from app.engines.placement import Refuse, Reuse, Running, Start, Wait, evictable, place
from app.errors import Unavailable
from app.files.storage import Storage
from app.settings import Settings
from app.store.session import Store

log = structlog.get_logger()

WAIT_SECONDS = 0.2


class NoCapacity(Unavailable):
    code = "no_capacity"
    headers = {"Retry-After": "15"}


class EnginePool:
    """One engine per (model, GPU type).

    Somebody calls `hold_devices()` and `look_after()` now and then, and `drain()` at the end.
    """

    def __init__(self, settings: Settings, store: Store, storage: Storage, devices: Sequence[Device]) -> None:
        self._settings = settings
        self._store = store
        self._storage = storage
        self._devices = devices
        program = engine_program(settings, on_cpu=all(device.type == "CPU" for device in devices))
        self._launcher = Launcher(storage.engines, program, standbys=settings.standbys)
        self._engines: dict[EngineKey, Engine] = {}
        self._placing = asyncio.Lock()
        self._draining = False

    @property
    def engines(self) -> list[Engine]:
        return list(self._engines.values())

    def find(self, model_id: str, gpu: GpuChoice | None = None) -> list[Engine]:
        """The engines of a model, on one GPU type or on all."""
        return [e for e in self.engines if e.key.model_id == model_id and gpu in (None, e.key.gpu)]

    @asynccontextmanager
    async def lease(self, target: Target) -> AsyncIterator[Engine]:
        """A ready engine with the target's adapter loaded, kept from eviction until the block ends.

        Raises StartFailed, StillStarting, NoCapacity, AdapterRefused, Draining.
        """
        deadline = time.monotonic() + self._settings.cold_start_seconds
        engine = await self._occupy(target, deadline)
        try:
            await engine.ensure_ready(within_seconds=deadline - time.monotonic())
            if target.adapter:
                await engine.ensure_adapter(target.adapter)
            yield engine
        finally:
            engine.in_flight -= 1
            engine.last_used = time.monotonic()

    async def sweep(self) -> None:
        """Before the first request: end the engines that a killed gateway left, and free their devices."""
        holders = await anyio.to_thread.run_sync(sweep_orphans, self._storage.engines)
        async with self._store.begin() as session:
            for holder in holders:
                await leases.release(session, holder)

    async def hold_devices(self) -> None:
        """Well within every lease: hold on to the devices, stop engines that have lost theirs to others."""
        lost = []
        async with self._store.begin() as session:
            for engine in self.engines:
                held = await leases.extend(session, engine.id, seconds=self._settings.lease_seconds)
                if held < len(engine.devices):
                    lost.append(engine)
        await self._retire(*lost)

    async def look_after(self) -> None:
        """Now and then: stop engines that idle for long, end those that hang; that takes as long as they are silent."""
        await asyncio.gather(*(self._look_after(engine) for engine in self.engines))
        if not any(engine.state is State.STARTING for engine in self.engines):
            await self._launcher.replenish()

    async def _look_after(self, engine: Engine) -> None:
        engine.log.bound()
        now = time.monotonic()
        if not engine.in_flight and now - engine.last_used > self._settings.engine_idle_seconds:
            await self._retire(engine)
        elif await engine.hangs(self._settings.stream_silence_seconds):
            log.error("engine hangs; ending it", model=engine.model.id)
            await engine.kill()  # its requests end with an error, the next one starts it again

    async def give_way(self, gpu: GpuChoice) -> None:
        """Stop idle engines until `gpu` is free; does nothing when busy ones are in the way."""
        async with self._placing:
            missing = gpu.count - await self._count_free(gpu.type)
            # From here to the eviction nothing may wait: an idle engine could be leased meanwhile.
            chosen = evictable(gpu, self._running(), missing=missing) or ()
            await self._retire(*(self.engines[index] for index in chosen))

    async def finish(self, *, grace_seconds: float) -> None:
        """Refuse new leases, let the running ones end."""
        self._draining = True
        with anyio.move_on_after(grace_seconds):
            while any(engine.in_flight for engine in self.engines):
                await anyio.sleep(0.05)

    async def drain(self, *, grace_seconds: float) -> None:
        """Refuse new leases, let the running ones end, stop all engines."""
        await self.finish(grace_seconds=grace_seconds)
        async with self._placing:
            await self._retire(*self.engines)
        await self._launcher.close()

    async def _occupy(self, target: Target, deadline: float) -> Engine:
        while True:
            if self._draining:
                raise Draining
            engine = self._engines.get(EngineKey(target.model.id, target.gpu))
            if engine is None:
                async with self._placing:
                    engine = await self._place(target)
            if engine:
                engine.in_flight += 1
                return engine
            if time.monotonic() > deadline:
                raise NoCapacity(f"Every {target.gpu} of this host is busy; try again.")
            await anyio.sleep(WAIT_SECONDS)

    async def _place(self, target: Target) -> Engine | None:
        """None when nothing can be had right now."""
        if self._draining:
            raise Draining
        gpu = target.gpu
        total = sum(device.type == gpu.type for device in self._devices)
        free = await self._count_free(gpu.type) if not self.find(target.model.id, gpu) else 0
        # From here to the eviction nothing may wait: an idle engine could be leased meanwhile.
        match place(target.model.id, gpu, self._running(), free=free, total=total):
            case Reuse(index):
                return self.engines[index]
            case Start(evict):
                await self._retire(*(self.engines[index] for index in evict))
                return await self._add(target)
            case Refuse(reason):
                raise NoCapacity(f"{target.model.id} cannot run: {reason}.")
            case Wait():
                return None

    async def _add(self, target: Target) -> Engine | None:
        engine = Engine(self._settings, self._storage, self._launcher, target.model, target.gpu, [])
        async with self._store.begin() as session:
            engine.devices = await leases.acquire(
                session, self._devices, target.gpu, engine.id, seconds=self._settings.lease_seconds
            )
        if not engine.devices:  # a worker was quicker
            return None
        self._engines[engine.key] = engine
        return engine

    async def _retire(self, *engines: Engine) -> None:
        for engine in engines:  # first, so that nobody leases what is about to stop
            log.info("engine stopping", model=engine.model.id, gpu=str(engine.key.gpu))
            if self._engines.get(engine.key) is engine:
                del self._engines[engine.key]
        await asyncio.gather(*(self._stop(engine) for engine in engines))

    async def _stop(self, engine: Engine) -> None:
        await engine.stop()
        async with self._store.begin() as session:
            await leases.release(session, engine.id)

    async def _count_free(self, gpu_type: str) -> int:
        async with self._store.read() as session:
            taken = await leases.held(session)
        return sum(device.type == gpu_type and device.name not in taken for device in self._devices)

    def _running(self) -> list[Running]:
        now = time.monotonic()
        return [
            Running(e.key.model_id, e.key.gpu, e.in_flight + (e.state is State.STARTING), now - e.last_used)
            for e in self.engines
        ]
