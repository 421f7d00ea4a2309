"""One engine: a vLLM server process, from its start to its end."""

import asyncio
import time
from collections.abc import Sequence
from enum import StrEnum
from math import inf
from pathlib import Path
from typing import NamedTuple

import structlog

from app.catalog.spec import GpuChoice, ModelSpec
from app.devices.inventory import Device
from app.engines.adapters import Adapters
from app.engines.client import EngineClient, EngineRefused
from app.engines.command import may_sleep
from app.engines.engine_log import EngineLog
from app.engines.failures import Crashed, Failures, StartFailed, how_it_ended
from app.engines.launcher import Launcher
from app.engines.process import EngineProcess
from app.engines.progress import READY, Progress, StillStarting
from app.engines.silence import PROBE_SECONDS, Silence
from app.engines.sleep import WakeFailed
from app.engines.start_times import estimate_seconds, remember_start
from app.errors import APIError, Unavailable
from app.files.storage import Storage
from app.ids import new_id
from app.settings import Settings

log = structlog.get_logger()

ENGINE = "engine"  # so begins the name of each, as a holder of devices


class State(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    SLEEPING = "sleeping"
    STOPPING = "stopping"


class EngineKey(NamedTuple):
    model_id: str
    gpu: GpuChoice


class Engine:
    """States `stopped starting ready sleeping stopping`; whoever needs it calls `ensure_ready()`.

    A start belongs to the engine, not to who asked: one start serves all who wait, and goes on if they leave.
    A wake is a start that may be short.
    """

    def __init__(
        self,
        settings: Settings,
        storage: Storage,
        launcher: Launcher,
        model: ModelSpec,
        gpu: GpuChoice,
        number: int = 1,
    ) -> None:
        self.id = new_id(ENGINE)
        self.key = EngineKey(model.id, gpu)
        self.model = model
        self.number = number  # its own among the replicas of its key
        self.devices: Sequence[Device] = ()  # are given to it before it starts
        self.state = State.STOPPED
        self._in_flight = 0
        self.last_used = time.monotonic()
        self.silence = Silence()
        self.heard = self.silence.heard  # called for each piece of each answer
        self.began_at: float | None = None
        self.start_seconds: float | None = None
        self.starts = 0
        replica = f"-{number}" if number > 1 else ""
        self.log = EngineLog(storage.engines / f"{model.id.replace('/', '--')}-{gpu}{replica}.log".replace(":", "x"))
        self._settings = settings
        self._storage = storage
        self._launcher = launcher
        self._process: EngineProcess | None = None
        self._start: asyncio.Task[None] | None = None
        self._falling_asleep: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._grace_seconds = settings.engine_stop_seconds
        self._failures = Failures(model.id, self.log)
        self._ready_at = 0.0
        self._is_retired = False

    @property
    def client(self) -> EngineClient:
        """Only after `ensure_ready()`; the engine may die at any moment after that too."""
        return self._running().client

    @property
    def is_ready(self) -> bool:
        return self.state is State.READY

    @property
    def idle_seconds(self) -> float:
        """Since it was last used."""
        return time.monotonic() - self.last_used

    @property
    def ready_seconds(self) -> float:
        """For how long it has been ready; for ever where nothing is lost with it."""
        return time.monotonic() - self._ready_at if self.is_ready else inf

    @property
    def adapters(self) -> Adapters:
        """Those of the process that runs, as with `client`."""
        return self._running().adapters

    def has_adapter(self, adapter_id: str) -> bool:
        return self._process is not None and adapter_id in self._process.adapters

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def failure(self) -> StartFailed | Crashed | None:
        """Why it is not running, where it was to."""
        return self._failures.last

    @property
    def socket(self) -> Path:
        return self._storage.engines / f"{self.id[-12:]}.sock"

    @property
    def progress(self) -> Progress:
        return READY if self.is_ready else self.log.progress()

    @property
    def estimated_seconds(self) -> float | None:
        """From the begin of a start to its end, by earlier ones."""
        return estimate_seconds(self._storage.start_times, self.model.id, str(self.key.gpu))

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @in_flight.setter
    def in_flight(self, number: int) -> None:
        if not self._in_flight:
            self.silence.first_waits(last_used=self.last_used)
        self._in_flight = number

    def is_silent(self, now: float, limit_seconds: float) -> bool:
        """Whether requests wait and not a byte has come for long."""
        return self.is_ready and self.in_flight > 0 and self.silence.seconds(now) > limit_seconds

    async def hangs(self, limit_seconds: float) -> bool:
        """Whether requests have waited that long without a byte, and no token comes that we ask for ourselves.

        Asked shortly before the limit, so as to know at the limit.
        """
        began = time.monotonic()
        probe_seconds = min(PROBE_SECONDS, limit_seconds / 2)
        if not self.is_silent(began, limit_seconds - probe_seconds):
            return False
        if await self.client.answers(self.model.id, within_seconds=probe_seconds):
            self.heard()
            return False
        return self.is_ready and self.silence.last_heard < began

    def ensure_starting(self) -> None:
        """Begin a start, or a wake, unless the engine runs; after a failure, only when its back-off is over."""
        if self.state not in (State.STOPPED, State.SLEEPING):
            return
        if self._is_retired:
            raise self._gone()
        self._failures.check()
        self._stop_watching()  # the death of a process that sleeps is a wake that fails, from here on
        self.state, self.began_at = State.STARTING, time.monotonic()
        self._start = asyncio.create_task(self._run_start())

    async def ensure_ready(self, *, within_seconds: float) -> None:
        """Raises StartFailed, Crashed, StillStarting when the budget is over, or Unavailable when it is retired."""
        if self.is_ready:
            return
        deadline = time.monotonic() + within_seconds
        if self._ending is not None:
            await asyncio.wait([self._ending], timeout=within_seconds)
        self.ensure_starting()
        if self._start is not None:
            await asyncio.wait([self._start], timeout=deadline - time.monotonic())
        if self.failure:
            raise self.failure
        if not self.is_ready:
            elapsed = time.monotonic() - (self.began_at or time.monotonic())
            raise StillStarting.of(self.model.id, self.progress, elapsed, self.estimated_seconds)

    async def kill(self) -> None:
        """As a hung one deserves it: without a grace, for which its requests and the next start would have to wait."""
        self._failures.crashed("hung and was ended", after_seconds=time.monotonic() - self._ready_at)
        self._grace_seconds = 0.0
        await self.stop()

    def fall_asleep(self) -> None:
        """If nobody uses it, and it can. From this moment on, who comes wakes it: a sleep would end its requests."""
        if self.is_ready and not self._in_flight and may_sleep(self._settings, self.key.gpu):
            self.state = State.SLEEPING
            self._falling_asleep = asyncio.create_task(self._fall_asleep())

    async def retire(self) -> None:
        """Stop, and never start again: its devices are given back."""
        self._is_retired = True
        await self.stop()

    async def stop(self) -> None:
        """End the process group and wait for it; harmless when it is stopped already."""
        if self._start and not self._start.done():
            self._start.cancel()
            await asyncio.wait([self._start])
        self._stop_watching()
        await self._end_process()

    def _running(self) -> EngineProcess:
        if self._process is None or self._process.is_ending:
            raise self._gone()
        return self._process

    def _gone(self) -> Unavailable:
        return Unavailable(f"The engine of {self.model.id} has just stopped; try again.")

    async def _run_start(self) -> None:
        try:
            is_cold = not await self._woken()
            if is_cold:
                await self._launch()
        except Exception as error:  # noqa: BLE001 - whatever it was, those who wait must hear of it
            self._failures.start_failed(error)
            await self._end_process()
        except asyncio.CancelledError:
            await self._end_process()
            raise
        else:
            self._be_ready(is_cold=is_cold)

    async def _launch(self) -> None:
        self._grace_seconds = self._settings.engine_stop_seconds
        self.log.rotate()
        process = self._process = EngineProcess(self._settings, self._storage, self.socket, self.model)
        await process.launch(self._launcher, self.id, self.key.gpu, self.devices, self.log.path)
        await process.until_healthy(within_seconds=self._settings.engine_start_seconds)
        if may_sleep(self._settings, self.key.gpu):
            await process.sleep.prepare()

    def _be_ready(self, *, is_cold: bool) -> None:
        assert self.began_at is not None
        self.state, self._ready_at = State.READY, time.monotonic()
        self.starts += 1
        seconds = self.start_seconds = self._ready_at - self.began_at
        self._watch = asyncio.create_task(self._until_exit())
        if is_cold:
            remember_start(self._storage.start_times, self.model.id, str(self.key.gpu), seconds)
        how = "started" if is_cold else "woken"
        log.info("engine ready", model=self.model.id, gpu=str(self.key.gpu), seconds=round(seconds, 1), how=how)

    async def _fall_asleep(self) -> None:
        try:
            await self._running().sleep.begin()
        except (OSError, EngineRefused, Unavailable) as error:
            log.error("engine cannot sleep; ending it", model=self.model.id, error=repr(error)[:300])
            if self.state is State.SLEEPING:  # else somebody wakes it already, and sees for himself
                self._stop_watching()
                await self._end_process()

    async def _woken(self) -> bool:
        """Whether the process that slept serves as before. One that does not is ended, for a new one."""
        if self._process is None:
            return False
        if self._falling_asleep:
            await asyncio.wait([self._falling_asleep])
        try:
            await self._process.sleep.wake(start_seconds=self._settings.engine_start_seconds)
        except (OSError, EngineRefused, APIError, WakeFailed) as error:
            log.error("engine does not wake as it fell asleep", model=self.model.id, error=repr(error)[:300])
            await self._process.end(grace_seconds=self._grace_seconds)
            self._process = None
            return False
        return True

    def _stop_watching(self) -> None:
        if self._watch:
            self._watch.cancel()

    async def _until_exit(self) -> None:
        assert self._process
        status = await self._process.exited()
        self._failures.crashed(how_it_ended(status), after_seconds=time.monotonic() - self._ready_at)
        self._watch = None
        await self._end_process()

    async def _end_process(self) -> None:
        """The one way to `stopped`. It is gone to its end, even when who began it is cancelled on the way."""
        if self._ending is None or self._ending.done():
            self.state = State.STOPPING
            self._ending = asyncio.create_task(self._end())
        await asyncio.shield(self._ending)

    async def _end(self) -> None:
        if self._process:
            await self._process.end(grace_seconds=self._grace_seconds)
        self._process = None
        self.state = State.STOPPED
