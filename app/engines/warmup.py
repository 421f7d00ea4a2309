"""Warming: a start ahead of need, paid by who asked for it, and what can be said of it meanwhile."""

import asyncio
import time
from dataclasses import astuple, dataclass

import structlog

from app.billing.charges import Charges
from app.billing.ledger import Entry
from app.billing.prices import gpu_micros
from app.catalog.resolve import Target
from app.catalog.spec import Catalog, GpuChoice, ModelSpec
from app.engines.engine import Engine, State
from app.engines.pool import EnginePool
from app.engines.progress import StillStarting
from app.errors import APIError
from app.orgs.keys import CurrentKey

log = structlog.get_logger()


@dataclass(frozen=True)
class WarmState:
    """`cold`, `warming`, `warmed` or `failed`, the only words that clients know."""

    word: str
    gpu: str | None
    elapsed_seconds: float
    stage: str | None = None
    progress: float | None = None
    error: str | None = None
    log: list[str] | None = None

    @property
    def rank(self) -> int:
        return ("cold", "failed", "warming", "warmed").index(self.word)


@dataclass(frozen=True)
class _Wanted:
    """What an organisation has warmed."""

    org_id: str
    model_id: str
    gpu: GpuChoice

    def is_of(self, org_id: str, model: ModelSpec, gpu: GpuChoice | None) -> bool:
        return (self.org_id, self.model_id) == (org_id, model.id) and gpu in (None, self.gpu)


class Warmups:
    """The warm-ups under way, and why those failed that did not get as far as an engine."""

    def __init__(self, pool: EnginePool, charges: Charges, catalog: Catalog, *, cold_start_seconds: float) -> None:
        self._pool = pool
        self._charges = charges
        self._catalog = catalog
        self._cold_start_seconds = cold_start_seconds
        self._tasks: dict[_Wanted, asyncio.Task[None]] = {}
        self._failures: dict[_Wanted, APIError] = {}

    def start(self, target: Target, by: CurrentKey) -> str:
        """Say how things stand (`warming`, `already_warming`, `already_warmed`), having begun where nothing had."""
        state = self.state(by.org_id, target.model, target.gpu)
        if state.word == "warmed" and not target.adapter:
            return "already_warmed"
        wanted = _Wanted(by.org_id, target.model.id, target.gpu)
        if wanted in self._tasks:
            return "already_warming"
        self._failures.pop(wanted, None)
        task = self._tasks[wanted] = asyncio.create_task(self._warm(target, by))
        task.add_done_callback(lambda _: self._tasks.pop(wanted, None))
        return {"warmed": "already_warmed", "warming": "already_warming"}.get(state.word, "warming")

    def state(self, org_id: str, model: ModelSpec, gpu: GpuChoice | None) -> WarmState:
        """On one GPU type, or the best on any. What failed an organisation alone, as for want of funds, is only its."""
        known = [_state_of(engine) for engine in self._pool.find(model.id, gpu)]
        waiting = [wanted for wanted in self._tasks if wanted.is_of(org_id, model, gpu)]
        known += [WarmState("warming", str(wanted.gpu), 0.0) for wanted in waiting]
        failed = {wanted: e for wanted, e in self._failures.items() if wanted.is_of(org_id, model, gpu)}
        known += [WarmState("failed", str(wanted.gpu), 0.0, error=error.message) for wanted, error in failed.items()]
        return max(known, key=lambda s: s.rank, default=WarmState("cold", str(gpu) if gpu else None, 0.0))

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _warm(self, target: Target, by: CurrentKey) -> None:
        was_cold = self.state(by.org_id, target.model, target.gpu).word != "warmed"
        try:
            with await self._charges.funds.hold(by.org_id, self._most_micros(target)):
                async with self._pool.lease(target, org_id=by.org_id) as engine:
                    pass
                if was_cold:
                    await self._charge(engine, target, by)
        except StillStarting:
            log.info("warm-up goes on without who asked", model=target.model.id, gpu=str(target.gpu))
        except APIError as error:
            log.warning("warm-up failed", model=target.model.id, gpu=str(target.gpu), error=error.message)
            self._failures[_Wanted(by.org_id, target.model.id, target.gpu)] = error

    def _most_micros(self, target: Target) -> int:
        """A start that takes longer is not charged."""
        return gpu_micros(self._cold_start_seconds * target.gpu.count, self._catalog.gpus[target.gpu.type])

    async def _charge(self, engine: Engine, target: Target, by: CurrentKey) -> None:
        gpu_seconds = (engine.start_seconds or 0.0) * target.gpu.count
        entry = Entry(
            org_id=by.org_id,
            key_id=by.key_id,
            source=f"warmup:{engine.id}:{engine.starts}",
            kind="warmup",
            amount_micros=-gpu_micros(gpu_seconds, self._catalog.gpus[target.gpu.type]),
            model=target.model.id,
            gpu=str(target.gpu),
            gpu_seconds=gpu_seconds,
        )
        await self._charges.record(entry)


def _state_of(engine: Engine) -> WarmState:
    gpu = str(engine.key.gpu)
    elapsed = round(time.monotonic() - engine.began_at, 1) if engine.began_at else 0.0
    if engine.state is State.READY:
        return WarmState("warmed", gpu, round(engine.start_seconds or 0.0, 1), *astuple(engine.progress))
    if engine.state is State.STARTING:
        return WarmState("warming", gpu, elapsed, *astuple(engine.progress))
    if engine.failure:
        tail = (engine.failure.troubleshooting or {}).get("log")
        return WarmState("failed", gpu, 0.0, error=engine.failure.message, log=tail)
    return WarmState("cold", gpu, 0.0)
