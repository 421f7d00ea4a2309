"""One engine: a vLLM server process, from its start to its end."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import inf
from pathlib import Path

import anyio
import structlog

from app.catalog.spec import GpuChoice, ModelSpec
from app.devices.gpu_memory import until_free
from app.devices.inventory import Device
from app.engines.adapters import Adapters
from app.engines.client import EngineClient
from app.engines.command import engine_command
from app.engines.engine_log import EngineLog
from app.engines.failures import Crashed, Failures, StartFailed, how_it_ended
from app.engines.launcher import Launcher, give_order
from app.engines.orphans import LEFTOVERS, ProcessRecord
from app.engines.progress import READY, Progress
from app.engines.start_times import estimate_seconds, remember_start
from app.errors import Unavailable
from app.files.storage import Storage
from app.ids import new_id
from app.processes import end_group
from app.settings import Settings

log = structlog.get_logger()

HEALTH_POLL_SECONDS = 0.1
PROBE_SECONDS = 20.0


class State(StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


class StillStarting(Unavailable):
    """`troubleshooting` has how far it is."""

    code = "engine_starting"


@dataclass(frozen=True)
class EngineKey:
    model_id: str
    gpu: GpuChoice


class Engine:
    """States `stopped starting ready stopping`; whoever needs it calls `ensure_ready()`.

    A start belongs to the engine, not to who asked: one start serves all who wait, and goes on if they leave.
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
        self.id = new_id("engine")
        self.key = EngineKey(model.id, gpu)
        self.model = model
        self.number = number  # its own among the replicas of its key
        self.devices: Sequence[Device] = ()  # are given to it before it starts
        self.state = State.STOPPED
        self._in_flight = 0
        self.last_used = self.last_heard = self._waited_since = time.monotonic()
        self.began_at: float | None = None
        self.start_seconds: float | None = None
        self.starts = 0
        replica = f"-{number}" if number > 1 else ""
        self.log = EngineLog(storage.engines / f"{model.id.replace('/', '--')}-{gpu}{replica}.log".replace(":", "x"))
        self._settings = settings
        self._storage = storage
        self._launcher = launcher
        self._process: asyncio.subprocess.Process | None = None
        self._client: EngineClient | None = None
        self._adapters: Adapters | None = None
        self._start: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._grace_seconds = settings.engine_stop_seconds
        self._failures = Failures(model.id, self.log)
        self._ready_at = 0.0

    @property
    def client(self) -> EngineClient:
        """Only after `ensure_ready()`; the engine may die at any moment after that too."""
        if self._client is None:
            raise Unavailable(f"The engine of {self.model.id} has just stopped; try again.")
        return self._client

    @property
    def is_ready(self) -> bool:
        return self.state is State.READY

    @property
    def ready_seconds(self) -> float:
        """For how long it has been ready; for ever where nothing is lost with it."""
        return time.monotonic() - self._ready_at if self.is_ready else inf

    @property
    def adapters(self) -> Adapters:
        """Those of the process that runs, as with `client`."""
        assert self.client
        assert self._adapters
        return self._adapters

    def has_adapter(self, adapter_id: str) -> bool:
        return self._adapters is not None and adapter_id in self._adapters

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
        now = time.monotonic()
        # Silence begins with the first who waits, and goes on when that one gives up and comes again.
        if not self._in_flight and (self.last_heard >= self._waited_since or now - self.last_used > PROBE_SECONDS):
            self._waited_since = now
        self._in_flight = number

    def heard(self) -> None:
        """A sign of life: bytes have come."""
        self.last_heard = time.monotonic()

    def is_silent(self, now: float, limit_seconds: float) -> bool:
        """Whether requests wait and not a byte has come for long."""
        waits = self.state is State.READY and self.in_flight > 0
        return waits and now - max(self.last_heard, self._waited_since) > limit_seconds

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
        return self.is_ready and self.last_heard < began

    def ensure_starting(self) -> None:
        """Begin a start unless the engine runs; after a failure, only when its back-off is over."""
        if self.state is not State.STOPPED:
            return
        self._failures.check()
        self.state, self.began_at = State.STARTING, time.monotonic()
        self._start = asyncio.create_task(self._run_start())

    async def ensure_ready(self, *, within_seconds: float) -> None:
        """Raises StartFailed, Crashed, or StillStarting when the budget is over."""
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
            raise self._still_starting()

    async def kill(self) -> None:
        """As a hung one deserves it: without a grace, for which its requests and the next start would have to wait."""
        self._failures.crashed("hung and was ended", after_seconds=time.monotonic() - self._ready_at)
        self._grace_seconds = 0.0
        await self.stop()

    async def stop(self) -> None:
        """End the process group and wait for it; harmless when it is stopped already."""
        if self._start and not self._start.done():
            self._start.cancel()
            await asyncio.wait([self._start])
        if self._watch:
            self._watch.cancel()
        await self._end_process()

    def _still_starting(self) -> StillStarting:
        progress = self.progress
        told = {
            "stage": progress.stage,
            "progress": progress.fraction,
            "elapsed_seconds": round(time.monotonic() - (self.began_at or time.monotonic()), 1),
            "estimated_seconds": self.estimated_seconds,
        }
        message = f"The engine of {self.model.id} is not ready yet ({progress.stage}); try again."
        return StillStarting(message, troubleshooting=told, headers={"Retry-After": "10"})

    async def _run_start(self) -> None:
        began = time.monotonic()
        try:
            await self._launch()
            await self._until_healthy()
        except Exception as error:  # noqa: BLE001 - whatever it was, those who wait must hear of it
            self._failures.start_failed(error)
            await self._end_process()
        except asyncio.CancelledError:
            await self._end_process()
            raise
        else:
            self.state, self._ready_at = State.READY, time.monotonic()
            self.starts += 1
            self.start_seconds = time.monotonic() - began
            self._watch = asyncio.create_task(self._until_exit())
            remember_start(self._storage.start_times, self.model.id, str(self.key.gpu), self.start_seconds)
            log.info("engine ready", model=self.model.id, gpu=str(self.key.gpu), seconds=round(self.start_seconds, 1))

    async def _launch(self) -> None:
        self._grace_seconds = self._settings.engine_stop_seconds
        self._remove_leftovers()
        self.log.rotate()
        command = engine_command(self._settings, self.model, self.key.gpu, self.devices, self.socket)
        if not self._settings.simulate:
            await until_free(self.devices, self._settings.gpu_memory_utilization)
        log.info("engine starting", model=self.model.id, gpu=str(self.key.gpu), log=str(self.log.path))
        self._process = await self._launcher.launch(command.program, self.log.path)
        ProcessRecord.of(self.id, self._process.pid).write(self.socket.with_suffix(".json"))
        self._client = EngineClient(self.socket)
        slots = max(self._settings.max_loras, self._settings.max_cpu_loras)
        self._adapters = Adapters(self._client, self._storage, slots=slots)
        forks = self.socket.with_suffix(".fork")
        await give_order(self._process, command, log_path=self.log.path, fork_socket=forks)

    async def _until_healthy(self) -> None:
        assert self._process
        with anyio.fail_after(self._settings.cold_start_seconds):
            while not (self.socket.exists() and await self.client.is_healthy()):
                if self._process.returncode is not None:
                    raise RuntimeError(f"its process {how_it_ended(self._process.returncode)}")
                await anyio.sleep(HEALTH_POLL_SECONDS)

    async def _until_exit(self) -> None:
        assert self._process
        status = await self._process.wait()
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
        process, client, adapters = self._process, self._client, self._adapters
        self._process = self._client = self._adapters = None
        if adapters:
            adapters.close()
        if process:
            await end_group(process, grace_seconds=self._grace_seconds)
        if client:
            client.close()
        self._remove_leftovers()
        self.state = State.STOPPED

    def _remove_leftovers(self) -> None:
        for suffix in LEFTOVERS:
            self.socket.with_suffix(suffix).unlink(missing_ok=True)
