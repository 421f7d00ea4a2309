"""One engine process: launched, asked over its socket, and ended with all that it leaves behind."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import anyio
import structlog

from app.catalog.spec import GpuChoice, ModelSpec
from app.devices.gpu_memory import until_free
from app.devices.inventory import Device
from app.engines.adapters import Adapters
from app.engines.client import EngineClient
from app.engines.command import engine_command
from app.engines.failures import how_it_ended
from app.engines.launcher import Launcher, give_order
from app.engines.orphans import LEFTOVERS, ProcessRecord
from app.engines.sleep import Sleep
from app.files.storage import Storage
from app.processes import end_group
from app.settings import Settings

log = structlog.get_logger()

HEALTH_POLL_SECONDS = 0.1


class EngineProcess:
    """Owned by its engine, which launches it once and ends it."""

    def __init__(self, settings: Settings, storage: Storage, socket: Path, model: ModelSpec) -> None:
        self.client = EngineClient(socket)
        slots = max(settings.max_loras, settings.max_cpu_loras)
        self.adapters = Adapters(self.client, storage, slots=slots)
        self.sleep = Sleep(self.client, self.adapters, model)
        self.is_ending = False
        self._settings = settings
        self._model = model
        self._socket = socket
        self._child: asyncio.subprocess.Process | None = None
        self._ending: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    async def launch(
        self, launcher: Launcher, holder: str, gpu: GpuChoice, devices: Sequence[Device], log_path: Path
    ) -> None:
        """Its record, written for `holder`, lets a later gateway find it."""
        self._remove_leftovers()
        command = engine_command(self._settings, self._model, gpu, devices, self._socket)
        if not self._settings.simulate:
            await until_free(devices, self._settings.gpu_memory_utilization)
        log.info("engine starting", model=self._model.id, gpu=str(gpu), log=str(log_path))
        self._child = await launcher.launch(command.program, log_path)
        ProcessRecord.of(holder, self._child.pid).write(self._socket.with_suffix(".json"))
        await give_order(self._child, command, log_path=log_path, fork_socket=self._socket.with_suffix(".fork"))

    async def until_healthy(self, *, within_seconds: float) -> None:
        """Raises TimeoutError, or RuntimeError when it has ended."""
        assert self._child
        with anyio.fail_after(within_seconds):
            while not (self._socket.exists() and await self.client.is_healthy()):
                if self._child.returncode is not None:
                    raise RuntimeError(f"its process {how_it_ended(self._child.returncode)}")
                await anyio.sleep(HEALTH_POLL_SECONDS)

    async def exited(self) -> int:
        """Its exit status, once it has ended by itself."""
        assert self._child
        return await self._child.wait()

    async def end(self, *, grace_seconds: float) -> None:
        """Harmless when it has ended. Gone to its end, even when who began it is cancelled on the way."""
        if self._ending is None:
            self.is_ending = True
            self._ending = asyncio.create_task(self._end(grace_seconds))
        await asyncio.shield(self._ending)

    async def _end(self, grace_seconds: float) -> None:
        self.adapters.close()
        if self._child:
            await end_group(self._child, grace_seconds=grace_seconds)
        self.client.close()
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        for suffix in LEFTOVERS:
            self._socket.with_suffix(suffix).unlink(missing_ok=True)
