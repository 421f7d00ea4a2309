"""What the engines of a gateway do, written down for whoever looks from outside."""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import anyio.to_thread
import psutil
from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.devices import nvml
from app.engines.engine import Engine
from app.errors import Unavailable
from app.store.base import db_now
from app.store.session import Store
from app.store.tables import EngineStatus

ASK_SECONDS = 2.0


class Statuses:
    """`write()` is called now and then; what it wrote is good for `seconds`, or until it is forgotten."""

    def __init__(self, store: Store, engines: Callable[[], Sequence[Engine]]) -> None:
        self._store = store
        self._engines = engines
        self._written: set[str] = set()
        self._counted: dict[str, tuple[float, int]] = {}  # by engine: when, and how many tokens it had made

    async def write(self, *, seconds: float) -> None:
        engines = self._engines()
        speeds = await asyncio.gather(*(self._tokens_per_second(engine) for engine in engines))
        memory = await anyio.to_thread.run_sync(_memory_of, engines)
        rows = [_status(*seen) for seen in zip(engines, speeds, memory, strict=True)]
        ids = {engine.id for engine in engines}
        async with self._store.begin() as session:
            old = EngineStatus.id.in_(ids | self._written) | (EngineStatus.expires_at < db_now())
            await session.execute(delete(EngineStatus).where(old))
            for row in rows:
                await session.execute(insert(EngineStatus).values(**row, expires_at=db_now() + seconds))
        self._written = ids
        self._counted = {name: counted for name, counted in self._counted.items() if name in ids}

    async def _tokens_per_second(self, engine: Engine) -> float:
        """Since the last time; 0 for one that does not answer: it may be starting, or hang."""
        try:
            async with asyncio.timeout(ASK_SECONDS):
                count = await engine.client.count_generated_tokens()
        except (Unavailable, OSError):
            return 0.0
        now = time.monotonic()
        then, earlier = self._counted.get(engine.id, (0.0, count))
        self._counted[engine.id] = (now, count)
        return max(0, count - earlier) / (now - then)


async def forget_statuses(session: AsyncSession, engine_ids: Collection[str]) -> None:
    """Of engines that have stopped."""
    await session.execute(delete(EngineStatus).where(EngineStatus.id.in_(engine_ids)))


async def list_statuses(session: AsyncSession) -> list[EngineStatus]:
    """Of all gateways, those that were written lately."""
    rows = select(EngineStatus).where(EngineStatus.expires_at >= db_now())
    return list(await session.scalars(rows.order_by(EngineStatus.host, EngineStatus.model, EngineStatus.id)))


def _status(engine: Engine, tokens_per_second: float, memory_bytes: int) -> dict[str, Any]:
    elapsed = time.monotonic() - (engine.began_at or time.monotonic())
    return {
        "id": engine.id,
        "host": engine.devices[0].host,
        "model": engine.key.model_id,
        "gpu": str(engine.key.gpu),
        "state": str(engine.state),
        "since": time.time() - elapsed,
        "in_flight": engine.in_flight,
        "tokens_per_second": tokens_per_second,
        "memory_bytes": memory_bytes,
        "adapters": engine.adapters.loaded if engine.is_ready else [],
    }


def _memory_of(engines: Sequence[Engine]) -> list[int]:
    """Of an engine on GPUs what is in use there, of one on the CPU what its processes hold."""
    used = {gpu.index: gpu.total_bytes - gpu.free_bytes for gpu in nvml.list_gpus()}
    on_cpu = [engine.key.gpu.type == "CPU" or not used for engine in engines]
    return [
        _resident_bytes(engine.pid) if is_on_cpu else sum(used.get(device.index, 0) for device in engine.devices)
        for engine, is_on_cpu in zip(engines, on_cpu, strict=True)
    ]


def _resident_bytes(pid: int | None) -> int:
    if pid is None:
        return 0
    try:
        leader = psutil.Process(pid)
        return sum(process.memory_info().rss for process in (leader, *leader.children(recursive=True)))
    except psutil.Error:  # one of them has just ended
        return 0
