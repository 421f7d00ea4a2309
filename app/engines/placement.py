"""Which engine serves a request, and what must happen first. Pure: it decides, the pool acts."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.catalog.spec import GpuChoice


@dataclass(frozen=True)
class Running:
    """An engine as placement sees it."""

    model_id: str
    gpu: GpuChoice
    in_flight: int
    idle_seconds: float


@dataclass(frozen=True)
class Reuse:
    index: int


@dataclass(frozen=True)
class Start:
    """Start an engine, after these (indices) have been evicted."""

    evict: tuple[int, ...] = ()


@dataclass(frozen=True)
class Wait:
    """All devices are busy; something will become free."""


@dataclass(frozen=True)
class Refuse:
    reason: str


Decision = Reuse | Start | Wait | Refuse


def place(model_id: str, gpu: GpuChoice, running: Sequence[Running], *, free: int, total: int) -> Decision:
    """`free` and `total` count the devices of the GPU's type on this host."""
    for index, engine in enumerate(running):
        if engine.model_id == model_id and engine.gpu == gpu:
            return Reuse(index)
    if gpu.count > total:
        return Refuse(f"{gpu} is more than the {total} that this host has")
    evict = evictable(gpu, running, missing=gpu.count - free)
    return Wait() if evict is None else Start(evict)


def evictable(gpu: GpuChoice, running: Sequence[Running], *, missing: int) -> tuple[int, ...] | None:
    """The idle engines, least recently used first, that must go so that `missing` devices become free."""
    idle = [i for i, engine in enumerate(running) if engine.in_flight == 0 and engine.gpu.type == gpu.type]
    idle.sort(key=lambda i: running[i].idle_seconds, reverse=True)
    chosen: list[int] = []
    while missing > 0 and idle:
        chosen.append(idle.pop(0))
        missing -= running[chosen[-1]].gpu.count
    return tuple(chosen) if missing <= 0 else None
