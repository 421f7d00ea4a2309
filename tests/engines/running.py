"""Simulated engines in processes of their own, for tests of who starts and ends them."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import psutil

from app.catalog.resolve import AdapterRef, Target
from app.engines.command import engine_program
from app.engines.engine import Engine
from app.engines.launcher import Launcher
from app.files.storage import Storage
from app.ids import new_id
from app.settings import Settings
from tests.rows import target
from workers.simulated_adapter import tiny_safetensors


def simulating(folder: Path, **changes: Any) -> Settings:
    return Settings(data_dir=folder, simulate=True, **changes)


@asynccontextmanager
async def engine_in(folder: Path, wanted: Target | None = None, **changes: Any) -> AsyncIterator[Engine]:
    """An engine that is stopped at the end, whatever became of it."""
    settings, wanted = simulating(folder, **changes), wanted or target()
    storage = Storage(folder)
    launcher = Launcher(storage.engines, engine_program(settings, on_cpu=False), standbys=settings.standbys)
    await launcher.replenish()
    engine = Engine(settings, storage, launcher, wanted.model, wanted.gpu)
    try:
        yield engine
    finally:
        await engine.stop()
        await launcher.close()


def processes_of(folder: Path) -> list[psutil.Process]:
    """All whose command line or working directory names the folder, and who are alive."""
    return [process for process in psutil.process_iter() if _names(process, str(folder))]


def _names(process: psutil.Process, folder: str) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and any(folder in part for part in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def python_with_a_child(folder: Path) -> Path:
    """A Python that leaves a child beside itself, as vLLM's server does."""
    script = folder / "python"
    script.write_text(f'#!/bin/sh\ntail -f {folder}/python > /dev/null &\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return script


def write_adapter(storage: Storage, *, rank: int = 8, weight: float = 1.0) -> AdapterRef:
    """A published adapter that the simulated engine loads."""
    job_id = new_id("ftjob")
    folder = storage.adapter(job_id, "adapter")
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_bytes(orjson.dumps({"r": rank}))
    (folder / "adapter_model.safetensors").write_bytes(tiny_safetensors(weight))
    return AdapterRef(job_id.replace("ftjob-", "adapter_"), job_id, "adapter")
